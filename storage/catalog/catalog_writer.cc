// The catalog's thread: takes what was called for in its order, writes rows behind in batches and
// commits together, and answers.

#include <algorithm>
#include <chrono>
#include <iterator>
#include <string>
#include <utility>

#include "storage/base/check.h"
#include "storage/base/log.h"
#include "storage/catalog/catalog.h"
#include "storage/catalog/catalog_marks.h"

namespace terrace {

void Catalog::Run() {
  std::vector<Task> tasks;
  size_t ops = 0;
  while (AwaitWork(&tasks, &ops)) {
    if (!tasks.empty()) {
      RunTasks(&tasks);
    } else if (ops > 0) {
      WriteRows(ops);
    }
  }
}

// Tasks that may run now, or else how many of taken_ to write before the next one.  False once
// closing and nothing is left.
bool Catalog::AwaitWork(std::vector<Task>* tasks, size_t* ops) {
  std::unique_lock lock(mutex_);
  if (taken_at_ == taken_.size()) {
    changed_.wait(lock, [this] { return stopping_ || !tasks_.empty() || !pending_.empty(); });
    // One wake-up for many rows, and one write.
    changed_.wait_for(lock, std::chrono::nanoseconds(options_.linger_ns), [this] {
      return stopping_ || !tasks_.empty() || pending_.size() >= kCatalogBatchRows;
    });
    taken_at_ = 0;
    taken_.swap(pending_);
  }
  TakeReadyTasks(tasks);
  *ops = 0;
  if (!tasks->empty()) return true;
  *ops = std::min<size_t>(taken_.size() - taken_at_, kCatalogBatchRows);
  if (!tasks_.empty()) *ops = std::min<size_t>(*ops, tasks_.front().after_ops - ops_done_);
  return *ops > 0 || !stopping_;
}

// REQUIRES: mutex_.
void Catalog::TakeReadyTasks(std::vector<Task>* tasks) {
  tasks->clear();
  while (!tasks_.empty() && tasks_.front().after_ops <= ops_done_) {
    queued_update_bytes_ -= tasks_.front().update.bytes();
    tasks->push_back(std::move(tasks_.front()));
    tasks_.pop_front();
  }
}

void Catalog::RunTasks(std::vector<Task>* tasks) {
  for (size_t at = 0; at < tasks->size();) {
    Task& task = (*tasks)[at];
    switch (task.kind) {
      case TaskKind::kCommit: {
        size_t end = at + 1;
        while (end < tasks->size() && (*tasks)[end].kind == TaskKind::kCommit) ++end;
        RunCommits(*tasks, at, end);
        at = end;
        continue;
      }
      case TaskKind::kFlush: task.done(FlushRows()); break;
      case TaskKind::kFind: task.found(history_.Find(*store_, task.name)); break;
    }
    ++at;
  }
  tasks->clear();
}

// Tasks [from, to) with one sync.
void Catalog::RunCommits(std::vector<Task>& tasks, size_t from, size_t to) {
  batch_.Clear();
  for (size_t at = from; at < to; ++at) tasks[at].update.AddTo(&batch_);
  const Status written = WriteCommits();
  {
    const std::lock_guard lock(mutex_);
    (written.ok() ? stats_.commits : stats_.commits_failed) += to - from;
    stats_.error = written.ok() ? "" : written.ToString();
  }
  for (size_t at = from; at < to; ++at) tasks[at].done(written);
}

// A number is given once, a failed commit's too: it may be found again.
Status Catalog::WriteCommits() {
  ++commit_number_;
  batch_.Put(CommitMarkKey(), CommitMarkValue(commit_number_));
  if (Status written = store_->Write(batch_, true); !written.ok()) return written;
  return folder_.WriteSynced(commit_number_);
}

Status Catalog::FlushRows() {
  const Status synced = store_->Sync();
  const Status lost = std::exchange(lost_, Status::Ok());
  return lost.ok() ? synced : lost;
}

void Catalog::WriteRows(size_t count) {
  batch_.Clear();
  rebuild_ended_ = false;
  for (size_t at = 0; at < count; ++at) AddRow(taken_[taken_at_ + at]);
  history_.EndBatch(&batch_);
  const Status written = store_->Write(batch_, false);
  history_.Written(written.ok());
  RowsWritten(count, written);
  taken_at_ += count;
  ops_done_ += count;
  if (taken_at_ < taken_.size()) return;
  taken_.clear();
  taken_at_ = 0;
}

void Catalog::AddRow(const Op& op) {
  switch (op.kind) {
    case OpKind::kPut:
      batch_.Put(catalog::NameKey(catalog::Kind::kChunk, op.name), catalog::Value(op.row));
      return;
    case OpKind::kErase: batch_.Erase(catalog::NameKey(catalog::Kind::kChunk, op.name)); return;
    case OpKind::kGone: history_.Add(op.name, op.gone, &batch_); return;
    case OpKind::kBeginRebuild:
      batch_.EraseRange(catalog::KindStart(catalog::Kind::kChunk),
                        catalog::KindEnd(catalog::Kind::kChunk));
      rebuild_drops_ = op.drops;
      rebuild_ended_ = false;
      return;
    case OpKind::kEndRebuild: rebuild_ended_ = rebuild_drops_.has_value(); return;
  }
}

// Counts the first `count` of what is left in taken_.
void Catalog::RowsWritten(size_t count, const Status& status) {
  if (!status.ok() && lost_.ok()) LogWarning("catalog: " + status.ToString());
  if (!status.ok()) lost_ = status;
  uint64_t chunks = 0, gone = 0, bytes = 0;
  for (size_t at = taken_at_; at < taken_at_ + count; ++at) {
    const Op& op = taken_[at];
    bytes += op.row.attributes.size();
    if (op.kind == OpKind::kGone) ++gone;
    if (op.kind == OpKind::kPut || op.kind == OpKind::kErase) ++chunks;
  }
  const uint64_t disk_bytes = store_->disk_bytes();
  const std::lock_guard lock(mutex_);
  queued_rows_ -= count;
  queued_bytes_ -= bytes;
  stats_.history_rows = history_.rows();
  stats_.history_since_wall_ns = history_.since_wall_ns();
  stats_.disk_bytes = disk_bytes;
  stats_.error = status.ok() ? "" : status.ToString();
  if (!status.ok()) {
    stats_.dropped_failed += chunks + gone;
    // A rebuild's ends count as well: what they stand for did not happen.
    chunk_drops_ += count - gone;
    return;
  }
  stats_.chunk_rows_written += chunks;
  stats_.gone_rows_written += gone;
  if (rebuild_ended_) complete_at_drops_ = std::exchange(rebuild_drops_, std::nullopt);
}

// After the thread's end.
Status Catalog::WriteCompleteMark() {
  {
    const std::lock_guard lock(mutex_);
    if (!complete()) return Status::Ok();
  }
  batch_.Clear();
  batch_.Put(CompleteMarkKey(), "");
  return store_->Write(batch_, true, RowStore::Room::kUse);
}

}  // namespace terrace
