#pragma once

// One segment of a log under examination (log_check.h), and what would mend it.
//
// Threads: belongs to the device's thread; blocks.

#include <cstdint>
#include <functional>
#include <vector>

#include "storage/tier/aligned_bytes.h"
#include "storage/tier/blocking_device.h"
#include "storage/tier/log_check.h"

namespace terrace {

// What a segment turned out to be.
struct SegmentVerdict {
  enum class State : uint8_t { kFree, kSealed, kOpen, kLost };
  State state = State::kFree;
  uint64_t sequence = 0;
  uint64_t fill_bytes = 0;
  std::vector<FooterEntry> good;
  std::vector<FooterEntry> broken;  // in a whole footer, with a damaged header
  std::vector<LogFinding> findings;
  uint64_t unfinished = 0;
  // What mends it.
  bool write_head = false, write_tail = false, release = false;
  // Some of it cannot be read: what is behind may be whole, and stays.
  bool unsure = false;
};

class SegmentChecker {
 public:
  // Borrows the device.
  SegmentChecker(BlockingDevice& device, const LogIdentity& identity, bool payloads,
                 std::function<bool()> go_on);

  // kCancelled.
  Status Examine(uint32_t segment, SegmentVerdict* verdict);

 private:
  enum class End : uint8_t { kBlank, kGood, kForeign, kDamaged, kUnreadable };
  struct Ends {
    End head = End::kBlank, tail = End::kBlank;
    Status head_why, tail_why;
    SegmentTrailer trailer;
  };

  Ends ReadEnds();
  Status JudgeSealed(const SegmentTrailer& trailer);
  Status JudgeRecords(const SegmentTrailer& trailer, std::span<const uint8_t> entries);
  // `known_end` 0: until the headers say no more.
  Status Walk(uint64_t known_end, bool vouched);
  bool EndsHere(const shm::RecordHeader& header, uint64_t at, uint64_t known_end) const;
  Status JudgePayload(const FooterEntry& entry, bool* whole, bool* unreadable);

  // The bytes of the segment from there, or why they cannot be read.
  Result<const uint8_t*> At(uint64_t offset, uint64_t bytes);
  uint64_t segment_from() const;
  void Find(LogDamage damage, uint64_t offset, const Status& why, const FooterEntry* entry,
            const std::string& mend);
  bool Stopped() const { return go_on_ != nullptr && !go_on_(); }

  // Constant after construction.
  BlockingDevice& device_;
  const LogIdentity& identity_;
  const bool payloads_;
  const std::function<bool()> go_on_;

  // Of the segment under examination.
  uint32_t segment_ = 0;
  SegmentVerdict* verdict_ = nullptr;
  AlignedBytes memory_;
  uint64_t window_from_ = 0, window_to_ = 0;
};

// Writes what mends the segment, each step synced before the next.  The first failure.
Status MendSegment(BlockingDevice& device, const LogIdentity& identity, uint32_t segment,
                   const SegmentVerdict& verdict);

}  // namespace terrace
