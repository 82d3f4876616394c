#pragma once

// The segments of one tenant's tier: how many there are, which are free, and the memfd in each
// place.  The number is fixed at creation, so the tenant can never hold more than its share.
//
// Population runs in the background; Open prefers what is populated and never waits for it.
//
// Threads: belongs to one shard.  The populator's thread only stores `populated` words.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "storage/mem/populator.h"
#include "storage/segment/segment.h"

namespace terrace {

struct SegmentPoolOptions {
  std::string name;            // of the memfds, "terrace-<tenant>"
  uint64_t segment_bytes = 0;  // a power of two, 2 MiB..1 GiB
  uint32_t segment_count = 0;  // 1..kSegmentCountMax
  MemoryFileOptions memory;
};

class SegmentPool {
 public:
  // kNoSpace or kBusy when the system refuses a memfd, naming which.
  static Result<std::unique_ptr<SegmentPool>> Create(const SegmentPoolOptions& options);
  ~SegmentPool();

  uint32_t count() const { return static_cast<uint32_t>(segments_.size()); }
  uint32_t free_count() const { return free_count_; }
  uint64_t segment_bytes() const { return options_.segment_bytes; }
  Segment& at(uint32_t segment) { return segments_[segment]; }
  const Segment& at(uint32_t segment) const { return segments_[segment]; }

  // A free segment of this kind, open; one of the other kind gets a fresh memfd first.  kNoSpace
  // when none is free.
  Result<uint32_t> Open(SegmentKind kind);

  // Room for a record of `record_bytes` behind what is there; false when it does not fit.
  // REQUIRES: the segment is open.
  bool Append(uint32_t segment, uint64_t record_bytes, uint64_t* offset);
  // Takes the last Append back.
  void Unappend(uint32_t segment, uint64_t record_bytes);

  // No more appends.
  void Seal(uint32_t segment);

  // Nothing in it is ready any more; pins may be.
  void BeginDrain(uint32_t segment, int64_t now_ns);

  // Its content is forgotten and its memory used again.  REQUIRES: sealed or draining, nothing
  // ready in it, no pin on it, no poison.
  void Free(uint32_t segment);

  // The same, with a fresh memfd and a new generation; the old pages live on where they are
  // mapped.  The place is missing when the system has no memory: try Refill later.
  void Replace(uint32_t segment);
  bool Refill(uint32_t segment);

  // Called with a segment whose memory Replace is about to unmap, until another one is set; null:
  // nobody.
  void OnUnmap(std::function<void(uint32_t segment)> on_unmap) { on_unmap_ = std::move(on_unmap); }

  bool IsPopulated(uint32_t segment) const;
  uint64_t populated_bytes() const;
  uint64_t memfds_made() const { return next_generation_ - 1; }
  // Grows with every memfd that comes or goes.
  uint64_t epoch() const { return epoch_; }

 private:
  explicit SegmentPool(SegmentPoolOptions options);
  Status Make(uint32_t segment);
  void Forget(Segment& segment);

  // Constant after construction.
  const SegmentPoolOptions options_;
  // Owned by the shard's thread.
  std::vector<Segment> segments_;
  uint32_t free_count_ = 0;
  uint32_t cursor_ = 0;  // where Open looks first, so that use goes round
  uint64_t next_generation_ = 1;
  uint64_t epoch_ = 1;
  std::function<void(uint32_t segment)> on_unmap_;
  // By segment: the generation that is populated.  Stored by the populator's thread.
  std::unique_ptr<std::atomic<uint64_t>[]> populated_;
  std::unique_ptr<Populator> populator_;
};

}  // namespace terrace
