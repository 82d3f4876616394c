#pragma once

// Every bound of Terrace that is not a setting, and how they relate.  Who hits one is refused
// with kBusy (come again) or kInvalid (never will fit), naming the limit.

#include <cstddef>
#include <cstdint>

#include "proto/shm/index_layout.h"
#include "proto/shm/record_layout.h"
#include "proto/shm/session_layout.h"

namespace terrace {

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;

inline constexpr uint64_t kPageBytes = 4 * kKiB;      // alignment of records
inline constexpr uint64_t kHugePageBytes = 2 * kMiB;  // alignment of segments

// Payloads.
inline constexpr uint32_t kChunkBytesMin = 4 * kKiB;
inline constexpr uint32_t kChunkBytesMax = shm::kPayloadBytesMax;

// Segments.
using shm::kSegmentCountMax;  // 12 bits of a slot's location
inline constexpr uint64_t kSegmentBytesMin = 2 * kMiB;
inline constexpr uint64_t kSegmentBytesMax = 1 * kGiB;  // 18 bits of 4 KiB units
static_assert(kSegmentBytesMax / kPageBytes <= (1ull << 18));

// Reuse classes of chunks (0, 1, 2+ uses before), each with an open segment of its own.
inline constexpr uint32_t kReuseClassCount = 3;

// Sessions and their rings.
inline constexpr uint32_t kSessionCountMax = 256;
using shm::kBatchKeysMax;  // keys a request
using shm::kPinCount;      // pin words a session
using shm::kRequestCount;  // requests in flight a session
using shm::kTouchCount;    // touch words a session
static_assert(kPinCount >= kBatchKeysMax);

// Live namespaces a tenant: each needs a live word.
inline constexpr uint32_t kNamespaceCountMax = shm::kLiveWordCount;

// Claims in flight a session: what its requests can name at once.
inline constexpr uint32_t kClaimCountMax = kRequestCount * kBatchKeysMax;

// Control plane.
inline constexpr uint64_t kMessagePayloadBytesMax = 32 * kMiB;
inline constexpr uint64_t kConnectionPayloadBytesMax = 64 * kMiB;
inline constexpr uint32_t kDescriptorsPerMessageMax = 128;
static_assert(kMessagePayloadBytesMax >= kChunkBytesMax);

// Waits.
inline constexpr int64_t kPutDeadlineNsDefault = 30'000'000'000;
inline constexpr int64_t kRequestDeadlineNsMax = 600'000'000'000;

}  // namespace terrace
