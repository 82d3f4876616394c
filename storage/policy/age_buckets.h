#pragma once

// Ages since the last use, in inserted bytes, cut into half octaves: bucket 0 is what is younger
// than 4 KiB, then 4, 6, 8, 12, 16, 24, ... KiB; the last one has no end.
//
// Threads: pure functions.

#include <cstdint>

namespace terrace {

// Up to 96 TiB inserted since the last use: beyond that, old is old.
inline constexpr uint32_t kAgeBucketCount = 70;

uint32_t AgeBucketOf(uint64_t age_bytes);

// The youngest age of the bucket.  REQUIRES: bucket <= kAgeBucketCount (the end of the last one).
uint64_t AgeBucketStart(uint32_t bucket);

}  // namespace terrace
