#pragma once

// What a policy is asked about chunks: how much each is worth keeping, and which of them belong
// together.  A policy answers and never acts: it knows nothing of segments, slots, pins or tiers.
//
// Time is counted in inserted bytes, the cache's own clock: indifferent to idle nights.
//
// Threads: a policy belongs to one shard.  Every call runs to completion and does no I/O.

#include <cstdint>
#include <memory>
#include <string_view>

#include "storage/base/result.h"

namespace terrace {

// A chunk as the policy knows it, from Insert to Remove.  Small integers, reused after Remove.
using PolicyHandle = uint32_t;

enum class Departure : uint8_t {
  kEvicted,  // room was needed: the key is remembered for a while (a ghost)
  kRemoved,  // somebody asked for it, or its namespace ended: forgotten
};

class Policy {
 public:
  virtual ~Policy() = default;

  // A chunk became ready.  Advances the clock by `bytes`.  `key_hash` is a 64-bit hash of
  // (namespace, key, part); a key whose ghost is remembered continues with its use count.
  virtual PolicyHandle Insert(uint64_t key_hash, uint32_t bytes) = 0;

  // The chunk was used.  Of one request's keys the last is touched first, so that a tail never
  // outlives its head.
  virtual void Touch(PolicyHandle chunk) = 0;

  // The chunk left.  The handle is dead afterwards.
  virtual void Remove(PolicyHandle chunk, Departure why) = 0;

  // The rate of hits a byte of room that keeping the chunk is expected to give, from now on.  Only
  // comparisons between answers of the same moment mean anything.
  virtual double Worth(PolicyHandle chunk) const = 0;

  // The group of chunks that live about as long: 0, 1 or 2 (limits.h: kReuseClassCount).
  virtual uint32_t ReuseClass(PolicyHandle chunk) const = 0;

  // The same for a key that is about to be put: 0 unless its ghost is remembered.
  virtual uint32_t ReuseClassOfAbsent(uint64_t key_hash) const = 0;

  virtual std::string_view name() const = 0;
};

// "gittins" (the default) or "lru".  kInvalid names the known ones.  `capacity_bytes` sizes the
// ghosts and the pace of learning.
Result<std::unique_ptr<Policy>> MakePolicy(std::string_view name, uint64_t capacity_bytes);

}  // namespace terrace
