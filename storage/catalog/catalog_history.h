#pragma once

// Why chunks left: a bounded history.  Rows lie in generations of 1/8 of the bound; a full bound
// drops the oldest generation at once, so that no row costs a lookup or an erase of its own.
//
// Threads: belongs to the catalog's thread.

#include <cstdint>
#include <vector>

#include "storage/base/result.h"
#include "storage/catalog/catalog_rows.h"
#include "storage/catalog/row_store.h"

namespace terrace {

inline constexpr uint32_t kHistoryGenerations = 8;
inline constexpr size_t kHistoryAnswerMax = 16;  // entries of one chunk

class CatalogHistory {
 public:
  // 0: keeps nothing.
  explicit CatalogHistory(uint64_t rows_max) : rows_max_(rows_max) {}

  // Where the last one ended.  Damaged bookkeeping begins anew with the next write.
  Status Load(const RowStore& store);

  // Rows become part of `batch`, with EndBatch as the last call for it.
  void Add(const ChunkName& name, const GoneRow& row, RowBatch* batch);
  void EndBatch(RowBatch* batch);
  // Of that batch.  A failed one's rows count as there: the bound holds either way.
  void Written(bool ok);

  // The newest entries of the chunk, newest first.
  Result<std::vector<GoneEntry>> Find(const RowStore& store, const ChunkName& name) const;

  uint64_t rows() const;
  // Of the oldest row that is kept; 0 without one.
  int64_t since_wall_ns() const { return generations_.empty() ? 0 : generations_.front().since_ns; }

 private:
  struct Generation {
    uint32_t id = 0;
    uint64_t rows = 0;
    int64_t since_ns = 0;  // CLOCK_REALTIME of its first row
  };
  uint64_t RowsPerGeneration() const;
  void MakeRoom();
  std::string Bookkeeping() const;
  bool ParseBookkeeping(std::string_view value);

  const uint64_t rows_max_;
  std::vector<Generation> generations_;  // the oldest first
  uint64_t next_number_ = 1;
  bool changed_ = false;        // since the last EndBatch
  uint32_t erased_below_ = 0;   // generations that are surely gone
  uint32_t erasing_below_ = 0;  // by the batch under way
};

}  // namespace terrace
