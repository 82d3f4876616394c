#include "storage/policy/gittins_policy.h"

#include <algorithm>

#include "storage/base/check.h"
#include "storage/base/limits.h"

namespace terrace {
namespace {

// A cache of 1/200 of what is asked for sees few reuses: at 3 capacities it has far fewer prefix
// hits of a production trace than at 12; large caches do not care.
constexpr uint64_t kGhostCapacities = 12;
constexpr uint64_t kGhostRoomShare = 128;  // of the capacity, one part for ghosts
constexpr uint64_t kGhostCountMin = 1024;
constexpr uint64_t kGhostCountMax = 4u << 20;

// More often, and the decay forgets within a capacity or two.
constexpr uint64_t kRefitsPerCapacity = 2;

uint32_t GhostCountMax(uint64_t capacity_bytes) {
  const uint64_t wanted = kGhostCapacities * capacity_bytes / kChunkBytesMin + 1;
  const uint64_t affordable = capacity_bytes / kGhostRoomShare / Ghosts::kBytesMax;
  return static_cast<uint32_t>(
      std::clamp(std::min(wanted, affordable), kGhostCountMin, kGhostCountMax));
}

}  // namespace

GittinsPolicy::GittinsPolicy(uint64_t capacity_bytes)
    : ghost_bytes_(kGhostCapacities * capacity_bytes),
      refit_bytes_(std::max<uint64_t>(1, capacity_bytes / kRefitsPerCapacity)),
      refit_at_(refit_bytes_),
      ghosts_(GhostCountMax(capacity_bytes)),
      in_sight_(capacity_bytes) {
  TERRACE_CHECK(capacity_bytes > 0);
}

uint64_t GittinsPolicy::AgeOf(uint64_t used_at) const {
  return std::min(clock_ - used_at, in_sight_.age_bytes_max());
}

PolicyHandle GittinsPolicy::Insert(uint64_t key_hash, uint32_t bytes) {
  uint32_t use_class = 0;
  if (const std::optional<Ghost> ghost = ghosts_.Take(key_hash)) {
    hazard_.AddUse(ghost->use_class, AgeOf(ghost->used_at));
    in_sight_.Take(ghost->use_class, ghost->used_at);
    use_class = NextUseClass(ghost->use_class);
  }
  AdvanceClock(bytes);
  in_sight_.Add(use_class, clock_);
  return chunks_.Add(
      Chunk{.key_hash = key_hash, .used_at = clock_, .bytes = bytes, .use_class = use_class});
}

void GittinsPolicy::Touch(PolicyHandle chunk) {
  Chunk& used = chunks_.At(chunk);
  if (used.used_at == clock_) return;
  hazard_.AddUse(used.use_class, AgeOf(used.used_at));
  in_sight_.Take(used.use_class, used.used_at);
  used.use_class = NextUseClass(used.use_class);
  used.used_at = clock_;
  in_sight_.Add(used.use_class, clock_);
}

void GittinsPolicy::Remove(PolicyHandle chunk, Departure why) {
  const Chunk leaver = chunks_.At(chunk);
  chunks_.Release(chunk);
  switch (why) {
    case Departure::kEvicted: Remember(leaver); return;
    case Departure::kRemoved:
      hazard_.AddLost(leaver.use_class, AgeOf(leaver.used_at));
      in_sight_.Take(leaver.use_class, leaver.used_at);
      return;
  }
}

double GittinsPolicy::Worth(PolicyHandle chunk) const {
  const Chunk& asked = chunks_.At(chunk);
  return hazard_.Index(asked.use_class, AgeOf(asked.used_at)) / asked.bytes;
}

uint32_t GittinsPolicy::ReuseClass(PolicyHandle chunk) const {
  return ReuseClassOf(chunks_.At(chunk).use_class);
}

uint32_t GittinsPolicy::ReuseClassOfAbsent(uint64_t key_hash) const {
  const Ghost* ghost = ghosts_.Find(key_hash);
  return ghost == nullptr ? 0 : ReuseClassOf(NextUseClass(ghost->use_class));
}

void GittinsPolicy::AdvanceClock(uint32_t bytes) {
  clock_ += bytes;
  in_sight_.AdvanceTo(clock_);
  ForgetOldGhosts();
  if (clock_ < refit_at_) return;
  hazard_.Refit(in_sight_.AgesAt(clock_));
  refit_at_ = clock_ + refit_bytes_;
}

void GittinsPolicy::Remember(const Chunk& chunk) {
  // Two chunks may share a hash, by chance or by malice: the elder ghost yields.
  if (const std::optional<Ghost> elder = ghosts_.Take(chunk.key_hash)) Forget(*elder);
  while (ghosts_.full()) Forget(*ghosts_.Take(ghosts_.Oldest()->key_hash));
  ghosts_.Add(Ghost{.key_hash = chunk.key_hash,
                    .used_at = chunk.used_at,
                    .left_at = clock_,
                    .use_class = chunk.use_class});
}

// REQUIRES: the ghost was taken.
void GittinsPolicy::Forget(const Ghost& ghost) {
  hazard_.AddLost(ghost.use_class, AgeOf(ghost.used_at));
  in_sight_.Take(ghost.use_class, ghost.used_at);
}

void GittinsPolicy::ForgetOldGhosts() {
  for (const Ghost* oldest = ghosts_.Oldest();
       oldest != nullptr && clock_ - oldest->left_at > ghost_bytes_; oldest = ghosts_.Oldest()) {
    Forget(*ghosts_.Take(oldest->key_hash));
  }
}

}  // namespace terrace
