// The half of QueuedDevice that cuts requests into operations and judges how they ended.

#include <algorithm>
#include <cerrno>

#include "storage/base/log.h"
#include "storage/io/queued_device.h"

namespace terrace {
namespace {

constexpr int64_t kFailureLogNs = 10 * kNsPerSecond;
constexpr uint32_t kGenerationShift = 16;
constexpr uint64_t kSlotMask = (1u << kGenerationShift) - 1;
static_assert(kIoOperationsMax <= kSlotMask + 1);

bool Awaited(IoClass io_class) { return io_class != IoClass::kWriteBehind; }

}  // namespace

// Reads that nobody waits for do not hold writes back: those of reclaim make the room for them.
bool QueuedDevice::ReadsContend() const {
  if (awaited_reading_count_ > 0) return true;
  for (uint32_t i = 0; i < kIoClassCount; ++i) {
    if (Awaited(static_cast<IoClass>(i)) && !reads_[i].empty()) return true;
  }
  return clock_.NowNs() - read_ended_ns_ < budgets_.read_quiet_ns;
}

void QueuedDevice::Pump() {
  while (!free_operations_.empty() && (IssueOther() || IssueRead() || IssueWrite())) {
  }
}

bool QueuedDevice::IssueOther() {
  if (others_.empty() || others_count_ == kIoOthersInFlightMax) return false;
  Issue(others_, geometry_.stripe_bytes);
  ++others_count_;
  return true;
}

bool QueuedDevice::IssueRead() {
  for (uint32_t i = 0; i < kIoClassCount; ++i) {
    if (reads_[i].empty()) continue;
    const uint64_t bytes = PieceBytes(*reads_[i].front(), kIoPieceBytesMax);
    bool fits = reading_bytes_ == 0 || reading_bytes_ + bytes <= budgets_.read_bytes;
    // While somebody waits, half of the budget stays free of reads that nobody waits for: the next
    // urgent one then finds room at once.
    const bool background = i != static_cast<uint32_t>(IoClass::kDeadline);
    if (background && deadline_reading_count_ > 0) {
      fits = fits && background_reading_bytes_ + bytes <= budgets_.read_bytes / 2;
    }
    if (!fits) return false;  // what is less urgent does not slip by
    Issue(reads_[i], kIoPieceBytesMax);
    return true;
  }
  return false;
}

bool QueuedDevice::IssueWrite() {
  for (IoList& queue : writes_) {
    if (queue.empty()) continue;
    const bool contend = ReadsContend();
    const uint32_t depth = contend ? budgets_.contended_write_depth : budgets_.write_depth;
    const uint64_t piece =
        contend ? budgets_.contended_write_piece_bytes : budgets_.write_piece_bytes;
    // A header's page before each piece is not worth a place of its own.
    const uint64_t bytes = writing_bytes_ + PieceBytes(*queue.front(), piece);
    const bool fits = bytes <= depth * (piece + kPageBytes) && writing_count_ < 2 * depth;
    if (writing_count_ > 0 && !fits) return false;
    Issue(queue, piece);
    return true;
  }
  return false;
}

uint64_t QueuedDevice::PieceBytes(const IoRequest& request, uint64_t piece_bytes_max) const {
  const uint64_t at = request.offset_ + request.position_;
  const uint64_t left_in_stripe = geometry_.stripe_bytes - at % geometry_.stripe_bytes;
  return std::min({request.end_ - request.position_, left_in_stripe, piece_bytes_max});
}

QueuedDevice::Operation QueuedDevice::NextOperation(const IoRequest& request,
                                                    uint64_t piece_bytes_max) const {
  Operation operation;
  operation.kind = request.kind_;
  if (request.kind_ == IoKind::kSync) {
    const uint64_t stripe = request.offset_ / geometry_.stripe_bytes + request.position_;
    operation.file = static_cast<uint32_t>(stripe % geometry_.file_count);
    return operation;
  }
  const uint64_t at = request.offset_ + request.position_;
  const uint64_t stripe = at / geometry_.stripe_bytes;
  operation.file = static_cast<uint32_t>(stripe % geometry_.file_count);
  operation.offset =
      stripe / geometry_.file_count * geometry_.stripe_bytes + at % geometry_.stripe_bytes;
  operation.bytes = PieceBytes(request, piece_bytes_max);
  if (request.memory_ != nullptr) operation.memory = request.memory_ + request.position_;
  if (request.buffer_ != kNoBuffer) {
    const uint32_t slot = request.buffer_ & 0xFFFF;
    if (buffers_[slot].adopted) operation.buffer_slot = slot;
  }
  return operation;
}

// REQUIRES: a free operation, a request in the queue.
void QueuedDevice::Issue(IoList& queue, uint64_t piece_bytes_max) {
  IoRequest& request = *queue.front();
  const uint32_t index = free_operations_.back();
  free_operations_.pop_back();
  InFlight& slot = in_flight_[index];
  slot.request = &request;
  slot.retries = 0;
  slot.cancel_started = false;
  slot.operation = NextOperation(request, piece_bytes_max);

  request.position_ += request.kind_ == IoKind::kSync ? 1 : slot.operation.bytes;
  ++request.operations_;
  if (request.position_ == request.end_) {
    queue.Remove(request);
    request.phase_ = IoRequest::Phase::kIssued;
  }
  if (request.kind_ == IoKind::kRead) {
    reading_bytes_ += slot.operation.bytes;
    if (Awaited(request.io_class_)) ++awaited_reading_count_;
    if (request.io_class_ == IoClass::kDeadline) {
      ++deadline_reading_count_;
    } else {
      background_reading_bytes_ += slot.operation.bytes;
    }
  }
  if (request.kind_ == IoKind::kWrite) {
    writing_bytes_ += slot.operation.bytes;
    ++writing_count_;
  }
  Restart(slot);
}

// A new generation each time: an answer to the trip before is stale.
void QueuedDevice::Restart(InFlight& slot) {
  const auto index = static_cast<uint64_t>(&slot - in_flight_.data());
  slot.operation.tag = (uint64_t{++slot.generation} << kGenerationShift) | index;
  ++stats_.kinds[static_cast<uint32_t>(slot.operation.kind)].operations;
  started_ = true;
  Start(slot.operation);
}

QueuedDevice::InFlight* QueuedDevice::FindInFlight(uint64_t tag) {
  const uint64_t index = tag & kSlotMask;
  if (index >= kIoOperationsMax) return nullptr;
  InFlight& slot = in_flight_[index];
  return slot.request != nullptr && slot.operation.tag == tag ? &slot : nullptr;
}

Status QueuedDevice::TransferStatus(const InFlight& slot, int64_t result) const {
  const Operation& operation = slot.operation;
  const bool read = operation.kind == IoKind::kRead;
  const std::string where = std::to_string(operation.bytes) + " bytes at " +
                            std::to_string(operation.offset) + " of file " +
                            std::to_string(operation.file);
  if (result >= 0) {
    return Status(StatusCode::kIoError, std::string("short ") + (read ? "read" : "write") + ": " +
                                            std::to_string(result) + " of " + where);
  }
  const char* verb = read ? "reading " : "writing ";
  if (operation.kind == IoKind::kSync) verb = "syncing ";
  if (operation.kind == IoKind::kDiscard) verb = "discarding ";
  return IoErrnoStatus(verb + where, static_cast<int>(-result));
}

void QueuedDevice::Completed(uint64_t tag, int64_t result) {
  InFlight* const found = FindInFlight(tag);
  if (found == nullptr) {
    ++stats_.stale;
    return;
  }
  InFlight& slot = *found;
  Operation& operation = slot.operation;
  const bool transfers = operation.kind == IoKind::kRead || operation.kind == IoKind::kWrite;
  const bool cancelled = slot.request->cancelled_;
  const auto moved = static_cast<uint64_t>(result < 0 ? 0 : result);

  if (result == -EAGAIN || result == -EINTR) {
    ++stats_.retries;
    if (cancelled) return EndOperation(slot, Status(StatusCode::kCancelled));
    if (++slot.retries <= kIoRetriesMax) return Restart(slot);
  }
  if (result == -ECANCELED && cancelled) {
    return EndOperation(slot, Status(StatusCode::kCancelled));
  }
  if (result == -EOPNOTSUPP && operation.kind == IoKind::kDiscard) {
    return EndOperation(slot, Status::Ok());  // a hint that this medium has no use for
  }
  if (transfers ? moved == operation.bytes && result > 0 : result == 0) {
    return EndOperation(slot, Status::Ok());
  }
  if (!transfers || result < 0 || moved > operation.bytes) {
    return EndOperation(slot, TransferStatus(slot, result));
  }

  ++stats_.short_transfers;
  if (cancelled) return EndOperation(slot, Status(StatusCode::kCancelled));
  // O_DIRECT goes on only at a page: what came of the last one is transferred once more.
  const uint64_t progress = moved / kPageBytes * kPageBytes;
  if (progress == 0 || ++slot.retries > kIoRetriesMax) {
    return EndOperation(slot, TransferStatus(slot, result));
  }
  const bool read = operation.kind == IoKind::kRead;
  (read ? reading_bytes_ : writing_bytes_) -= progress;
  if (read && slot.request->io_class_ != IoClass::kDeadline) background_reading_bytes_ -= progress;
  operation.offset += progress;
  operation.memory += progress;
  operation.bytes -= progress;
  Restart(slot);
}

void QueuedDevice::EndOperation(InFlight& slot, Status status) {
  IoRequest& request = *slot.request;
  if (request.kind_ == IoKind::kRead) {
    reading_bytes_ -= slot.operation.bytes;
    if (Awaited(request.io_class_)) {
      --awaited_reading_count_;
      read_ended_ns_ = clock_.NowNs();
    }
    if (request.io_class_ == IoClass::kDeadline) {
      --deadline_reading_count_;
    } else {
      background_reading_bytes_ -= slot.operation.bytes;
    }
  }
  if (request.kind_ == IoKind::kWrite) {
    writing_bytes_ -= slot.operation.bytes;
    --writing_count_;
  }
  if (request.kind_ == IoKind::kSync || request.kind_ == IoKind::kDiscard) --others_count_;
  slot.request = nullptr;
  free_operations_.push_back(static_cast<uint32_t>(&slot - in_flight_.data()));
  --request.operations_;
  // An error says more than a cancel, and the first one more than those that follow from it.
  const bool first = request.status_.ok() || request.status_.code() == StatusCode::kCancelled;
  if (!status.ok() && first) request.status_ = std::move(status);
  if (!request.status_.ok() && request.phase_ == IoRequest::Phase::kQueued) {
    QueueOf(request).Remove(request);
    request.phase_ = IoRequest::Phase::kIssued;
  }
  EndIfComplete(request);
}

void QueuedDevice::EndIfComplete(IoRequest& request) {
  if (request.phase_ != IoRequest::Phase::kIssued || request.operations_ > 0) return;
  request.phase_ = IoRequest::Phase::kFinished;
  LetGoOfBuffer(request.buffer_);
  Count(request);
  finished_.PushBack(request);
}

// A medium that fails does so at every request.
void QueuedDevice::LogFailure(IoKind kind, const std::string& error) {
  const int64_t now_ns = clock_.NowNs();
  int64_t& next_ns = log_failure_ns_[static_cast<uint32_t>(kind)];
  if (now_ns < next_ns) return;
  next_ns = now_ns + kFailureLogNs;
  LogError("nvme: " + Describe() + ": " + error);
}

void QueuedDevice::Count(const IoRequest& request) {
  IoStats::Kind& kind = stats_.kinds[static_cast<uint32_t>(request.kind_)];
  const int64_t latency_ns = clock_.NowNs() - request.submitted_ns_;
  ++kind.requests;
  kind.latency_ns_sum += latency_ns;
  kind.latency_ns_max = std::max(kind.latency_ns_max, latency_ns);
  if (request.status_.ok()) {
    kind.bytes += request.bytes_;
  } else if (request.status_.code() == StatusCode::kCancelled) {
    ++kind.cancelled;
  } else {
    ++kind.errors;
    kind.error = request.status_.ToString();
    LogFailure(request.kind_, kind.error);
  }
}

}  // namespace terrace
