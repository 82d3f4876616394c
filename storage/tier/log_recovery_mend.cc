// What becomes of a walked segment; and footer and head of one whose head is gone, written anew.
#include <cstring>

#include "storage/tier/log_recovery.h"

namespace terrace {
namespace {

// Footer, sync, head, sync: until the head is there the segment is found as it was before, under
// the old footer or the new one, and after it nothing counts that the new footer does not list.
constexpr uint32_t kMendSteps = 4;

}  // namespace

void LogRecovery::Walked(Slot& slot) {
  if (slot.entries.empty()) {
    return slot.unread || slot.unread_head ? Withhold(slot) : SlotDone(slot);
  }
  if (unsynced_ && !slot.vouched) return Withhold(slot);
  if (slot.headless) return slot.unread ? Withhold(slot) : BeginMend(slot);
  // A footer that lacks what could not be read this time would lose it for good.
  Report(slot, slot.walked, !slot.unread);
}

void LogRecovery::BeginMend(Slot& slot) {
  if (!device_.writable()) return Withhold(slot);
  slot.step = Step::kMend;
  slot.mended = 0;
  slot.footer = AlignedBytes(TailBytes(slot.entries.size()));
  BuildTail(identity_, slot.segment, slot.sequence, slot.entries, slot.walked, slot.footer.span());
  SegmentHead head;
  BuildSegmentHead(identity_, slot.segment, slot.sequence, &head);
  std::memcpy(slot.head.data(), &head, sizeof(head));
  MendNext(slot);
}

void LogRecovery::MendNext(Slot& slot) {
  if (cancelled_) return SlotDone(slot);
  if (slot.mended == kMendSteps) {
    ++progress_.mended_heads;
    return Report(slot, slot.walked, false);
  }
  const uint64_t segment_bytes = segments_.segment_bytes();
  const uint64_t from = SegmentOffset(slot.segment, segment_bytes);
  Request& request = slot.requests[0];
  switch (slot.mended) {
    case 0:
      request.PrepareWrite(from + segment_bytes - slot.footer.size(), slot.footer.data(),
                           slot.footer.size());
      break;
    case 2: request.PrepareWrite(from, slot.head.data(), slot.head.size()); break;
    default: request.PrepareSync(from, segment_bytes); break;
  }
  Submit(slot, 0);
  if (slot.outstanding == 0) MendDone(slot);
}

void LogRecovery::MendDone(Slot& slot) {
  const Status& status = slot.refused[0].ok() ? slot.requests[0].status() : slot.refused[0];
  if (status.code() == StatusCode::kCancelled) {
    cancelled_ = true;
    next_ = segments_.count();
    return SlotDone(slot);
  }
  if (!status.ok()) return Withhold(slot);
  ++slot.mended;
  MendNext(slot);
}

}  // namespace terrace
