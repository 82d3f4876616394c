#include "tests/storage/policy/block_replay.h"

#include <utility>

namespace terrace {

uint64_t ReplayKeyHash(uint64_t block) {
  uint64_t hash = block + 0x9E3779B97F4A7C15ull;
  hash = (hash ^ (hash >> 30)) * 0xBF58476D1CE4E5B9ull;
  hash = (hash ^ (hash >> 27)) * 0x94D049BB133111EBull;
  return hash ^ (hash >> 31);
}

BlockReplay::BlockReplay(Policy& policy, uint64_t capacity_blocks, uint32_t group_count,
                         GroupOf group_of)
    : policy_(policy),
      capacity_blocks_(capacity_blocks),
      group_of_(std::move(group_of)),
      groups_(group_count) {}

void BlockReplay::Replay(const Trace& trace) {
  for (const Request& request : trace) {
    size_t hits = 0;
    while (hits < request.size() && blocks_.contains(request[hits])) ++hits;
    counts_.references += request.size();
    counts_.prefix_hits += hits;
    for (size_t i = request.size(); i-- > 0;) Use(request[i]);
  }
}

void BlockReplay::Use(uint64_t block) {
  const auto found = blocks_.find(block);
  if (found == blocks_.end()) {
    if (blocks_.size() == capacity_blocks_) EvictOne();
    const PolicyHandle handle = policy_.Insert(ReplayKeyHash(block), kReplayBlockBytes);
    const uint32_t group = group_of_(handle);
    const auto place = groups_[group].insert(groups_[group].end(), block);
    blocks_.emplace(block, Block{.handle = handle, .group = group, .place = place});
    return;
  }
  Block& used = found->second;
  policy_.Touch(used.handle);
  const uint32_t group = group_of_(used.handle);
  groups_[group].splice(groups_[group].end(), groups_[used.group], used.place);
  used.group = group;
}

void BlockReplay::EvictOne() {
  std::list<uint64_t>* cheapest = nullptr;
  double worth_min = 0;
  for (std::list<uint64_t>& group : groups_) {
    if (group.empty()) continue;
    const double worth = policy_.Worth(blocks_.at(group.front()).handle);
    if (cheapest != nullptr && worth >= worth_min) continue;
    cheapest = &group;
    worth_min = worth;
  }
  const uint64_t victim = cheapest->front();
  policy_.Remove(blocks_.at(victim).handle, Departure::kEvicted);
  cheapest->pop_front();
  blocks_.erase(victim);
}

}  // namespace terrace
