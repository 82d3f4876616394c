#pragma once

// Moves payloads into segments past the caches, and hashes them on the way: the bytes are loaded
// once, streamed to the destination and folded into the XXH3-64 of their 64 KiB leaf from the same
// registers.  Every variant gives the same bytes and hashes as memcpy and libxxhash; the fastest
// that the CPU has is chosen at the first call.
//
// Streamed stores are fenced before a call returns: a release store that publishes the bytes
// suffices afterwards.  A source that changes during the call gives leaves that match nothing.
//
// Threads: safe from any thread; nothing is shared.

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace terrace {

// Copies `bytes` and writes LeafCount(bytes) hashes to `leaves`; the last leaf may be short.
// REQUIRES: bytes >= 1; destination 64-byte aligned (source need not be); no overlap.
void CopyAndHash(void* destination, const void* source, size_t bytes, uint64_t* leaves);

// The leaves alone.  REQUIRES: bytes >= 1.
void HashLeaves(const void* source, size_t bytes, uint64_t* leaves);

// The copy alone.  REQUIRES: destination 64-byte aligned; no overlap.
void NonTemporalCopy(void* destination, const void* source, size_t bytes);

// The name of the variant in use, for logs and status: "avx512", "avx512-interleaved", "avx2" or
// "portable".
std::string_view CopyHashVariant();

}  // namespace terrace
