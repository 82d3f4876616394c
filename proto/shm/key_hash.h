#pragma once

// The hash that gives a key its home in a tenant's index, and its name towards the policy.
//
// Threads: pure.

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstdint>
#include <cstring>

#include "proto/shm/chunk_key.h"

namespace terrace::shm {

// XXH3-64 of {key words, namespace id, part, length} under the tenant's seed: who does not know
// the seed cannot aim at one home.
inline uint64_t KeyHash(const ChunkKey& key, uint32_t namespace_id, uint64_t seed) {
  uint64_t packed[5];
  std::memcpy(packed, key.words.data(), kKeyBytes);
  packed[4] = uint64_t{namespace_id} | (uint64_t{key.part} << 32) | (uint64_t{key.length} << 48);
  return XXH3_64bits_withSeed(packed, sizeof packed, seed);
}

}  // namespace terrace::shm
