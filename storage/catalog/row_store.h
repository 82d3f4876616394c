#pragma once

// Ordered rows on disk (RocksDB), each under an XXH3-64 of its key and value: a row that reads
// wrong is not read at all.  It knows nothing of what the rows mean.
//
// A batch is there wholly or not at all after any crash; kill -9 loses none that Write answered Ok
// to, a loss of power only the newest that were not synced.
//
// Room is asked for before a write, for RocksDB takes a full disk badly.  After an error of its
// writes or of its background work the store is closed and opened anew by the next write.
//
// Threads: Write, Sync and Close from one thread; Get and Scan from any, until Close.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "storage/base/clock.h"
#include "storage/base/limits.h"
#include "storage/base/result.h"

namespace terrace {

struct RowStoreOptions {
  std::string folder;
  enum class Mode : uint8_t {
    kCreate,  // kInvalid when there is one
    kWrite,
    kRead,  // changes nothing, and refuses every write
  };
  Mode mode = Mode::kWrite;
  uint64_t cache_bytes = 8 * kMiB;          // blocks, indexes
  uint64_t write_buffer_bytes = 16 * kMiB;  // one of three
  uint64_t log_bytes_max = 64 * kMiB;       // of the write-ahead log: what opening replays
  // Left free in the file system by Write.
  uint64_t free_bytes_min = 0;
  // After an error that opened the store anew, or should have: the next time not before.
  int64_t retry_ns = kNsPerSecond;
};

// Changes that are made together.  They apply in the order of the calls.
//
// Threads: one owner.
class RowBatch {
 public:
  RowBatch();
  ~RowBatch();
  RowBatch(const RowBatch&) = delete;
  RowBatch& operator=(const RowBatch&) = delete;

  void Put(std::string_view key, std::string_view value);
  void Erase(std::string_view key);
  void EraseRange(std::string_view from, std::string_view to);  // [from, to)
  void Clear();

 private:
  friend class RowStore;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class RowStore {
 public:
  // kCorrupt: what is there is damaged, or parts of it are missing.  kNoSpace, kIoError.
  // REQUIRES: no other process has it open (CatalogFolder).
  static Result<std::unique_ptr<RowStore>> Open(const RowStoreOptions& options);
  ~RowStore();

  // kNoSpace, kIoError, kCorrupt: after an error the rows may be found again or not.
  enum class Room : uint8_t { kKeep, kUse };  // what free_bytes_min keeps
  Status Write(RowBatch& batch, bool sync, Room room = Room::kKeep);
  // What was written before is stable.
  Status Sync();

  // kNotFound, kCorrupt.
  Result<std::string> Get(std::string_view key) const;

  // Every row in [from, to), in order, until `visit` says false.  Rows whose checksum differs are
  // left out and counted.  kCorrupt, kIoError: where a block cannot be read, with the rows before.
  using Visit = std::function<bool(std::string_view key, std::string_view value)>;
  struct ScanCounts {
    uint64_t rows = 0, damaged = 0;
  };
  enum class Extent : uint8_t { kFew, kMany };  // rows: how far to read ahead
  Status Scan(std::string_view from, std::string_view to, Extent extent, const Visit& visit,
              ScanCounts* counts) const;

  uint64_t disk_bytes() const;

  // Everything into tables, so that opening replays nothing; then nothing may be called.
  Status Close();

 private:
  struct Impl;
  explicit RowStore(std::unique_ptr<Impl> impl);
  Status OpenDatabase();
  Status CheckRoom() const;
  Status Prepare();

  std::unique_ptr<Impl> impl_;
};

}  // namespace terrace
