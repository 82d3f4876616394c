#pragma once

// Least recently used: the yardstick.  A chunk is worth the inverse of its age, so that the worth
// of a segment is dominated by its most recent chunks; size does not count, nor what happened
// before the last use.
//
// Threads: belongs to one shard.  Every call runs to completion and does no I/O.

#include <cstdint>
#include <string_view>

#include "storage/policy/handle_table.h"
#include "storage/policy/policy.h"

namespace terrace {

class LruPolicy final : public Policy {
 public:
  PolicyHandle Insert(uint64_t key_hash, uint32_t bytes) override;
  void Touch(PolicyHandle chunk) override;
  void Remove(PolicyHandle chunk, Departure why) override;
  double Worth(PolicyHandle chunk) const override;
  uint32_t ReuseClass(PolicyHandle) const override { return 0; }
  uint32_t ReuseClassOfAbsent(uint64_t) const override { return 0; }
  std::string_view name() const override { return "lru"; }

 private:
  // Inserted bytes, and one more each use: of two chunks the later used is always the younger.
  uint64_t clock_ = 0;
  HandleTable<uint64_t> used_at_;
};

}  // namespace terrace
