#pragma once

// Chunks that every process of a test can tell from their number: key and bytes.
//
// Threads: pure functions.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "client/core/client.h"

namespace terrace {

inline shm::ChunkKey Key(uint32_t number, uint16_t part = 0) {
  return shm::ChunkKey::FromBytes(&number, sizeof number, part);
}

// Bytes of no pattern, other ones for each number and for each place in them.
inline std::vector<std::byte> Payload(uint32_t number, size_t bytes) {
  std::vector<std::byte> payload(bytes);
  uint64_t state = number;
  for (size_t at = 0; at < bytes; at += sizeof state) {
    state = (state ^ (state >> 29)) * 0xbf58476d1ce4e5b9 + 0x9e3779b97f4a7c15;
    std::memcpy(payload.data() + at, &state, std::min(sizeof state, bytes - at));
  }
  return payload;
}

inline bool Equal(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
}

inline NamespaceIdentity Identity(const std::string& label = "test") {
  NamespaceIdentity identity;
  identity.label = label;
  identity.model = "model";
  return identity;
}

}  // namespace terrace
