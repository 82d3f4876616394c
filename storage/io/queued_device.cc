#include "storage/io/queued_device.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace terrace {
namespace {

constexpr int kAwaitMs = 100;

uint32_t ClassIndex(IoClass io_class) { return static_cast<uint32_t>(io_class); }

bool Transfers(IoKind kind) { return kind == IoKind::kRead || kind == IoKind::kWrite; }

const char* KindName(IoKind kind) {
  switch (kind) {
    case IoKind::kRead: return "read";
    case IoKind::kWrite: return "write";
    case IoKind::kSync: return "sync";
    case IoKind::kDiscard: return "discard";
  }
  return "operation";
}

}  // namespace

Status IoErrnoStatus(const std::string& what, int error) {
  StatusCode code = StatusCode::kIoError;
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) code = StatusCode::kNoSpace;
  return Status(code, what + ": " + std::strerror(error));
}

QueuedDevice::QueuedDevice(const Geometry& geometry, UniqueFd event, uint32_t buffer_count,
                           const Clock& clock)
    : geometry_(geometry),
      clock_(clock),
      event_(std::move(event)),
      in_flight_(kIoOperationsMax),
      read_ended_ns_(INT64_MIN / 2),
      buffers_(buffer_count) {
  TERRACE_CHECK(geometry.stripe_bytes > 0 && geometry.stripe_bytes % kPageBytes == 0);
  TERRACE_CHECK(geometry.file_count > 0 && geometry.capacity_bytes > 0);
  TERRACE_CHECK(geometry.capacity_bytes % (geometry.stripe_bytes * geometry.file_count) == 0);
  TERRACE_CHECK(buffer_count >= 1 && buffer_count <= kIoBufferCountMax);
  free_operations_.reserve(kIoOperationsMax);
  for (uint32_t i = kIoOperationsMax; i > 0; --i) free_operations_.push_back(i - 1);
}

QueuedDevice::~QueuedDevice() { TERRACE_CHECK(outstanding_ == 0 && !polling_); }

Status QueuedDevice::CheckRange(const IoRequest& request) const {
  const bool anywhere = request.kind_ == IoKind::kSync && request.bytes_ == 0;
  const bool aligned = request.offset_ % kPageBytes == 0 && request.bytes_ % kPageBytes == 0 &&
                       reinterpret_cast<uintptr_t>(request.memory_) % kPageBytes == 0;
  const bool inside = request.bytes_ <= geometry_.capacity_bytes &&
                      request.offset_ <= geometry_.capacity_bytes - request.bytes_;
  const bool memory = !Transfers(request.kind_) || request.memory_ != nullptr;
  if (aligned && inside && memory && (request.bytes_ > 0 || anywhere)) return Status::Ok();
  return Status(StatusCode::kInvalid, std::string(KindName(request.kind_)) + " of " +
                                          std::to_string(request.bytes_) + " bytes at " +
                                          std::to_string(request.offset_) + " of a device of " +
                                          std::to_string(geometry_.capacity_bytes) +
                                          ": give whole pages of 4096 bytes inside it");
}

IoList& QueuedDevice::QueueOf(const IoRequest& request) {
  if (request.kind_ == IoKind::kRead) return reads_[ClassIndex(request.io_class_)];
  if (request.kind_ == IoKind::kWrite) return writes_[ClassIndex(request.io_class_)];
  return others_;
}

Status QueuedDevice::Submit(IoRequest& request) {
  TERRACE_CHECK(!request.outstanding() && request.done_ != nullptr);
  if (Status range = CheckRange(request); !range.ok()) return range;
  if (Status buffer = CheckBuffer(request); !buffer.ok()) return buffer;
  if (request.kind_ != IoKind::kRead && !geometry_.writable) {
    return Status(StatusCode::kDenied, "the device was opened read-only");
  }
  IoList& queue = QueueOf(request);
  if (queue.count() >= kIoQueueRequestsMax) {
    ++stats_.busy;
    return Status(StatusCode::kBusy, "the device's queue is full");
  }

  request.status_ = Status::Ok();
  request.cancelled_ = false;
  request.operations_ = 0;
  request.position_ = 0;
  request.end_ = request.bytes_;
  if (request.kind_ == IoKind::kSync) {
    request.end_ = geometry_.file_count;
    if (request.bytes_ > 0) {
      const uint64_t first = request.offset_ / geometry_.stripe_bytes;
      const uint64_t last = (request.offset_ + request.bytes_ - 1) / geometry_.stripe_bytes;
      request.end_ = std::min<uint64_t>(request.end_, last - first + 1);
    }
  }
  request.submitted_ns_ = clock_.NowNs();
  request.phase_ = IoRequest::Phase::kQueued;
  if (request.buffer_ != kNoBuffer) ++buffers_[request.buffer_ & 0xFFFF].requests;
  queue.PushBack(request);
  ++outstanding_;
  return Status::Ok();
}

void QueuedDevice::Flush() {
  Pump();
  if (!started_) return;
  ++stats_.flushes;
  started_ = !Kick();
  if (started_) Wake();
}

void QueuedDevice::Cancel(IoRequest& request) {
  if (!request.outstanding() || request.phase_ == IoRequest::Phase::kFinished) return;
  request.cancelled_ = true;
  if (request.phase_ == IoRequest::Phase::kQueued) {
    QueueOf(request).Remove(request);
    request.phase_ = IoRequest::Phase::kIssued;
    if (request.status_.ok()) request.status_ = Status(StatusCode::kCancelled);
  }
  for (InFlight& slot : in_flight_) {
    if (slot.request != &request || slot.cancel_started) continue;
    slot.cancel_started = true;
    StartCancel(slot.operation.tag);
    started_ = true;
  }
  EndIfComplete(request);
  if (request.phase_ == IoRequest::Phase::kFinished) Wake();
}

void QueuedDevice::Hasten(IoRequest& request, IoClass io_class) {
  if (request.phase_ != IoRequest::Phase::kQueued || !Transfers(request.kind_)) return;
  // Operations are counted by the class that they began in.
  if (request.position_ != 0 || io_class >= request.io_class_) return;
  QueueOf(request).Remove(request);
  request.io_class_ = io_class;
  QueueOf(request).PushBack(request);
}

uint32_t QueuedDevice::Poll() {
  TERRACE_CHECK(!polling_);
  polling_ = true;
  ClearEvent();
  Reap();
  const uint32_t called = CallFinished();
  polling_ = false;
  Flush();
  return called;
}

// Only those that were there: a `done` that submits and cancels at once would keep Poll busy for
// ever, the rest has its own Wake.
uint32_t QueuedDevice::CallFinished() {
  const uint32_t count = finished_.count();
  for (uint32_t i = 0; i < count; ++i) {
    IoRequest& request = *finished_.front();
    finished_.Remove(request);
    request.phase_ = IoRequest::Phase::kIdle;
    --outstanding_;
    request.done_(request);
  }
  return count;
}

bool QueuedDevice::DrainUntil(int64_t until_ns) {
  TERRACE_CHECK(!polling_);
  while (outstanding_ > 0) {
    const auto cancel_all = [this](IoList& queue) {
      while (!queue.empty()) Cancel(*queue.front());
    };
    for (IoList& queue : reads_) cancel_all(queue);
    for (IoList& queue : writes_) cancel_all(queue);
    cancel_all(others_);
    for (const InFlight& slot : in_flight_) {
      if (slot.request != nullptr) Cancel(*slot.request);
    }
    Flush();
    if (Poll() != 0 || outstanding_ == 0) continue;
    if (clock_.NowNs() >= until_ns) return false;
    AwaitEvent();
  }
  return true;
}

void QueuedDevice::AwaitEvent() {
  pollfd event{.fd = event_.get(), .events = POLLIN, .revents = 0};
  static_cast<void>(poll(&event, 1, kAwaitMs));  // an interruption is a moment passed
}

void QueuedDevice::Wake() {
  const uint64_t one = 1;
  // A full counter is as readable as can be.
  static_cast<void>(!write(event_.get(), &one, sizeof(one)));
}

void QueuedDevice::ClearEvent() {
  uint64_t count = 0;
  static_cast<void>(!read(event_.get(), &count, sizeof(count)));
}

void QueuedDevice::SetBudgets(const IoBudgets& budgets) {
  TERRACE_CHECK(budgets.read_bytes > 0 && budgets.write_depth > 0);
  TERRACE_CHECK(budgets.contended_write_depth > 0);
  TERRACE_CHECK(budgets.write_piece_bytes > 0 && budgets.write_piece_bytes % kPageBytes == 0);
  TERRACE_CHECK(budgets.contended_write_piece_bytes > 0);
  TERRACE_CHECK(budgets.contended_write_piece_bytes % kPageBytes == 0);
  budgets_ = budgets;
}

IoStats QueuedDevice::stats() const {
  IoStats stats = stats_;
  for (const IoList& queue : reads_) stats.queued += queue.count();
  for (const IoList& queue : writes_) stats.queued += queue.count();
  stats.queued += others_.count();
  stats.operations = kIoOperationsMax - static_cast<uint32_t>(free_operations_.size());
  stats.reading_bytes = reading_bytes_;
  stats.writing_bytes = writing_bytes_;
  stats.buffers = live_buffers_;
  stats.plain_buffers = plain_buffers_;
  return stats;
}

void QueuedDevice::Abandon() {
  TERRACE_CHECK(!polling_);
  const auto forget = [](IoList& list) {
    while (!list.empty()) {
      IoRequest& request = *list.front();
      list.Remove(request);
      request.phase_ = IoRequest::Phase::kIdle;
      request.operations_ = 0;
    }
  };
  for (IoList& queue : reads_) forget(queue);
  for (IoList& queue : writes_) forget(queue);
  forget(others_);
  forget(finished_);
  for (uint32_t i = 0; i < kIoOperationsMax; ++i) {
    if (in_flight_[i].request == nullptr) continue;
    in_flight_[i].request->phase_ = IoRequest::Phase::kIdle;
    in_flight_[i].request->operations_ = 0;
    in_flight_[i].request = nullptr;
    free_operations_.push_back(i);
  }
  reading_bytes_ = background_reading_bytes_ = writing_bytes_ = 0;
  writing_count_ = others_count_ = deadline_reading_count_ = 0;
  awaited_reading_count_ = outstanding_ = 0;
  for (Buffer& buffer : buffers_) buffer.requests = 0;
}

}  // namespace terrace
