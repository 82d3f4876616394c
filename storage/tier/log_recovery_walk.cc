// The chain of record headers of a segment without a footer, and what a crash can have torn in it.
#include <algorithm>
#include <cstring>

#include "storage/tier/log_recovery.h"
#include "storage/tier/log_verify.h"
#include "storage/tier/log_writer.h"

namespace terrace {
namespace {

// Payload that is read together with its header.
constexpr uint64_t kFirstLeaves = 3;
constexpr uint64_t kLeaves = 4;
static_assert(sizeof(shm::RecordHeader) + kFirstLeaves * shm::kLeafBytes <=
              kLeaves * shm::kLeafBytes);

uint64_t RoundUp(uint64_t bytes) {
  return (bytes + kLogBlockBytes - 1) / kLogBlockBytes * kLogBlockBytes;
}

uint64_t OffsetOf(const FooterEntry& entry) {
  return uint64_t{entry.offset_units} * kLogBlockBytes;
}

}  // namespace

void LogRecovery::BeginWalk(Slot& slot) {
  if (cancelled_) return SlotDone(slot);
  ++progress_.walked;
  slot.entries.clear();
  slot.walked = sizeof(SegmentHead);
  slot.window_from = slot.window_to = 0;
  slot.narrow = false;
  slot.step = Step::kWalk;
  Walk(slot);
}

void LogRecovery::Walk(Slot& slot) {
  const uint64_t end = segments_.segment_bytes() - TailBytes(slot.entries.size() + 1);
  while (slot.walked + sizeof(shm::RecordHeader) <= end) {
    const bool held = slot.walked >= slot.window_from && slot.walked < slot.window_to;
    if (held && !WalkRecord(slot)) return BeginVerify(slot);
    if (held) continue;
    // Small records lie close together, large ones are skipped over.
    const uint64_t last = slot.entries.empty() ? 0 : slot.walked - OffsetOf(slot.entries.back());
    const bool wide = last < slot.memory.size() && !slot.narrow;
    const uint64_t window = wide ? slot.memory.size() : kLogBlockBytes;
    slot.window_from = slot.walked;
    slot.window_to = std::min(slot.walked + window, segments_.segment_bytes());
    Read(slot, 0, slot.window_from, slot.memory.data(), slot.window_to - slot.window_from);
    if (slot.outstanding == 0) StepDone(slot);
    return;
  }
  BeginVerify(slot);
}

// A bad sector behind the header says nothing of the header.
void LogRecovery::WindowUnread(Slot& slot) {
  const bool wide = slot.window_to - slot.window_from > kLogBlockBytes;
  if (!wide || cancelled_) return BeginVerify(slot);
  slot.narrow = true;
  slot.unread = false;
  slot.window_to = slot.window_from;
  Walk(slot);
}

// False at the end of the chain.
bool LogRecovery::WalkRecord(Slot& slot) {
  shm::RecordHeader header;
  std::memcpy(&header, slot.memory.data() + (slot.walked - slot.window_from), sizeof(header));
  const uint32_t units = static_cast<uint32_t>(slot.walked / kLogBlockBytes);
  const LogPlace place{.sequence = slot.sequence, .segment = slot.segment, .offset_units = units};
  if (!CheckHeader(header, place).ok()) {
    // Of this life all the same: what lies behind it cannot be found.
    if (header.log_sequence == slot.sequence) ++progress_.damaged_headers;
    return false;
  }
  const uint64_t next = slot.walked + shm::RecordBytes(header.stored_bytes);
  if (next + TailBytes(slot.entries.size() + 1) > segments_.segment_bytes()) return false;
  slot.entries.push_back(EntryOf(header, units));
  slot.walked = next;
  return true;
}

void LogRecovery::BeginVerify(Slot& slot) {
  slot.step = Step::kVerify;
  // Where a later life may have begun, its writes can have torn any record.
  const auto from =
      std::find_if(slot.entries.begin(), slot.entries.end(), [&slot](const FooterEntry& entry) {
        return slot.headless || OffsetOf(entry) + kLogUnsyncedBytesMax >= slot.walked;
      });
  slot.verifying = slot.kept = static_cast<size_t>(from - slot.entries.begin());
  slot.verified = 0;
  ReadPayload(slot);
}

void LogRecovery::ReadPayload(Slot& slot) {
  if (cancelled_) return SlotDone(slot);
  if (slot.verifying == slot.entries.size()) {
    slot.entries.resize(slot.kept);
    return Walked(slot);
  }
  const FooterEntry& entry = slot.entries[slot.verifying];
  const uint64_t left = entry.stored_bytes - slot.verified;
  if (slot.verified == 0) {
    Read(slot, 0, OffsetOf(entry), slot.memory.data(),
         sizeof(slot.header) + RoundUp(std::min<uint64_t>(left, kFirstLeaves * shm::kLeafBytes)));
  } else {
    Read(slot, 0, OffsetOf(entry) + sizeof(slot.header) + slot.verified, slot.memory.data(),
         RoundUp(std::min<uint64_t>(left, kLeaves * shm::kLeafBytes)));
  }
  if (slot.outstanding == 0) StepDone(slot);
}

void LogRecovery::JudgePayload(Slot& slot) {
  const FooterEntry& entry = slot.entries[slot.verifying];
  const bool first = slot.verified == 0;
  const uint8_t* payload = slot.memory.data();
  if (first) {
    std::memcpy(&slot.header, payload, sizeof(slot.header));
    payload += sizeof(slot.header);
    // The medium may answer another read differently.
    const LogPlace place{
        .sequence = slot.sequence, .segment = slot.segment, .offset_units = entry.offset_units};
    if (!ValidateHeader(slot.header, IdentityOf(entry), place).ok() ||
        slot.header.stored_bytes != entry.stored_bytes) {
      return VerifyNext(slot, false);
    }
  }
  const uint64_t bytes = std::min<uint64_t>(entry.stored_bytes - slot.verified,
                                            (first ? kFirstLeaves : kLeaves) * shm::kLeafBytes);
  if (!TakePiece(slot, {payload, bytes})) return VerifyNext(slot, false);
  slot.verified += bytes;
  if (slot.verified == entry.stored_bytes) return VerifyNext(slot, true);
  ReadPayload(slot);
}

// The next stored bytes of the record under slot.header.
bool LogRecovery::TakePiece(Slot& slot, std::span<const uint8_t> bytes) {
  const shm::RecordHeader& header = slot.header;
  if (header.codec == shm::kCodecPlain) return VerifyLeaves(header, slot.verified, bytes).ok();
  if (slot.verified == 0) {
    slot.frames.Begin(header.payload_bytes, header.stored_bytes, header.seal);
  }
  return slot.frames.Take(bytes).ok();
}

void LogRecovery::VerifyNext(Slot& slot, bool whole) {
  if (whole) {
    slot.entries[slot.kept++] = slot.entries[slot.verifying];
  } else {
    ++progress_.torn_records;
  }
  ++slot.verifying;
  slot.verified = 0;
  ReadPayload(slot);
}

}  // namespace terrace
