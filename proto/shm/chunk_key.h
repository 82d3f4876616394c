#pragma once

// The name of a chunk inside a namespace: up to 32 bytes that the engine chose, compared with
// their length, and a part (rank + ranks x KV group).  A longer key is SHA-256'd by the client and
// carries length 33, so that it can never equal a 32-byte key of the same bytes.
//
// Threads: a value.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace terrace::shm {

inline constexpr size_t kKeyBytes = 32;
inline constexpr uint8_t kKeyLengthHashed = 33;

struct ChunkKey {
  std::array<uint64_t, 4> words{};  // the bytes in memory order, zero-padded
  uint16_t part = 0;
  uint8_t length = 0;  // 1..32, or kKeyLengthHashed

  // REQUIRES: 1 <= length <= 32.
  static ChunkKey FromBytes(const void* bytes, size_t length, uint16_t part) {
    ChunkKey key;
    std::memcpy(key.words.data(), bytes, length);
    key.length = static_cast<uint8_t>(length);
    key.part = part;
    return key;
  }

  bool valid() const { return length >= 1 && length <= kKeyLengthHashed; }

  // Keys that a client wrote need this too: two that differ behind their length would be shown
  // alike and never found alike.
  bool zero_padded() const {
    for (size_t at = byte_count(); at < kKeyBytes; ++at) {
      if (bytes()[at] != 0) return false;
    }
    return true;
  }

  const uint8_t* bytes() const { return reinterpret_cast<const uint8_t*>(words.data()); }
  size_t byte_count() const { return length > kKeyBytes ? kKeyBytes : length; }

  friend bool operator==(const ChunkKey&, const ChunkKey&) = default;
};

}  // namespace terrace::shm
