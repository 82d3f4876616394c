// Writes, syncs and how they end; log_writer.cc decides what is written.
#include <algorithm>
#include <cstring>
#include <utility>

#include "storage/base/check.h"
#include "storage/tier/log_writer.h"

namespace terrace {

void LogWriter::StartHead(Open& open) {
  if (open.head_started) return;
  SegmentHead head;
  BuildSegmentHead(identity_, open.segment, open.sequence, &head);
  std::memcpy(open.head, &head, sizeof(head));
  open.PrepareWrite(SegmentOffset(open.segment, segments_.segment_bytes()), open.head, sizeof(head),
                    buffer_id_);
  open.OnDone(
      [](IoRequest& request) {
        Open& done = static_cast<Open&>(request);
        done.writer->HeadDone(done);
      },
      IoClass::kWriteBehind);
  const Status submitted = device_.Submit(open);
  if (submitted.code() == StatusCode::kBusy) return;  // at the next Poll
  open.head_started = true;
  ++stats_.writes;
  if (!submitted.ok()) Abandon(open, submitted);
}

void LogWriter::HeadDone(Open& open) {
  stats_.written_bytes += sizeof(SegmentHead);
  if (open.life == Life::kAbandoned) return EndIfQuiet(open);
  if (!open.status().ok()) return Abandon(open, open.status());
  breaker_.Worked();
  open.written = sizeof(SegmentHead);
}

void LogWriter::SubmitReady(Open& open) {
  if (open.life != Life::kFooter && open.durable < sizeof(SegmentHead)) return;
  for (Buffer* const buffer : open.queue) {
    if (buffer->state != BufferState::kReady) continue;
    buffer->PrepareWrite(SegmentOffset(open.segment, segments_.segment_bytes()) + buffer->from,
                         buffer->data, buffer->fill,
                         buffer->memory != nullptr ? buffer_id_ : kNoBuffer);
    buffer->OnDone(
        [](IoRequest& request) {
          Buffer& done = static_cast<Buffer&>(request);
          done.writer->BufferDone(done);
        },
        IoClass::kWriteBehind);
    const Status submitted = device_.Submit(*buffer);
    if (submitted.code() == StatusCode::kBusy) return;
    if (!submitted.ok()) return Abandon(open, submitted);
    buffer->state = BufferState::kWriting;
    ++writing_;
    ++stats_.writes;
  }
}

void LogWriter::BufferDone(Buffer& buffer) {
  Open& open = opens_[buffer.open];
  --writing_;
  buffer.state = BufferState::kDone;
  if (buffer.status().ok()) stats_.written_bytes += buffer.fill;
  if (open.life == Life::kAbandoned) return EndIfQuiet(open);
  if (!buffer.status().ok() && !SourceFailed(buffer)) return Abandon(open, buffer.status());
  if (buffer.status().ok()) breaker_.Worked();
  Advance(open);
}

// Whether a write failed for the memory that it took the bytes from, where a client has punched a
// hole: that says nothing about the device, and the record is lost anyway.
bool LogWriter::SourceFailed(const Buffer& buffer) {
  if (buffer.memory != nullptr) return false;
  Pending& pending = (*pending_)[buffer.pending];
  if (!pending.verify) return false;
  pending.to_verify = 0;  // it may have changed since
  VerifyDirect(pending, pending.stored.size());
  return !pending.status.ok();
}

// Moves `written` over what has been written without a gap.
void LogWriter::Advance(Open& open) {
  while (!open.queue.empty() && open.queue.front()->state == BufferState::kDone) {
    Buffer* const buffer = open.queue.front();
    open.queue.pop_front();
    (open.life == Life::kFooter ? open.tail_written : open.written) += buffer->fill;
    Release(buffer);
  }
  if (open.life != Life::kFooter) return;
  if (open.tail_written == TailBytes(open.trailer.record_count)) {
    ++stats_.sealed;
    EndLife(open);
  }
}

bool LogWriter::SyncDue(const Open& open) const {
  if (open.life != Life::kRecords || open.written == open.durable) return false;
  if (open.durable < sizeof(SegmentHead)) return true;  // records wait for the head
  if (open.written - open.durable >= options_.sync_bytes) return true;
  if (open.sealing && open.written == open.assigned) return true;
  if (open.copied - open.durable + options_.buffer_bytes > kLogUnsyncedBytesMax) return true;
  // Writes that are under way belong to the same group, unless they never cease.
  const bool quiet = open.queue.empty() && open.filling == nullptr;
  const int64_t linger_ns = quiet ? options_.linger_ns : 2 * options_.linger_ns;
  for (const uint32_t index : open.pending) {
    const Pending& pending = (*pending_)[index];
    if (pending.end > open.written) break;
    if (pending.urgent || now_ns_ - pending.since_ns >= linger_ns) return true;
  }
  return false;
}

// One sync for all segments: it covers every write that ended before it was submitted.
void LogWriter::MaybeSync() {
  if (sync_.outstanding()) return;
  const bool due =
      std::any_of(opens_.begin(), opens_.end(), [this](const Open& open) { return SyncDue(open); });
  if (!due) return;
  sync_.PrepareSync();
  sync_.OnDone([](IoRequest& request) { static_cast<SyncRequest&>(request).writer->SyncDone(); },
               IoClass::kWriteBehind);
  for (Open& open : opens_) open.sync_upto = open.written;
  const Status submitted = device_.Submit(sync_);
  if (submitted.ok()) {
    ++stats_.syncs;
    return;
  }
  if (submitted.code() == StatusCode::kBusy) return;
  for (Open& open : opens_) {
    if (open.life == Life::kRecords && open.written > open.durable) Abandon(open, submitted);
  }
}

void LogWriter::SyncDone() {
  for (Open& open : opens_) {
    if (open.life != Life::kRecords) continue;
    if (sync_.status().ok()) {
      open.durable = std::max(open.durable, open.sync_upto);
      Acknowledge(open);
    } else if (open.written > open.durable) {
      // What the medium did with these bytes nobody knows, and a later sync would not say either.
      Abandon(open, sync_.status());
    }
  }
}

void LogWriter::Acknowledge(Open& open) {
  while (!open.pending.empty()) {
    const uint32_t index = open.pending.front();
    const Pending& pending = (*pending_)[index];
    if (pending.end > open.durable || !pending.judged()) return;
    open.pending.pop_front();
    --open.to_copy;
    if (pending.status.ok()) {
      open.entries.push_back(EntryOf(pending.header, pending.place.offset_units));
      segments_.AddLive(open.segment, pending.record_bytes);
      ++stats_.records;
      stats_.payload_bytes += pending.stored.size();
    } else {
      ++stats_.unreadable_sources;
    }
    Finish(index, pending.status);
  }
}

void LogWriter::Finish(uint32_t index, const Status& status) {
  Pending& pending = (*pending_)[index];
  finished_.push_back({.done = std::move(pending.done), .place = pending.place, .status = status});
  pending.done = nullptr;
  pending.stored = {};
  free_pending_.push_back(index);
}

void LogWriter::Abandon(Open& open, const Status& cause) {
  ++stats_.failed_segments;
  // Only while the medium as a whole takes writes is it the place that fails: one that takes none
  // for an hour must not cost the segments that it still serves.  Nor do a full file system and a
  // cancelled write say anything about the place.
  if (cause.code() == StatusCode::kIoError && !breaker_.open()) segments_.Fail(open.segment);
  if (cause.code() != StatusCode::kCancelled) breaker_.Failed(cause, now_ns_);
  Detach(open);
  open.life = Life::kAbandoned;
  open.cause = cause;
  EndIfQuiet(open);
}

// An abandoned segment ends when nothing is on its way to it any more.
void LogWriter::EndIfQuiet(Open& open) {
  std::deque<Buffer*> left;
  for (Buffer* const buffer : open.queue) {
    if (buffer->state == BufferState::kWriting) {
      left.push_back(buffer);
    } else {
      Release(buffer);
    }
  }
  open.queue = std::move(left);
  if (open.filling != nullptr) Release(std::exchange(open.filling, nullptr));
  // The memory of what the device still reads is not the caller's again before it has ended.
  std::deque<uint32_t> read;
  for (const uint32_t index : open.pending) {
    const bool borrowed = std::any_of(open.queue.begin(), open.queue.end(),
                                      [index](const Buffer* b) { return b->pending == index; });
    if (borrowed) {
      read.push_back(index);
      continue;
    }
    ++stats_.failed_records;
    Finish(index, open.cause);
  }
  open.pending = std::move(read);
  if (open.queue.empty() && !open.outstanding()) EndLife(open);
}

void LogWriter::EndLife(Open& open) {
  TERRACE_CHECK(open.queue.empty() && open.filling == nullptr && open.pending.empty());
  Detach(open);
  open.life = Life::kNone;
  open.entries.clear();
  if (segments_.at(open.segment).record_count == 0) {
    segments_.Abandon(open.segment);
  } else {
    segments_.Seal(open.segment);
  }
}

void LogWriter::Release(Buffer* buffer) {
  buffer->state = BufferState::kFree;
  (buffer->memory != nullptr ? free_buffers_ : free_directs_).push_back(buffer);
}

}  // namespace terrace
