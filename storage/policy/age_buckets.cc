#include "storage/policy/age_buckets.h"

#include <algorithm>
#include <bit>

#include "storage/base/check.h"

namespace terrace {
namespace {

// 2^12 = 4 KiB, the smallest chunk: no two uses can lie closer with a chunk put in between.
constexpr uint32_t kFirstOctave = 12;

}  // namespace

uint32_t AgeBucketOf(uint64_t age_bytes) {
  const auto width = static_cast<uint32_t>(std::bit_width(age_bytes));
  if (width <= kFirstOctave) return 0;
  const uint32_t octave = width - 1 - kFirstOctave;
  const auto half = static_cast<uint32_t>((age_bytes >> (width - 2)) & 1);
  return std::min(1 + 2 * octave + half, kAgeBucketCount - 1);
}

uint64_t AgeBucketStart(uint32_t bucket) {
  TERRACE_CHECK(bucket <= kAgeBucketCount);
  if (bucket == 0) return 0;
  const uint32_t octave = (bucket - 1) / 2;
  const uint64_t half = (bucket - 1) % 2;
  return (2 + half) << (kFirstOctave - 1 + octave);
}

}  // namespace terrace
