// Heads, trailers and footers; log_recovery_walk.cc follows headers where these are missing,
// log_recovery_mend.cc writes them anew.
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
    slot.requests[1].index = 1;
  }
  if (device_.writable()) {
    sync_.PrepareSync();
    sync_.OnDone([](IoRequest& request) { static_cast<SyncRequest&>(request).recovery->Begin(); },
                 IoClass::kDeadline);
    if (device_.Submit(sync_).ok()) return;
    unsynced_ = true;
  }
  Begin();
}

void LogRecovery::Begin() {
  if (!sync_.status().ok()) unsynced_ = true;
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
  slot.headless = slot.vouched = slot.unread_head = slot.unread = false;
  Read(slot, 0, 0, slot.head.data(), sizeof(SegmentHead));
  Read(slot, 1, segments_.segment_bytes() - kTailWindowBytes, slot.memory.data(), kTailWindowBytes);
  if (slot.outstanding == 0) StepDone(slot);
}

void LogRecovery::Read(Slot& slot, uint32_t request, uint64_t offset, uint8_t* into,
                       uint64_t bytes) {
  Request& read = slot.requests[request];
  read.PrepareRead(SegmentOffset(slot.segment, segments_.segment_bytes()) + offset, into, bytes);
  Submit(slot, request);
}

// REQUIRES: prepared.
void LogRecovery::Submit(Slot& slot, uint32_t request) {
  slot.requests[request].retries = 0;
  slot.requests[request].OnDone(
      [](IoRequest& done) {
        Request& ended = static_cast<Request&>(done);
        ended.slot->recovery->RequestDone(ended);
      },
      IoClass::kDeadline);
  slot.refused[request] = device_.Submit(slot.requests[request]);
  if (slot.refused[request].ok()) ++slot.outstanding;
}

// Whether it is on its way once more.
bool LogRecovery::Retry(Request& request) {
  const bool wanted = request.kind() == IoKind::kRead &&
                      request.status().code() == StatusCode::kIoError &&
                      request.retries < kLogReadRetries && retries_ < kLogRecoveryRetriesMax;
  if (!wanted) return false;
  ++request.retries;
  ++retries_;
  return device_.Submit(request).ok();
}

void LogRecovery::RequestDone(Request& request) {
  if (Retry(request)) return;
  Slot& slot = *request.slot;
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
  slot.unread = true;
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
      if (!ReadWorked(slot, 0)) return WindowUnread(slot);
      return Walk(slot);
    case Step::kVerify:
      if (!ReadWorked(slot, 0)) return VerifyNext(slot, false);
      return JudgePayload(slot);
    case Step::kMend: return MendDone(slot);
  }
}

void LogRecovery::JudgeEnds(Slot& slot) {
  bool opened = false, foreign = false, damaged = false;
  slot.unread_head = !ReadWorked(slot, 0);
  if (!slot.unread_head) {
    SegmentHead head;
    std::memcpy(&head, slot.head.data(), sizeof(head));
    Result<uint64_t> sequence = ReadSegmentHead(identity_, slot.segment, head);
    opened = sequence.ok();
    foreign = sequence.status().code() == StatusCode::kDenied;
    if (opened) slot.sequence = *sequence;
    if (foreign) ++progress_.foreign;
    damaged = sequence.status().code() == StatusCode::kCorrupt;
    if (damaged) ++progress_.damaged_heads;
  }
  bool sealed = false;
  const bool unread_tail = !ReadWorked(slot, 1);
  slot.unread = false;
  if (!unread_tail) {
    std::memcpy(&slot.trailer, slot.memory.data() + kTailWindowBytes - sizeof(SegmentTrailer),
                sizeof(SegmentTrailer));
    sealed = CheckTrailer(identity_, slot.segment, slot.trailer).ok();
  }
  if (opened) segments_.RaiseSequence(slot.sequence);
  if (sealed) segments_.RaiseSequence(slot.trailer.sequence);
  if (cancelled_ || foreign) return SlotDone(slot);
  if (!opened && !sealed) {
    // What cannot be read may be read at the next start, and hold what was acknowledged.
    const bool blind = slot.unread_head || (damaged && unread_tail);
    return blind ? Withhold(slot) : SlotDone(slot);
  }
  slot.vouched = opened && sealed && slot.trailer.sequence == slot.sequence;
  if (slot.vouched) return ReadFooter(slot);
  // The lost head may have begun another life, which has overwritten what the footer names.
  slot.headless = !opened;
  if (slot.headless) slot.sequence = slot.trailer.sequence;
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
                 .unread = slot.unread,
                 .withheld = false,
                 .entries = std::exchange(slot.entries, {})});
  }
  SlotDone(slot);
}

void LogRecovery::Withhold(Slot& slot) {
  ++progress_.withheld;
  on_segment_({.segment = slot.segment,
               .sequence = slot.sequence,
               .fill_bytes = 0,
               .walked = false,
               .unread = true,
               .withheld = true,
               .entries = std::exchange(slot.entries, {})});
  SlotDone(slot);
}

void LogRecovery::SlotDone(Slot& slot) {
  ++progress_.segments_done;
  slot.footer = AlignedBytes();
  Next(slot);
}

}  // namespace terrace
