#pragma once

// Rows that must not be lost, changed together: all of an update or nothing of it is found again.
//
// Threads: a value.

#include <string>
#include <vector>

#include "storage/base/limits.h"
#include "storage/base/status.h"
#include "storage/catalog/catalog_rows.h"

namespace terrace {

inline constexpr size_t kUpdateBytesMax = 1 * kMiB;  // keys and values of one update
inline constexpr size_t kUpdateChangesMax = 16 * 1024;

class RowBatch;

class CatalogUpdate {
 public:
  // Each adds the row or replaces the one of its name.
  void Put(const TenantRow& row);
  void Put(const NamespaceRow& row);
  void Put(const NextIdRow& row);
  void Put(const LeaseRow& row);
  void Put(const EnduranceRow& row);

  void EraseTenant(const std::string& name);
  void EraseNamespace(uint32_t tenant, const std::string& label);
  void EraseLease(const ChunkName& name);
  void EraseEndurance(uint32_t device, uint32_t day);
  // Every chunk row of a namespace that is live no more.
  void EraseChunks(uint32_t tenant, uint32_t namespace_id);

  // kInvalid naming the bound that a row or all of them break.
  Status Check() const;
  size_t bytes() const;  // of keys and values
  bool empty() const { return changes_.empty(); }
  void AddTo(RowBatch* batch) const;

 private:
  struct Change {
    enum class Kind : uint8_t { kPut, kErase, kEraseRange } kind;
    std::string key;
    std::string value;  // the range's end
  };
  void Bound(const char* what, size_t bytes, size_t bytes_max);

  std::vector<Change> changes_;
  std::string refused_;  // the first row out of bounds
};

}  // namespace terrace
