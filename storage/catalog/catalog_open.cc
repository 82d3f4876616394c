// Opening, creating and reading back.

#include <system_error>
#include <utility>

#include "storage/base/log.h"
#include "storage/catalog/catalog.h"
#include "storage/catalog/catalog_check.h"
#include "storage/catalog/catalog_marks.h"

namespace terrace {
namespace {

constexpr uint64_t kProgressRows = 64 * 1024;

Status OutOfBounds(const std::string& option, uint64_t value, const std::string& bounds) {
  return Status(StatusCode::kInvalid,
                "catalog: " + option + " = " + std::to_string(value) + ": " + bounds);
}

Status CheckOptions(const CatalogOptions& options) {
  if (options.folder.empty()) return Status(StatusCode::kInvalid, "catalog: no folder is named");
  if (options.queue_rows_max < 1 || options.queue_rows_max > 1'000'000) {
    return OutOfBounds("queue_rows_max", options.queue_rows_max, "1..1000000");
  }
  if (options.queue_bytes_max < kCatalogAttributeBytesMax || options.queue_bytes_max > kGiB) {
    return OutOfBounds("queue_bytes_max", options.queue_bytes_max, "4 KiB..1 GiB");
  }
  if (options.set_aside_max < 1 || options.set_aside_max > 100) {
    return OutOfBounds("set_aside_max", options.set_aside_max, "1..100");
  }
  if (options.write_buffer_bytes < 64 * kKiB || options.write_buffer_bytes > 64 * kMiB) {
    return OutOfBounds("write_buffer_bytes", options.write_buffer_bytes, "64 KiB..64 MiB");
  }
  if (options.cache_bytes > kGiB) {
    return OutOfBounds("cache_bytes", options.cache_bytes, "1 GiB at most");
  }
  if (options.log_bytes_max < kMiB || options.log_bytes_max > kGiB) {
    return OutOfBounds("log_bytes_max", options.log_bytes_max, "1 MiB..1 GiB");
  }
  if (options.history_rows_max > 1'000'000'000) {
    return OutOfBounds("history_rows_max", options.history_rows_max, "1000000000 at most");
  }
  return Status::Ok();
}

RowStoreOptions StoreOptionsOf(const CatalogOptions& options) {
  return {.folder = {},
          .mode = RowStoreOptions::Mode::kWrite,
          .cache_bytes = options.cache_bytes,
          .write_buffer_bytes = options.write_buffer_bytes,
          .log_bytes_max = options.log_bytes_max,
          .free_bytes_min = options.free_bytes_min,
          .retry_ns = options.retry_ns};
}

}  // namespace

Result<std::unique_ptr<Catalog>> Catalog::Open(const CatalogOptions& options) {
  if (Status checked = CheckOptions(options); !checked.ok()) return checked;
  Result<CatalogFolder> folder = CatalogFolder::Take(options.folder);
  if (!folder.ok()) return folder.status();
  std::unique_ptr<Catalog> catalog(new Catalog(options, *std::move(folder)));
  if (Status opened = catalog->OpenOrCreate(); !opened.ok()) {
    catalog->store_.reset();
    return opened;
  }
  try {
    catalog->thread_ = std::thread([raw = catalog.get()] { raw->Run(); });
  } catch (const std::system_error& error) {
    return Status(StatusCode::kBusy, std::string("catalog: no thread: ") + error.what());
  }
  return catalog;
}

Status Catalog::OpenOrCreate() {
  Result<bool> occupied = folder_.Occupied();
  if (!occupied.ok()) return occupied.status();
  if (*occupied && options_.repair == CatalogRepair::kAlways) {
    if (Status aside = SetAside("set aside as asked"); !aside.ok()) return aside;
    occupied = false;
  }
  if (*occupied) {
    Status opened = OpenExisting();
    if (opened.code() != StatusCode::kCorrupt) return opened;
    store_.reset();
    if (options_.repair == CatalogRepair::kRefuse) {
      return Status(StatusCode::kCorrupt, "the catalog is damaged: " + opened.message() +
                                              ": `terrace fsck --rebuild` sets it aside and makes "
                                              "it anew from the log");
    }
    if (Status aside = SetAside(opened.message()); !aside.ok()) return aside;
  }
  if (Status created = Create(); !created.ok()) return created;
  return OpenExisting();
}

Status Catalog::SetAside(const std::string& why) {
  Result<std::string> aside = folder_.SetAside(options_.set_aside_max);
  if (!aside.ok()) return aside.status();
  opened_.damage = why;
  opened_.set_aside = *aside;
  LogWarning("catalog: " + why + ": it is now " + *aside);
  return Status::Ok();
}

// A daemon that dies in here leaves nothing that the next one would take for a catalog.
Status Catalog::Create() {
  if (Status begun = folder_.BeginNew(); !begun.ok()) return begun;
  RowStoreOptions store_options = StoreOptionsOf(options_);
  store_options.folder = folder_.new_path();
  store_options.mode = RowStoreOptions::Mode::kCreate;
  Result<std::unique_ptr<RowStore>> store = RowStore::Open(store_options);
  if (!store.ok()) {
    // An empty folder has no damage: whatever failed, the system did.
    if (store.status().code() != StatusCode::kCorrupt) return store.status();
    return Status(StatusCode::kIoError, store.status().message());
  }
  RowBatch first;
  first.Put(VersionKey(), VersionValue(kCatalogVersion));
  if (Status written = (*store)->Write(first, true); !written.ok()) return written;
  if (Status closed = (*store)->Close(); !closed.ok()) return closed;
  if (Status ended = folder_.EndNew(); !ended.ok()) return ended;
  opened_.created = true;
  return Status::Ok();
}

Status Catalog::OpenExisting() {
  RowStoreOptions store_options = StoreOptionsOf(options_);
  store_options.folder = folder_.path();
  Result<std::unique_ptr<RowStore>> store = RowStore::Open(store_options);
  if (!store.ok()) return store.status();
  store_ = *std::move(store);
  if (Status version = CheckCatalogVersion(*store_); !version.ok()) return version;
  if (Status synced = CheckSynced(); !synced.ok()) return synced;
  if (const Result<CatalogState> state = LoadState(); !state.ok()) return state.status();
  if (Status loaded = history_.Load(*store_); !loaded.ok()) return loaded;
  stats_.history_rows = history_.rows();
  stats_.history_since_wall_ns = history_.since_wall_ns();
  stats_.disk_bytes = store_->disk_bytes();
  return ReadCompleteMark();
}

Status Catalog::CheckSynced() {
  const Result<CommitsFound> commits = CheckCommits(*store_, &folder_);
  if (!commits.ok()) return commits.status();
  commit_number_ = commits->number;
  if (!commits->mark_damaged) return Status::Ok();
  opened_.damage = "SYNCED was damaged, and was written anew";
  LogWarning("catalog: " + opened_.damage);
  return folder_.WriteSynced(commit_number_);
}

Status Catalog::ReadCompleteMark() {
  const Result<std::string> mark = store_->Get(CompleteMarkKey());
  if (!mark.ok() && mark.status().code() == StatusCode::kNotFound) return Status::Ok();
  if (!mark.ok()) return mark.status();
  opened_.chunks_complete = true;
  complete_at_drops_ = 0;
  RowBatch batch;
  batch.Erase(CompleteMarkKey());
  return store_->Write(batch, true, RowStore::Room::kUse);
}

Result<uint64_t> Catalog::LoadChunks(const VisitChunk& visit, const Progress& progress) const {
  ChunkName name;
  ChunkRow row;
  uint64_t rows = 0, foreign = 0;
  RowStore::ScanCounts counts;
  const Status scanned = store_->Scan(
      catalog::KindStart(catalog::Kind::kChunk), catalog::KindEnd(catalog::Kind::kChunk),
      RowStore::Extent::kMany,
      [&](std::string_view key, std::string_view value) {
        if (!catalog::Parse(key, value, &name, &row)) {
          ++foreign;
          return true;
        }
        visit(name, row);
        if (++rows % kProgressRows == 0 && progress) progress(rows);
        return true;
      },
      &counts);
  if (!scanned.ok()) return scanned;
  if (progress) progress(rows);
  return counts.damaged + foreign;
}

Result<CatalogState> Catalog::LoadState() const { return ReadCatalogState(*store_); }

}  // namespace terrace
