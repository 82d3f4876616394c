#pragma once

// The default policy: a chunk is worth its Gittins index (reuse_hazard.h) for each byte of its
// room.  Its class is the number of times it was used; what happens to chunks, and to the ghosts
// of those that were evicted, teaches the hazards.
//
// Uses between which nothing was inserted are one use: no decision could fall between them, and a
// client that touches a chunk once a layer does not make it a classic.
//
// Memory: 32 bytes a chunk; ghosts for 12 capacities of insertions after they left, in at most
// 1/128 of the capacity (and 4 M of them); 0.1 MiB of tables.  A refit, every 1/2 capacity of
// inserted bytes, costs the same for any number of chunks (about 0.1 ms).
//
// Threads: belongs to one shard.  Every call runs to completion and does no I/O.

#include <cstdint>
#include <string_view>

#include "storage/policy/age_census.h"
#include "storage/policy/ghosts.h"
#include "storage/policy/handle_table.h"
#include "storage/policy/policy.h"
#include "storage/policy/reuse_hazard.h"

namespace terrace {

class GittinsPolicy final : public Policy {
 public:
  // REQUIRES: capacity_bytes > 0.
  explicit GittinsPolicy(uint64_t capacity_bytes);

  PolicyHandle Insert(uint64_t key_hash, uint32_t bytes) override;
  void Touch(PolicyHandle chunk) override;
  void Remove(PolicyHandle chunk, Departure why) override;
  double Worth(PolicyHandle chunk) const override;
  uint32_t ReuseClass(PolicyHandle chunk) const override;
  uint32_t ReuseClassOfAbsent(uint64_t key_hash) const override;
  std::string_view name() const override { return "gittins"; }

  // Times used, up to kUseClassCount - 1.  Within one use class the oldest is worth least.
  uint32_t UseClass(PolicyHandle chunk) const { return chunks_.At(chunk).use_class; }

  uint32_t ghost_count() const { return ghosts_.count(); }

 private:
  struct Chunk {
    uint64_t key_hash;
    uint64_t used_at;  // the clock at the last use, or at the insertion
    uint32_t bytes;
    uint32_t use_class;
  };

  uint64_t AgeOf(uint64_t used_at) const;
  void AdvanceClock(uint32_t bytes);
  void Remember(const Chunk& chunk);
  void Forget(const Ghost& ghost);
  void ForgetOldGhosts();

  // Constant after construction.
  const uint64_t ghost_bytes_;
  const uint64_t refit_bytes_;

  uint64_t clock_ = 0;  // inserted bytes
  uint64_t refit_at_;
  HandleTable<Chunk> chunks_;
  Ghosts ghosts_;
  AgeCensus in_sight_;  // chunks and ghosts
  ReuseHazard hazard_;
};

}  // namespace terrace
