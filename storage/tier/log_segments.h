#pragma once

// The places of one segment log and what is known of each: state, sequence, bytes, reads under way,
// failures.  Does no I/O and knows nothing of records.
//
//   free --Open--> open --Seal--> sealed --BeginReclaim--> reclaiming --Free--> free
//   A place that has failed too often is quarantined, an open one once it is sealed: never opened
//   again, nothing read in it, until the log is opened anew.
//
// Threads: belongs to one shard.

#include <cstdint>
#include <vector>

#include "storage/base/result.h"

namespace terrace {

enum class LogSegmentState : uint8_t { kFree, kOpen, kSealed, kReclaiming, kQuarantined };

// Failures of one place after which it is given up: one may be the cable, three are the medium.
inline constexpr uint32_t kSegmentFailuresMax = 3;

struct LogSegment {
  LogSegmentState state = LogSegmentState::kFree;
  uint32_t reuse_class = 0;
  uint64_t sequence = 0;      // of its life; 0: never opened
  uint64_t fill_bytes = 0;    // head and records, padding included
  uint64_t live_bytes = 0;    // records that are durable and not marked dead
  uint32_t record_count = 0;  // durable, dead ones included
  uint32_t reads = 0;         // under way
  uint32_t failures = 0;
};

struct LogSegmentCounts {
  uint32_t total = 0, free = 0, open = 0, sealed = 0, reclaiming = 0, quarantined = 0;
  uint64_t fill_bytes = 0, live_bytes = 0;
};

class LogSegments {
 public:
  LogSegments(uint32_t count, uint64_t segment_bytes);

  uint32_t count() const { return static_cast<uint32_t>(segments_.size()); }
  uint64_t segment_bytes() const { return segment_bytes_; }
  uint32_t free_count() const { return free_count_; }
  const LogSegment& at(uint32_t segment) const { return segments_[segment]; }
  LogSegmentCounts Counts() const;

  // A free place under the next sequence; places are used in turns.  kNoSpace when none is free.
  Result<uint32_t> Open(uint32_t reuse_class);
  // REQUIRES: open.
  void Seal(uint32_t segment);
  // An opening that left no record: free again, or quarantined.  REQUIRES: open, no record.
  void Abandon(uint32_t segment);

  // What recovery found: sealed, in that life; or open, when its footer is to be written yet.
  // REQUIRES: free.
  void Recovered(uint32_t segment, uint64_t sequence, LogSegmentState state);
  // Nothing is read or written in it until the log is opened anew.  REQUIRES: free.
  void Withhold(uint32_t segment);
  // No sequence up to this one is given again.
  void RaiseSequence(uint64_t seen);
  uint64_t next_sequence() const { return next_sequence_; }

  void Filled(uint32_t segment, uint64_t fill_bytes) { segments_[segment].fill_bytes = fill_bytes; }
  void AddLive(uint32_t segment, uint64_t record_bytes);
  // REQUIRES: the record is of this life of the segment and was not marked before.
  void MarkDead(uint32_t segment, uint64_t record_bytes);

  void BeginRead(uint32_t segment) { ++segments_[segment].reads; }
  void EndRead(uint32_t segment);

  // kInvalid unless sealed; from now on nothing new is read in it.
  Status BeginReclaim(uint32_t segment);
  // kBusy while reads are under way, kInvalid unless reclaiming.  Counts what was live as gone.
  Status Free(uint32_t segment);

  // The place failed a write, a read or a check.
  void Fail(uint32_t segment);
  // Places given up since the last call: nothing in them is readable any more.
  std::vector<uint32_t> TakeQuarantined();

 private:
  void Empty(uint32_t segment);
  void Quarantine(uint32_t segment);

  const uint64_t segment_bytes_;
  std::vector<LogSegment> segments_;
  std::vector<uint32_t> quarantined_;
  uint32_t free_count_ = 0;
  uint32_t cursor_ = 0;
  uint64_t next_sequence_ = 1;
};

}  // namespace terrace
