// Heads, trailers and footers; log_recovery_walk.cc follows headers where these are missing.
#include "storage/tier/log_recovery.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "storage/base/check.h"

namespace terrace {
namespace {

// Trailer and 448 entries in one read: more than a segment of usual chunks has.
constexpr uint64_t kTailWindowBytes = 32 * kKiB;
constexpr uint64_t kSlotBytes = 4 * shm::kLeafBytes;

}  // namespace

LogRecovery::LogRecovery(BlockDevice& device, const LogIdentity& identity, LogSegments& segments)
    : device_(device), identity_(identity), segments_(segments) {
  sync_.recovery = this;
}

void LogRecovery::Start(OnSegment on_segment, Done done) {
  on_segment_ = std::move(on_segment);
  done_ = std::move(done);
  progress_ = RecoveryProgress();
  progress_.segments = segments_.count();
  const uint32_t depth = std::min(kLogRecoveryDepth, segments_.count());
  for (uint32_t i = 0; i < depth; ++i) {
    slots_.push_back(std::make_unique<Slot>());
    Slot& slot = *slots_.back();
    slot.recovery = this;
    slot.head = AlignedBytes(sizeof(SegmentHead));
    slot.memory = AlignedBytes(kSlotBytes);
    slot.requests[0].slot = slot.requests[1].slot = &slot;
  }
  if (device_.writable()) {
    sync_.PrepareSync();
    sync_.OnDone([](IoRequest& request) { static_cast<SyncRequest&>(request).recovery->Begin(); },
                 IoClass::kDeadline);
    if (device_.Submit(sync_).ok()) return;
  }
  Begin();
}

// Whether the sync worked or not: what a failing medium holds is judged as it is read.
void LogRecovery::Begin() {
  busy_ = static_cast<uint32_t>(slots_.size());
  for (const std::unique_ptr<Slot>& slot : slots_) Next(*slot);
}

// The slot's next segment, or none: the last slot ends the recovery.
void LogRecovery::Next(Slot& slot) {
  if (next_ == segments_.count()) {
    if (--busy_ > 0) return;
    const Done done = std::exchange(done_, nullptr);
    done(cancelled_ ? Status(StatusCode::kCancelled, "recovery of the log") : Status::Ok());
    return;
  }
  slot.segment = next_++;
  slot.step = Step::kEnds;
  slot.entries.clear();
  Read(slot, 0, 0, slot.head.data(), sizeof(SegmentHead));
  Read(slot, 1, segments_.segment_bytes() - kTailWindowBytes, slot.memory.data(), kTailWindowBytes);
  if (slot.outstanding == 0) StepDone(slot);
}

void LogRecovery::Read(Slot& slot, uint32_t request, uint64_t offset, uint8_t* into,
                       uint64_t bytes) {
  Request& read = slot.requests[request];
  read.PrepareRead(SegmentOffset(slot.segment, segments_.segment_bytes()) + offset, into, bytes);
  read.OnDone(
      [](IoRequest& done) {
        Slot& ended = *static_cast<Request&>(done).slot;
        ended.recovery->RequestDone(ended);
      },
      IoClass::kDeadline);
  slot.refused[request] = device_.Submit(read);
  if (slot.refused[request].ok()) ++slot.outstanding;
}

void LogRecovery::RequestDone(Slot& slot) {
  if (--slot.outstanding == 0) StepDone(slot);
}

// Counts what could not be read, once a request.
bool LogRecovery::ReadWorked(Slot& slot, uint32_t request) {
  const Status& status =
      slot.refused[request].ok() ? slot.requests[request].status() : slot.refused[request];
  if (status.ok()) return true;
  if (status.code() == StatusCode::kCancelled) {
    cancelled_ = true;
    next_ = segments_.count();
    return false;
  }
  ++progress_.unreadable;
  segments_.Fail(slot.segment);
  return false;
}

void LogRecovery::StepDone(Slot& slot) {
  switch (slot.step) {
    case Step::kEnds: return JudgeEnds(slot);
    case Step::kFooter:
      if (!ReadWorked(slot, 0)) return BeginWalk(slot);
      return JudgeFooter(slot, slot.footer.span());
    case Step::kWalk:
      if (!ReadWorked(slot, 0)) return BeginVerify(slot);
      return Walk(slot);
    case Step::kVerify:
      if (!ReadWorked(slot, 0)) return VerifyNext(slot, false);
      return JudgePayload(slot);
  }
}

void LogRecovery::JudgeEnds(Slot& slot) {
  bool opened = false, foreign = false;
  if (ReadWorked(slot, 0)) {
    SegmentHead head;
    std::memcpy(&head, slot.head.data(), sizeof(head));
    Result<uint64_t> sequence = ReadSegmentHead(identity_, slot.segment, head);
    opened = sequence.ok();
    foreign = sequence.status().code() == StatusCode::kDenied;
    if (opened) slot.sequence = *sequence;
    if (foreign) ++progress_.foreign;
    if (sequence.status().code() == StatusCode::kCorrupt) ++progress_.damaged_heads;
  }
  bool sealed = false;
  if (ReadWorked(slot, 1)) {
    std::memcpy(&slot.trailer, slot.memory.data() + kTailWindowBytes - sizeof(SegmentTrailer),
                sizeof(SegmentTrailer));
    sealed = CheckTrailer(identity_, slot.segment, slot.trailer).ok();
  }
  if (opened) segments_.RaiseSequence(slot.sequence);
  if (sealed) segments_.RaiseSequence(slot.trailer.sequence);
  if (cancelled_ || foreign || (!opened && !sealed)) return SlotDone(slot);
  if (opened && sealed && slot.trailer.sequence == slot.sequence) return ReadFooter(slot);
  // The lost head may have begun another life, which has overwritten what the footer names.
  if (!opened) slot.sequence = slot.trailer.sequence;
  BeginWalk(slot);
}

void LogRecovery::ReadFooter(Slot& slot) {
  const uint64_t bytes = FooterBytes(slot.trailer.record_count);
  const uint64_t behind = kTailWindowBytes - sizeof(SegmentTrailer);
  if (bytes <= behind) return JudgeFooter(slot, {slot.memory.data() + behind - bytes, bytes});
  slot.step = Step::kFooter;
  slot.footer = AlignedBytes(bytes);
  Read(slot, 0, segments_.segment_bytes() - sizeof(SegmentTrailer) - bytes, slot.footer.data(),
       bytes);
  if (slot.outstanding == 0) StepDone(slot);
}

void LogRecovery::JudgeFooter(Slot& slot, std::span<const uint8_t> bytes) {
  if (!CheckFooter(slot.trailer, bytes).ok()) {
    ++progress_.damaged_footers;
    return BeginWalk(slot);
  }
  slot.entries.resize(slot.trailer.record_count);
  std::memcpy(slot.entries.data(), bytes.data(), slot.entries.size() * sizeof(FooterEntry));
  ++progress_.from_footers;
  Report(slot, uint64_t{slot.trailer.fill_units} * kLogBlockBytes, false);
}

void LogRecovery::Report(Slot& slot, uint64_t fill_bytes, bool walked) {
  progress_.records += slot.entries.size();
  for (const FooterEntry& entry : slot.entries) {
    progress_.record_bytes += shm::RecordBytes(entry.stored_bytes);
  }
  if (!slot.entries.empty()) {
    on_segment_({.segment = slot.segment,
                 .sequence = slot.sequence,
                 .fill_bytes = fill_bytes,
                 .walked = walked,
                 .entries = std::exchange(slot.entries, {})});
  }
  SlotDone(slot);
}

void LogRecovery::SlotDone(Slot& slot) {
  ++progress_.segments_done;
  slot.footer = AlignedBytes();
  Next(slot);
}

}  // namespace terrace
