#pragma once

// A cache of unit blocks that evicts one at a time, to measure a policy without segments: the
// victim is, of each group's oldest block, the one worth least.  A request's hits count up to its
// first miss; then every block of it is used or inserted, last block first.
//
// Threads: values of one owner.

#include <cstdint>
#include <functional>
#include <list>
#include <unordered_map>
#include <vector>

#include "storage/policy/policy.h"
#include "tests/storage/policy/replay_trace.h"

namespace terrace {

// The room of every block of a replay: 64 KiB and a record's header.
inline constexpr uint32_t kReplayBlockBytes = 68 * 1024;

// A block's key hash: ids that stand together must not look alike.
uint64_t ReplayKeyHash(uint64_t block);

struct ReplayCounts {
  uint64_t references = 0;
  uint64_t prefix_hits = 0;

  double prefix_hit_ratio() const {
    return static_cast<double>(prefix_hits) / static_cast<double>(references);
  }
};

class BlockReplay {
 public:
  // The group of a block whose oldest member is worth least in it, below `group_count`.
  using GroupOf = std::function<uint32_t(PolicyHandle)>;

  BlockReplay(Policy& policy, uint64_t capacity_blocks, uint32_t group_count, GroupOf group_of);

  void Replay(const Trace& trace);

  const ReplayCounts& counts() const { return counts_; }

 private:
  struct Block {
    PolicyHandle handle;
    uint32_t group;
    std::list<uint64_t>::iterator place;
  };

  void Use(uint64_t block);
  void EvictOne();

  Policy& policy_;
  const uint64_t capacity_blocks_;
  const GroupOf group_of_;

  std::vector<std::list<uint64_t>> groups_;  // oldest first
  std::unordered_map<uint64_t, Block> blocks_;
  ReplayCounts counts_;
};

}  // namespace terrace
