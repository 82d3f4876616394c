#include "storage/policy/ghosts.h"

#include <bit>

#include "storage/base/check.h"

namespace terrace {

Ghosts::Ghosts(uint32_t ghost_count_max)
    : capacity_(ghost_count_max),
      mask_(std::bit_ceil(ghost_count_max + ghost_count_max / 2) - 1),
      places_(std::make_unique_for_overwrite<Ghost[]>(ghost_count_max)),
      buckets_(static_cast<size_t>(mask_) + 1, kNone) {
  TERRACE_CHECK(ghost_count_max >= 1 && ghost_count_max <= (1u << 30));
}

uint32_t Ghosts::BucketOf(uint64_t key_hash) const {
  // A multiplication, so that a caller's weak hash cannot pile up in one run.
  return static_cast<uint32_t>((key_hash * 0x9E3779B97F4A7C15ull) >> 32) & mask_;
}

uint32_t Ghosts::FindBucket(uint64_t key_hash) const {
  for (uint32_t bucket = BucketOf(key_hash);; bucket = (bucket + 1) & mask_) {
    const uint32_t place = buckets_[bucket];
    if (place == kNone || places_[place].key_hash == key_hash) return bucket;
  }
}

void Ghosts::EraseBucket(uint32_t bucket) {
  // Moves back what probed past the hole, so that a search can still end at the first empty one.
  uint32_t hole = bucket;
  for (uint32_t next = (hole + 1) & mask_; buckets_[next] != kNone; next = (next + 1) & mask_) {
    const uint32_t home = BucketOf(places_[buckets_[next]].key_hash);
    if (((next - home) & mask_) < ((next - hole) & mask_)) continue;
    buckets_[hole] = buckets_[next];
    hole = next;
  }
  buckets_[hole] = kNone;
}

void Ghosts::Add(const Ghost& ghost) {
  TERRACE_CHECK(!full());
  const uint32_t bucket = FindBucket(ghost.key_hash);
  TERRACE_CHECK(buckets_[bucket] == kNone);
  const auto place = static_cast<uint32_t>(tail_ % capacity_);
  places_[place] = ghost;
  buckets_[bucket] = place;
  ++tail_;
  ++count_;
}

std::optional<Ghost> Ghosts::Take(uint64_t key_hash) {
  const uint32_t bucket = FindBucket(key_hash);
  const uint32_t place = buckets_[bucket];
  if (place == kNone) return std::nullopt;
  EraseBucket(bucket);
  const Ghost ghost = places_[place];
  places_[place].use_class = kTaken;
  --count_;
  while (head_ != tail_ && places_[head_ % capacity_].use_class == kTaken) ++head_;
  return ghost;
}

const Ghost* Ghosts::Find(uint64_t key_hash) const {
  const uint32_t place = buckets_[FindBucket(key_hash)];
  return place == kNone ? nullptr : &places_[place];
}

const Ghost* Ghosts::Oldest() const { return count_ == 0 ? nullptr : &places_[head_ % capacity_]; }

}  // namespace terrace
