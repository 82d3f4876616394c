#include "storage/catalog/row_store.h"

#include <rocksdb/cache.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/listener.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <sys/statvfs.h>
#include <xxhash.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <utility>

#include "storage/base/log.h"

namespace terrace {
namespace {

constexpr size_t kChecksumBytes = 8;

rocksdb::Slice SliceOf(std::string_view bytes) { return {bytes.data(), bytes.size()}; }
std::string_view ViewOf(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

uint64_t RowChecksum(std::string_view key, std::string_view value) {
  return XXH3_64bits_withSeed(value.data(), value.size(), XXH3_64bits(key.data(), key.size()));
}

// The value of a row without its checksum, or false.
bool CheckRow(std::string_view key, std::string_view stored, std::string_view* value) {
  if (stored.size() < kChecksumBytes) return false;
  uint64_t checksum;
  std::memcpy(&checksum, stored.data() + stored.size() - kChecksumBytes, sizeof checksum);
  *value = stored.substr(0, stored.size() - kChecksumBytes);
  return checksum == RowChecksum(key, *value);
}

Status StatusOf(const rocksdb::Status& status, const std::string& what) {
  if (status.ok()) return Status::Ok();
  const std::string message = what + ": " + status.ToString();
  if (status.IsNoSpace()) return Status(StatusCode::kNoSpace, message);
  if (status.IsNotFound()) return Status(StatusCode::kNotFound, message);
  if (status.IsCorruption()) return Status(StatusCode::kCorrupt, message);
  return Status(StatusCode::kIoError, message);
}

// Opening also fails on damage that does not call itself so: a file that another names is missing,
// or a version or feature that never was.
Status OpenStatusOf(const rocksdb::Status& status, const std::string& folder) {
  const bool system = (status.IsIOError() && !status.IsPathNotFound()) || status.IsNoSpace();
  if (system || status.IsBusy() || status.IsMemoryLimit()) return StatusOf(status, folder);
  return Status(StatusCode::kCorrupt, folder + ": " + status.ToString());
}

Status Closed(const std::string& folder) {
  return Status(StatusCode::kIoError, folder + " could not be opened again");
}

// Its warnings, in our log.
class StoreLog final : public rocksdb::Logger {
 public:
  StoreLog() : rocksdb::Logger(rocksdb::InfoLogLevel::WARN_LEVEL) {}
  using rocksdb::Logger::Logv;
  void Logv(const char* format, va_list arguments) override {
    char text[512];
    if (std::vsnprintf(text, sizeof text, format, arguments) <= 0) return;
    std::string line = std::string("catalog: ") + text;
    while (line.ends_with('\n') || line.ends_with(' ')) line.pop_back();
    LogWarning(line);
  }
};

// Errors of the background work.  RocksDB's own recovery is switched off: it takes seconds, and
// goes on with files whose last write failed.
class Watch final : public rocksdb::EventListener {
 public:
  void OnBackgroundError(rocksdb::BackgroundErrorReason, rocksdb::Status* status) override {
    if (status->ok()) return;
    const std::lock_guard lock(mutex_);
    if (error_.ok()) error_ = StatusOf(*status, "background work");
  }
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, rocksdb::Status,
                            bool* auto_recovery) override {
    *auto_recovery = false;
  }
  Status error() const {
    const std::lock_guard lock(mutex_);
    return error_;
  }

 private:
  mutable std::mutex mutex_;
  Status error_;
};

rocksdb::Options StoreOptions(const RowStoreOptions& wanted, std::shared_ptr<Watch> watch) {
  rocksdb::Options options;
  options.create_if_missing = wanted.mode == RowStoreOptions::Mode::kCreate;
  options.error_if_exists = options.create_if_missing;
  options.compression = rocksdb::kNoCompression;
  options.max_background_jobs = 2;
  options.max_open_files = 256;
  options.write_buffer_size = wanted.write_buffer_bytes;
  options.max_write_buffer_number = 3;
  options.max_total_wal_size = wanted.log_bytes_max;
  options.target_file_size_base = 32 * kMiB;
  options.max_bytes_for_level_base = 128 * kMiB;
  options.level_compaction_dynamic_level_bytes = true;
  // catalog_fit.h counts on these: new tables that wait bound the folder's size, as does a manifest
  // that begins anew.
  options.level0_slowdown_writes_trigger = 6;
  options.level0_stop_writes_trigger = 8;
  options.max_manifest_file_size = wanted.write_buffer_bytes;
  options.manifest_preallocation_size = wanted.write_buffer_bytes / 4;
  options.bytes_per_sync = options.wal_bytes_per_sync = 1 * kMiB;
  options.avoid_unnecessary_blocking_io = true;
  // A loss of power may leave a hole in what was not synced: what lies before it is kept.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  options.track_and_verify_wals_in_manifest = true;
  options.skip_stats_update_on_db_open = true;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  options.listeners.push_back(std::move(watch));
  options.info_log = std::make_shared<StoreLog>();

  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(wanted.cache_bytes, 0);
  table.block_size = 16 * kKiB;  // rows are scanned, hardly ever looked up
  table.cache_index_and_filter_blocks = true;
  table.format_version = 5;
  table.checksum = rocksdb::ChecksumType::kXXH3;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

}  // namespace

struct RowBatch::Impl {
  rocksdb::WriteBatch batch;
};

RowBatch::RowBatch() : impl_(std::make_unique<Impl>()) {}
RowBatch::~RowBatch() = default;

void RowBatch::Put(std::string_view key, std::string_view value) {
  const uint64_t checksum = RowChecksum(key, value);
  const rocksdb::Slice key_part = SliceOf(key);
  const rocksdb::Slice value_parts[] = {
      SliceOf(value), rocksdb::Slice(reinterpret_cast<const char*>(&checksum), sizeof checksum)};
  // Fails only over a batch's size limit, which none has.
  impl_->batch.Put(rocksdb::SliceParts(&key_part, 1), rocksdb::SliceParts(value_parts, 2))
      .PermitUncheckedError();
}

void RowBatch::Erase(std::string_view key) {
  impl_->batch.Delete(SliceOf(key)).PermitUncheckedError();
}

void RowBatch::EraseRange(std::string_view from, std::string_view to) {
  impl_->batch.DeleteRange(SliceOf(from), SliceOf(to)).PermitUncheckedError();
}

void RowBatch::Clear() { impl_->batch.Clear(); }

struct RowStore::Impl {
  RowStoreOptions options;
  std::shared_ptr<Watch> watch;  // of this database
  int64_t opened_at_ns = 0;      // anew; 0: never
  Status failure;                // of a write: the database is not to be trusted with another
  mutable std::shared_mutex mutex;
  // Under mutex; null while it cannot be opened.
  std::unique_ptr<rocksdb::DB> db;

  // A write that failed background work refuses is "incomplete", and only quotes the reason.
  Status WriteStatus(const rocksdb::Status& written) const {
    Status behind = written.IsIncomplete() ? watch->error() : Status::Ok();
    return behind.ok() ? StatusOf(written, options.folder) : behind;
  }
};

RowStore::RowStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RowStore::~RowStore() = default;

Result<std::unique_ptr<RowStore>> RowStore::Open(const RowStoreOptions& options) {
  std::unique_ptr<RowStore> store(new RowStore(std::make_unique<Impl>()));
  store->impl_->options = options;
  if (Status opened = store->OpenDatabase(); !opened.ok()) return opened;
  store->impl_->options.mode = options.mode == RowStoreOptions::Mode::kRead
                                   ? RowStoreOptions::Mode::kRead
                                   : RowStoreOptions::Mode::kWrite;
  return store;
}

Status RowStore::OpenDatabase() {
  const RowStoreOptions& options = impl_->options;
  const std::unique_lock lock(impl_->mutex);
  impl_->db.reset();
  impl_->watch = std::make_shared<Watch>();
  try {
    rocksdb::DB* db = nullptr;
    const rocksdb::Options how = StoreOptions(options, impl_->watch);
    const rocksdb::Status opened = options.mode == RowStoreOptions::Mode::kRead
                                       ? rocksdb::DB::OpenForReadOnly(how, options.folder, &db)
                                       : rocksdb::DB::Open(how, options.folder, &db);
    impl_->db.reset(db);
    if (!opened.ok()) {
      impl_->db.reset();
      return OpenStatusOf(opened, options.folder);
    }
  } catch (const std::exception& damage) {
    // A length that never was, mostly.
    return Status(StatusCode::kCorrupt, options.folder + ": " + damage.what());
  }
  impl_->failure = Status::Ok();
  return Status::Ok();
}

// Kept free: there is room for what the database writes of its own accord.
Status RowStore::CheckRoom() const {
  struct statvfs system {};
  if (statvfs(impl_->options.folder.c_str(), &system) != 0) return Status::Ok();
  const uint64_t free = uint64_t{system.f_bavail} * system.f_frsize;
  if (free >= impl_->options.free_bytes_min) return Status::Ok();
  return Status(StatusCode::kNoSpace, impl_->options.folder + ": " + std::to_string(free) +
                                          " bytes are free, " +
                                          std::to_string(impl_->options.free_bytes_min) +
                                          " are kept: make room in its file system");
}

// Before a write: a database that can be trusted with it.
Status RowStore::Prepare() {
  if (impl_->failure.ok()) impl_->failure = impl_->watch->error();
  if (impl_->failure.ok()) return Status::Ok();
  const int64_t now_ns = MonotonicNs();
  if (impl_->opened_at_ns != 0 && now_ns - impl_->opened_at_ns < impl_->options.retry_ns) {
    return impl_->failure;
  }
  impl_->opened_at_ns = now_ns;
  LogWarning("catalog: " + impl_->options.folder + ": opened anew after " +
             impl_->failure.ToString());
  return OpenDatabase();
}

Status RowStore::Write(RowBatch& batch, bool sync, Room room) {
  Status has_room = room == Room::kKeep ? CheckRoom() : Status::Ok();
  if (!has_room.ok()) return has_room;
  if (Status prepared = Prepare(); !prepared.ok()) return prepared;
  rocksdb::WriteOptions options;
  options.sync = sync;
  impl_->failure = impl_->WriteStatus(impl_->db->Write(options, &batch.impl_->batch));
  return impl_->failure;
}

Status RowStore::Sync() {
  if (Status prepared = Prepare(); !prepared.ok()) return prepared;
  impl_->failure = impl_->WriteStatus(impl_->db->SyncWAL());
  return impl_->failure;
}

Result<std::string> RowStore::Get(std::string_view key) const {
  const std::shared_lock lock(impl_->mutex);
  if (impl_->db == nullptr) return Closed(impl_->options.folder);
  rocksdb::PinnableSlice stored;
  try {
    const rocksdb::Status got = impl_->db->Get(
        rocksdb::ReadOptions(), impl_->db->DefaultColumnFamily(), SliceOf(key), &stored);
    if (!got.ok()) return StatusOf(got, impl_->options.folder);
  } catch (const std::exception& damage) {
    return Status(StatusCode::kCorrupt, impl_->options.folder + ": " + damage.what());
  }
  std::string_view value;
  if (!CheckRow(key, ViewOf(stored), &value)) {
    return Status(StatusCode::kCorrupt, impl_->options.folder + ": a row's checksum differs");
  }
  return std::string(value);
}

Status RowStore::Scan(std::string_view from, std::string_view to, Extent extent, const Visit& visit,
                      ScanCounts* counts) const {
  const std::shared_lock lock(impl_->mutex);
  if (impl_->db == nullptr) return Closed(impl_->options.folder);
  const rocksdb::Slice end = SliceOf(to);
  rocksdb::ReadOptions options;
  options.readahead_size = extent == Extent::kMany ? 4 * kMiB : 0;
  options.fill_cache = false;
  options.iterate_upper_bound = &end;
  try {
    const std::unique_ptr<rocksdb::Iterator> rows(impl_->db->NewIterator(options));
    for (rows->Seek(SliceOf(from)); rows->Valid(); rows->Next()) {
      std::string_view value;
      if (!CheckRow(ViewOf(rows->key()), ViewOf(rows->value()), &value)) {
        ++counts->damaged;
        continue;
      }
      ++counts->rows;
      if (!visit(ViewOf(rows->key()), value)) return Status::Ok();
    }
    return StatusOf(rows->status(), impl_->options.folder);
  } catch (const std::exception& damage) {
    return Status(StatusCode::kCorrupt, impl_->options.folder + ": " + damage.what());
  }
}

uint64_t RowStore::disk_bytes() const {
  const std::shared_lock lock(impl_->mutex);
  uint64_t bytes = 0;
  if (impl_->db == nullptr) return bytes;
  impl_->db->GetIntProperty(rocksdb::DB::Properties::kTotalSstFilesSize, &bytes);
  return bytes;
}

// One that failed is left as it is: its log has what was acknowledged.  So it is on a full disk.
Status RowStore::Close() {
  Status closed = impl_->failure.ok() ? impl_->watch->error() : impl_->failure;
  const bool flush = impl_->options.mode != RowStoreOptions::Mode::kRead && CheckRoom().ok();
  const std::unique_lock lock(impl_->mutex);
  if (closed.ok() && flush) {
    closed = StatusOf(impl_->db->Flush(rocksdb::FlushOptions()), impl_->options.folder);
  }
  if (closed.ok()) closed = StatusOf(impl_->db->Close(), impl_->options.folder);
  impl_->db.reset();
  return closed;
}

}  // namespace terrace
