#include "tests/storage/io/sim_device.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <tuple>

namespace terrace {
namespace {

// What is left of a write that ended early: a medium writes a sector wholly or not at all.
uint64_t WholeSectors(uint64_t bytes) {
  return bytes / SimMedium::kSectorBytes * SimMedium::kSectorBytes;
}

}  // namespace

SimDevice::SimDevice(SimMedium& medium, SimClock& clock, const Options& options)
    : QueuedDevice({.capacity_bytes = medium.bytes(), .stripe_bytes = options.stripe_bytes},
                   UniqueFd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)), options.buffer_count, clock),
      medium_(medium),
      clock_(clock),
      faults_(options.faults) {
  events_.reserve(kIoOperationsMax);
}

Status SimDevice::CheckMedium() const {
  if (medium_.end() == medium_.bytes()) return Status::Ok();
  return Status(StatusCode::kIoError, "the simulated medium shrank");
}

void SimDevice::Start(const Operation& operation) {
  const auto span = static_cast<uint64_t>(faults_.latency_ns_max - faults_.latency_ns_min + 1);
  int64_t latency_ns = faults_.latency_ns_min + static_cast<int64_t>(medium_.Random() % span);
  if (medium_.Chance(faults_.slow)) {
    ++injected_.slow;
    latency_ns += faults_.slow_ns;
  }
  events_.push_back({.due_ns = clock_.NowNs() + latency_ns,
                     .number = event_count_++,
                     .cancelled = false,
                     .writes_before = medium_.write_count(),
                     .operation = operation});
}

void SimDevice::StartCancel(uint64_t tag) {
  for (Event& event : events_) {
    if (event.operation.tag != tag || medium_.Chance(500)) continue;  // half of them come too late
    event.cancelled = true;
    event.due_ns = clock_.NowNs();
  }
}

std::optional<int64_t> SimDevice::next_event_ns() const {
  std::optional<int64_t> next;
  for (const Event& event : events_) {
    if (!next || event.due_ns < *next) next = event.due_ns;
  }
  return next;
}

void SimDevice::Reap() {
  while (true) {
    const auto next =
        std::min_element(events_.begin(), events_.end(), [](const Event& left, const Event& right) {
          return std::tie(left.due_ns, left.number) < std::tie(right.due_ns, right.number);
        });
    if (next == events_.end() || next->due_ns > clock_.NowNs()) return;
    const Event event = *next;
    events_.erase(next);
    const int64_t result = Perform(event);
    Completed(event.operation.tag, result);
    if (!medium_.Chance(faults_.stale)) continue;
    ++injected_.stale;
    Completed(event.operation.tag, result);
  }
}

void SimDevice::AwaitEvent() {
  const std::optional<int64_t> next = next_event_ns();
  if (next && *next > clock_.NowNs()) clock_.AdvanceTo(*next);
}

void SimDevice::RunUntilIdle() {
  Flush();
  while (next_event_ns()) {
    AwaitEvent();
    Poll();
  }
  Poll();
}

int64_t SimDevice::Perform(const Event& event) {
  if (event.cancelled) return -ECANCELED;
  if (medium_.Chance(faults_.again)) {
    ++injected_.again;
    return medium_.Random() % 2 == 0 ? -EAGAIN : -EINTR;
  }
  switch (event.operation.kind) {
    case IoKind::kRead: return Read(event.operation);
    case IoKind::kWrite: return Write(event.operation);
    case IoKind::kSync: return Sync(event);
    case IoKind::kDiscard: return 0;
  }
  return -EINVAL;
}

uint64_t SimDevice::Shortened(uint64_t bytes) {
  if (!medium_.Chance(faults_.short_transfer)) return bytes;
  ++injected_.short_transfers;
  return medium_.Random() % bytes;
}

bool SimDevice::IsSick(const Operation& read) {
  for (Sick& sick : sick_) {
    const bool touched =
        sick.offset >= read.offset && sick.offset - read.offset < read.bytes && sick.times > 0;
    if (!touched) continue;
    --sick.times;
    return true;
  }
  return false;
}

int64_t SimDevice::Read(const Operation& operation) {
  if (medium_.Chance(faults_.read_error) || IsSick(operation)) {
    ++injected_.read_errors;
    return -EIO;
  }
  if (operation.offset >= medium_.end()) return 0;
  const uint64_t there = std::min(operation.bytes, medium_.end() - operation.offset);
  const uint64_t bytes = Shortened(there);
  if (medium_.Chance(faults_.rot)) {
    ++injected_.rotten_bits;
    const uint64_t at = operation.offset + medium_.Random() % there;
    medium_.FlipBit(at, static_cast<uint32_t>(medium_.Random() % 8));
  }
  medium_.Read(operation.offset, operation.memory, bytes);
  return static_cast<int64_t>(bytes);
}

int64_t SimDevice::Write(const Operation& operation) {
  if (medium_.Chance(faults_.full)) {
    ++injected_.full;
    return -ENOSPC;
  }
  if (medium_.Chance(faults_.write_error)) {
    ++injected_.write_errors;
    medium_.Write(operation.offset, operation.memory,
                  WholeSectors(medium_.Random() % (operation.bytes + 1)));
    return -EIO;
  }
  if (medium_.Chance(faults_.dropped_write)) {
    ++injected_.dropped;
    return static_cast<int64_t>(operation.bytes);
  }
  uint64_t offset = operation.offset;
  if (medium_.Chance(faults_.misdirected_write)) {
    ++injected_.misdirected;
    const uint64_t pages = (medium_.bytes() - operation.bytes) / kPageBytes + 1;
    offset = medium_.Random() % pages * kPageBytes;
  }
  const uint64_t bytes = Shortened(operation.bytes);
  medium_.Write(offset, operation.memory, WholeSectors(bytes));
  return static_cast<int64_t>(bytes);
}

int64_t SimDevice::Sync(const Event& event) {
  if (medium_.Chance(faults_.sync_error)) {
    ++injected_.sync_errors;
    return -EIO;
  }
  // No more than was promised: what was written before the sync began.
  medium_.SyncUntil(event.writes_before);
  return 0;
}

void SimDevice::LosePower() {
  for (const Event& event : events_) {
    if (event.operation.kind != IoKind::kWrite || event.cancelled) continue;
    medium_.Write(event.operation.offset, event.operation.memory, event.operation.bytes);
  }
  events_.clear();
  medium_.LosePower(faults_, injected_);
  Abandon();
}

}  // namespace terrace
