#include "storage/catalog/catalog.h"

#include <algorithm>
#include <utility>

#include "storage/base/check.h"
#include "storage/base/log.h"

namespace terrace {

Catalog::Catalog(const CatalogOptions& options, CatalogFolder folder)
    : options_(options), folder_(std::move(folder)), history_(options.history_rows_max) {
  pending_.reserve(options.queue_rows_max);
  taken_.reserve(options.queue_rows_max);
}

Catalog::~Catalog() {
  if (Status closed = Close(); !closed.ok()) {
    LogWarning("catalog: not closed cleanly: " + closed.ToString());
  }
}

bool Catalog::complete() const {
  return complete_at_drops_.has_value() && *complete_at_drops_ == chunk_drops_;
}

// A rebuild's ends take no room: at most two a rebuild, and they hold nothing.
Status Catalog::Enqueue(Op op) {
  const uint64_t bytes = op.row.attributes.size();
  const bool row = op.kind != OpKind::kBeginRebuild && op.kind != OpKind::kEndRebuild;
  const bool chunk = row && op.kind != OpKind::kGone;
  const bool nameable = op.name.key.valid() && op.name.key.zero_padded();
  const std::lock_guard lock(mutex_);
  if (stopping_) return Status(StatusCode::kUnavailable);
  if (bytes > kCatalogAttributeBytesMax || (row && !nameable)) {
    ++stats_.dropped_invalid;
    if (chunk) ++chunk_drops_;
    return Status(StatusCode::kInvalid);
  }
  if (row && (queued_rows_ >= options_.queue_rows_max ||
              queued_bytes_ + bytes > options_.queue_bytes_max)) {
    ++stats_.dropped_full;
    if (chunk) ++chunk_drops_;
    return Status(StatusCode::kBusy);
  }
  if (op.kind == OpKind::kBeginRebuild) {
    complete_at_drops_.reset();
    op.drops = chunk_drops_;
  }
  ++ops_called_;
  ++queued_rows_;
  queued_bytes_ += bytes;
  pending_.push_back(std::move(op));
  // In between, the thread is waiting for more or writing.
  if (pending_.size() == 1 || pending_.size() == kCatalogBatchRows) changed_.notify_one();
  return Status::Ok();
}

Status Catalog::Put(const ChunkName& name, ChunkRow row) {
  return Enqueue({.kind = OpKind::kPut, .name = name, .row = std::move(row), .gone = {}});
}

Status Catalog::Erase(const ChunkName& name) {
  return Enqueue({.kind = OpKind::kErase, .name = name, .row = {}, .gone = {}});
}

Status Catalog::NoteGone(const ChunkName& name, const GoneRow& row) {
  return Enqueue({.kind = OpKind::kGone, .name = name, .row = {}, .gone = row});
}

void Catalog::BeginRebuild() {
  // Refused only after Close, when there is nothing to rebuild.
  static_cast<void>(Enqueue({.kind = OpKind::kBeginRebuild, .name = {}, .row = {}, .gone = {}}));
}

void Catalog::EndRebuild() {
  static_cast<void>(Enqueue({.kind = OpKind::kEndRebuild, .name = {}, .row = {}, .gone = {}}));
}

uint32_t Catalog::queue_room() const {
  const std::lock_guard lock(mutex_);
  if (queued_bytes_ >= options_.queue_bytes_max) return 0;
  return options_.queue_rows_max -
         static_cast<uint32_t>(std::min<uint64_t>(queued_rows_, options_.queue_rows_max));
}

Status Catalog::EnqueueTask(Task task) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return Status(StatusCode::kUnavailable, "the catalog is closed");
  const uint64_t bytes = task.update.bytes();
  if (tasks_.size() >= kCatalogTasksMax ||
      queued_update_bytes_ + bytes > kCatalogUpdateBytesQueued) {
    return Status(StatusCode::kBusy, "the catalog has " + std::to_string(tasks_.size()) +
                                         " commits and questions waiting");
  }
  task.after_ops = ops_called_;
  queued_update_bytes_ += bytes;
  tasks_.push_back(std::move(task));
  changed_.notify_one();
  return Status::Ok();
}

Status Catalog::Commit(CatalogUpdate update, Done done) {
  if (Status checked = update.Check(); !checked.ok()) return checked;
  Task task;
  task.kind = TaskKind::kCommit;
  task.update = std::move(update);
  task.done = std::move(done);
  return EnqueueTask(std::move(task));
}

Status Catalog::Flush(Done done) {
  Task task;
  task.kind = TaskKind::kFlush;
  task.done = std::move(done);
  return EnqueueTask(std::move(task));
}

Status Catalog::FindGone(const ChunkName& name, Found found) {
  Task task;
  task.kind = TaskKind::kFind;
  task.name = name;
  task.found = std::move(found);
  return EnqueueTask(std::move(task));
}

CatalogStats Catalog::stats() const {
  CatalogStats stats;
  {
    const std::lock_guard lock(mutex_);
    stats = stats_;
    stats.queued_rows = queued_rows_;
    stats.queued_tasks = tasks_.size();
    stats.chunks_complete = complete();
  }
  return stats;
}

Status Catalog::Close() {
  const std::lock_guard closing(close_mutex_);
  if (closed_.has_value()) return *closed_;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
  closed_ = Status::Ok();
  if (store_ == nullptr) return *closed_;
  const Status marked = WriteCompleteMark();
  const Status closed = store_->Close();
  closed_ = marked.ok() ? closed : marked;
  return *closed_;
}

}  // namespace terrace
