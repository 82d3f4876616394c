#pragma once

// XXH3-64 of a leaf (default secret, seed 0, more than 240 bytes) with an optional streamed copy,
// written once over a CPU's 64-byte stripe.  Only the copy_hash_<isa>.cc files include this: each
// is compiled for its own instruction set, so all of it has internal linkage, and none of it may
// pull in inline functions of libraries that other files share.
//
// `Isa` gives: Stripe (64 bytes in registers), Load, Stream, Accumulate, Scramble, Spill.
//
// Threads: pure functions.

#include <immintrin.h>
#include <xxhash.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "proto/shm/record_layout.h"

namespace terrace::copy_hash {
namespace {

// The constants of the XXH3 specification.
constexpr uint64_t kPrime32x1 = 0x9E3779B1;
constexpr uint64_t kPrime32x2 = 0x85EBCA77;
constexpr uint64_t kPrime32x3 = 0xC2B2AE3D;
constexpr uint64_t kPrime64x1 = 0x9E3779B185EBCA87;
constexpr uint64_t kPrime64x2 = 0xC2B2AE3D27D4EB4F;
constexpr uint64_t kPrime64x3 = 0x165667B19E3779F9;
constexpr uint64_t kPrime64x4 = 0x85EBCA77C2B2AE63;
constexpr uint64_t kPrime64x5 = 0x27D4EB2F165667C5;
constexpr uint64_t kAvalanche = 0x165667919E3779F9;

alignas(64) constexpr uint64_t kInitialLanes[8] = {kPrime32x3, kPrime64x1, kPrime64x2, kPrime64x3,
                                                   kPrime64x4, kPrime32x2, kPrime64x5, kPrime32x1};

// The default secret, as little-endian words.
alignas(64) constexpr uint64_t kSecretWords[24] = {
    0xbe4ba423396cfeb8, 0x1cad21f72c81017c, 0xdb979083e96dd4de, 0x1f67b3b7a4a44072,
    0x78e5c0cc4ee679cb, 0x2172ffcc7dd05a82, 0x8e2443f7744608b8, 0x4c263a81e69035e0,
    0xcb00c391bb52283c, 0xa32e531b8b65d088, 0x4ef90da297486471, 0xd8acdea946ef1938,
    0x3f349ce33f76faa8, 0x1d4f0bc7c7bbdcf9, 0x3159b4cd4be0518a, 0x647378d9c97e9fc8,
    0xc3ebd33483acc5ea, 0xeb6313faffa081c5, 0x49daf0b751dd0d17, 0x9e68d429265516d3,
    0xfca1477d58be162b, 0xce31d07ad1b8f88f, 0x280416958f3acb45, 0x7e404bbbcafbd7af};

constexpr size_t kStripeBytes = 64;
constexpr size_t kStripesPerBlock = 16;
constexpr size_t kBlockBytes = kStripeBytes * kStripesPerBlock;
constexpr size_t kSecretBytes = sizeof(kSecretWords);
constexpr size_t kSecretStep = 8;
constexpr size_t kScrambleSecretAt = kSecretBytes - kStripeBytes;
constexpr size_t kLastSecretAt = kSecretBytes - kStripeBytes - 7;
constexpr size_t kMergeSecretAt = 11;
constexpr size_t kShortBytesMax = 240;  // up to here XXH3 uses other formulas: libxxhash's

constexpr size_t kInterleave = 4;
// Measured: one stream wants its prefetch 1.5 to 2 KiB ahead (0.97 of a bare streamed copy; none
// at all: 0.79), four streams 512 bytes each.
constexpr size_t kPrefetchAhead = 1536;
constexpr size_t kPrefetchAheadInterleaved = 512;

inline const uint8_t* Secret() { return reinterpret_cast<const uint8_t*>(kSecretWords); }

// May reach past the source: a prefetch never faults.
inline void Prefetch(const uint8_t* at) {
  _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T0);
}

inline uint64_t MultiplyFold(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

inline uint64_t Merge(const uint64_t lanes[8], size_t bytes) {
  uint64_t hash = static_cast<uint64_t>(bytes) * kPrime64x1;
  for (size_t i = 0; i < 4; ++i) {
    uint64_t secret[2];
    std::memcpy(secret, Secret() + kMergeSecretAt + 16 * i, sizeof(secret));
    hash += MultiplyFold(lanes[2 * i] ^ secret[0], lanes[2 * i + 1] ^ secret[1]);
  }
  hash ^= hash >> 37;
  hash *= kAvalanche;
  return hash ^ (hash >> 32);
}

template <typename Isa, bool kCopy>
inline __attribute__((always_inline)) void TakeStripe(typename Isa::Stripe& lanes, uint8_t* to,
                                                      const uint8_t* from, size_t secret_at) {
  const typename Isa::Stripe data = Isa::Load(from);
  if constexpr (kCopy) Isa::Stream(to, data);
  lanes = Isa::Accumulate(lanes, data, Secret() + secret_at);
}

// What follows the last whole block: stripes, then the last 64 bytes, which may overlap them.
// REQUIRES: `done` is a multiple of kBlockBytes and less than `bytes`.
template <typename Isa, bool kCopy, size_t kAhead>
inline uint64_t FinishLeaf(typename Isa::Stripe lanes, uint8_t* to, const uint8_t* from,
                           size_t bytes, size_t done) {
  const size_t stripes = (bytes - 1 - done) / kStripeBytes;
  for (size_t i = 0; i < stripes; ++i, done += kStripeBytes) {
    Prefetch(from + done + kAhead);  // the next leaf's
    TakeStripe<Isa, kCopy>(lanes, to + done, from + done, i * kSecretStep);
  }
  if constexpr (kCopy) std::memcpy(to + done, from + done, bytes - done);
  lanes = Isa::Accumulate(lanes, Isa::Load(from + bytes - kStripeBytes), Secret() + kLastSecretAt);
  alignas(64) uint64_t words[8];
  Isa::Spill(words, lanes);
  return Merge(words, bytes);
}

// REQUIRES: bytes > kShortBytesMax.
template <typename Isa, bool kCopy>
inline uint64_t OneLeaf(uint8_t* to, const uint8_t* from, size_t bytes) {
  typename Isa::Stripe lanes = Isa::Load(reinterpret_cast<const uint8_t*>(kInitialLanes));
  size_t done = 0;
  for (; done + kBlockBytes < bytes; done += kBlockBytes) {
#pragma GCC unroll 16
    for (size_t i = 0; i < kStripesPerBlock; ++i) {
      const size_t at = done + i * kStripeBytes;
      Prefetch(from + at + kPrefetchAhead);
      TakeStripe<Isa, kCopy>(lanes, to + at, from + at, i * kSecretStep);
    }
    lanes = Isa::Scramble(lanes, Secret() + kScrambleSecretAt);
  }
  return FinishLeaf<Isa, kCopy, kPrefetchAhead>(lanes, to, from, bytes, done);
}

// Four whole leaves at once: four streams keep more of the memory's banks busy.
template <typename Isa, bool kCopy>
inline void FourLeaves(uint8_t* to, const uint8_t* from, uint64_t* leaves) {
  typename Isa::Stripe lanes[kInterleave];
  for (auto& lane : lanes) lane = Isa::Load(reinterpret_cast<const uint8_t*>(kInitialLanes));
  size_t done = 0;
  for (; done + kBlockBytes < shm::kLeafBytes; done += kBlockBytes) {
#pragma GCC unroll 8
    for (size_t i = 0; i < kStripesPerBlock; i += 2) {
#pragma GCC unroll 4
      for (size_t leaf = 0; leaf < kInterleave; ++leaf) {
        const size_t at = leaf * shm::kLeafBytes + done + i * kStripeBytes;
        Prefetch(from + at + kPrefetchAheadInterleaved);
        Prefetch(from + at + kPrefetchAheadInterleaved + kStripeBytes);
        TakeStripe<Isa, kCopy>(lanes[leaf], to + at, from + at, i * kSecretStep);
        TakeStripe<Isa, kCopy>(lanes[leaf], to + at + kStripeBytes, from + at + kStripeBytes,
                               (i + 1) * kSecretStep);
      }
    }
    for (auto& lane : lanes) lane = Isa::Scramble(lane, Secret() + kScrambleSecretAt);
  }
  for (size_t leaf = 0; leaf < kInterleave; ++leaf) {
    const size_t at = leaf * shm::kLeafBytes;
    leaves[leaf] = FinishLeaf<Isa, kCopy, kPrefetchAheadInterleaved>(
        lanes[leaf], to + at, from + at, shm::kLeafBytes, done);
  }
}

template <typename Isa, bool kCopy, bool kInterleaved>
inline void AllLeaves(uint8_t* to, const uint8_t* from, size_t bytes, uint64_t* leaves) {
  size_t at = 0;
  if constexpr (kInterleaved) {
    constexpr size_t kGroupBytes = kInterleave * shm::kLeafBytes;
    for (; bytes - at >= kGroupBytes; at += kGroupBytes, leaves += kInterleave) {
      FourLeaves<Isa, kCopy>(to + at, from + at, leaves);
    }
  }
  while (at < bytes) {
    const size_t left = bytes - at;
    const size_t leaf_bytes = left < shm::kLeafBytes ? left : shm::kLeafBytes;
    if (leaf_bytes > kShortBytesMax) {
      *leaves++ = OneLeaf<Isa, kCopy>(to + at, from + at, leaf_bytes);
    } else {
      if constexpr (kCopy) std::memcpy(to + at, from + at, leaf_bytes);
      *leaves++ = XXH3_64bits(from + at, leaf_bytes);
    }
    at += leaf_bytes;
  }
  if constexpr (kCopy) _mm_sfence();
}

// Four pages interleaved, or one stream.
template <typename Isa, bool kInterleaved>
inline void StreamCopy(uint8_t* to, const uint8_t* from, size_t bytes) {
  constexpr size_t kPage = 4096;
  constexpr size_t kStreams = kInterleaved ? kInterleave : 1;
  constexpr size_t kAhead = kInterleaved ? kPrefetchAheadInterleaved : kPrefetchAhead;
  size_t done = 0;
  for (; bytes - done >= kStreams * kPage; done += kStreams * kPage) {
    for (size_t i = 0; i < kPage; i += 2 * kStripeBytes) {
      for (size_t stream = 0; stream < kStreams; ++stream) {
        const size_t at = done + stream * kPage + i;
        Prefetch(from + at + kAhead);
        Prefetch(from + at + kAhead + kStripeBytes);
        const typename Isa::Stripe low = Isa::Load(from + at);
        const typename Isa::Stripe high = Isa::Load(from + at + kStripeBytes);
        Isa::Stream(to + at, low);
        Isa::Stream(to + at + kStripeBytes, high);
      }
    }
  }
  for (; bytes - done >= kStripeBytes; done += kStripeBytes) {
    Isa::Stream(to + done, Isa::Load(from + done));
  }
  if (done < bytes) std::memcpy(to + done, from + done, bytes - done);
  _mm_sfence();
}

template <typename Isa, bool kInterleaved>
struct Kernel {
  static void CopyAndHash(void* to, const void* from, size_t bytes, uint64_t* leaves) {
    AllLeaves<Isa, true, kInterleaved>(static_cast<uint8_t*>(to), static_cast<const uint8_t*>(from),
                                       bytes, leaves);
  }
  // One stream: interleaving only costs when nothing is stored.  The source stands in for the
  // destination, which is never touched but has offsets added to it.
  static void HashLeaves(const void* from, size_t bytes, uint64_t* leaves) {
    const uint8_t* const source = static_cast<const uint8_t*>(from);
    AllLeaves<Isa, false, false>(const_cast<uint8_t*>(source), source, bytes, leaves);
  }
  static void Copy(void* to, const void* from, size_t bytes) {
    StreamCopy<Isa, kInterleaved>(static_cast<uint8_t*>(to), static_cast<const uint8_t*>(from),
                                  bytes);
  }
};

}  // namespace
}  // namespace terrace::copy_hash
