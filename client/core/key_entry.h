#pragma once

// The entries of a request block.
//
// Threads: pure.

#include <algorithm>
#include <iterator>

#include "proto/shm/session_layout.h"

namespace terrace {

inline shm::KeyEntry EntryOf(const shm::ChunkKey& key) {
  shm::KeyEntry entry{};
  std::copy(key.words.begin(), key.words.end(), std::begin(entry.key));
  entry.part = key.part;
  entry.key_length = key.length;
  return entry;
}

inline shm::KeyEntry EntryOfClaim(uint64_t claim) {
  shm::KeyEntry entry{};
  entry.claim = claim;
  return entry;
}

}  // namespace terrace
