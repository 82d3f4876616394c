#pragma once

// Keys that were evicted, remembered for a while: which use class they had and when they were last
// used, so that a reuse that came too late for the cache still teaches.  Oldest leaver forgotten
// first, when its time is over or its place is needed.  It knows no payload and no clock.
//
// Threads: values of one owner.

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace terrace {

struct Ghost {
  uint64_t key_hash;
  uint64_t used_at;  // the clock at the last use
  uint64_t left_at;  // the clock at the eviction
  uint32_t use_class;
};

class Ghosts {
 public:
  static constexpr uint32_t kBytesMax = sizeof(Ghost) + 3 * sizeof(uint32_t);

  // Takes its memory now (kBytesMax a ghost).  REQUIRES: 1 <= ghost_count_max <= 2^30.
  explicit Ghosts(uint32_t ghost_count_max);

  // REQUIRES: !full(); no ghost of that key; left_at does not fall from one to the next.
  void Add(const Ghost& ghost);

  // The key came back: its ghost, which is forgotten.
  std::optional<Ghost> Take(uint64_t key_hash);

  // Null when there is none.  Valid until the next change.
  const Ghost* Find(uint64_t key_hash) const;

  // The one that left longest ago; null when there is none.
  const Ghost* Oldest() const;

  uint32_t count() const { return count_; }

  // No place for another until Oldest() is taken.  True also while taken ones leave holes between.
  bool full() const { return tail_ - head_ == capacity_; }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr uint32_t kTaken = UINT32_MAX;  // use_class of a place whose key came back

  uint32_t BucketOf(uint64_t key_hash) const;
  uint32_t FindBucket(uint64_t key_hash) const;
  void EraseBucket(uint32_t bucket);

  // Constant after construction.
  uint32_t capacity_;
  uint32_t mask_;

  uint32_t count_ = 0;
  uint64_t head_ = 0;  // the oldest live place, when there is one
  uint64_t tail_ = 0;
  std::unique_ptr<Ghost[]> places_;  // a ring by left_at; its pages are touched only when needed
  std::vector<uint32_t> buckets_;    // open addressing: an index into places_, or kNone
};

}  // namespace terrace
