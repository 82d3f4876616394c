#pragma once

// What a ChunkStore remembers of a session.
//
// Threads: belongs to one shard.

#include <atomic>
#include <cstdint>

#include "storage/engine/chunk_store.h"

namespace terrace {

struct ChunkStore::SessionEntry {
  SessionId id = 0;
  SessionOptions options;
  std::atomic<uint64_t>* pins = nullptr;
  uint32_t pin_count = 0;
  bool closed = false;
  int64_t buried_at_ns = 0;  // dead: when the grace ends; 0 while alive
  uint64_t stranded_bytes = 0;
};

// A segment that nobody appended to for so long is taken back from its writer.
inline constexpr int64_t kTailIdleNs = 10'000'000'000;

// Owners of open segments that are no client session.
inline constexpr uint64_t kSurvivorsOwner = 0;
inline constexpr uint64_t kTrustedOwner = ~uint64_t{0};

}  // namespace terrace
