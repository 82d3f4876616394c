#include "storage/policy/age_census.h"

#include <algorithm>

#include "storage/base/check.h"

namespace terrace {

AgeCensus::AgeCensus(uint64_t capacity_bytes)
    : slice_bytes_(std::max<uint64_t>(1, capacity_bytes / kSlicesPerCapacity)),
      slices_(kSliceCount) {}

AgeCensus::Counts& AgeCensus::CountsOf(uint64_t used_at) {
  const uint64_t slice = used_at / slice_bytes_;
  TERRACE_CHECK(slice <= newest_);
  if (newest_ - slice >= kSliceCount) return older_;
  return slices_[slice % kSliceCount];
}

void AgeCensus::AdvanceTo(uint64_t clock) {
  const uint64_t newest = clock / slice_bytes_;
  while (newest_ < newest) {
    ++newest_;
    Counts& oldest = slices_[newest_ % kSliceCount];
    for (uint32_t c = 0; c < kUseClassCount; ++c) older_[c] += oldest[c];
    oldest = Counts{};
  }
}

void AgeCensus::Add(uint32_t use_class, uint64_t used_at) { ++CountsOf(used_at)[use_class]; }

void AgeCensus::Take(uint32_t use_class, uint64_t used_at) {
  uint32_t& count = CountsOf(used_at)[use_class];
  TERRACE_CHECK(count > 0);
  --count;
}

AgeCensus::Histogram AgeCensus::AgesAt(uint64_t clock) const {
  Histogram ages{};
  const uint64_t slice_count = std::min<uint64_t>(newest_ + 1, kSliceCount);
  for (uint64_t back = 0; back < slice_count; ++back) {
    const uint64_t slice = newest_ - back;
    const Counts& counts = slices_[slice % kSliceCount];
    const uint64_t start = slice * slice_bytes_;
    const uint64_t end = std::min(clock, start + slice_bytes_ - 1);  // the youngest member's use
    const uint64_t youngest = clock - end;
    const uint64_t oldest = clock - start;
    const double length = static_cast<double>(oldest - youngest + 1);
    for (uint32_t bucket = AgeBucketOf(youngest); bucket <= AgeBucketOf(oldest); ++bucket) {
      const uint64_t from = std::max(youngest, AgeBucketStart(bucket));
      const uint64_t to = bucket + 1 == kAgeBucketCount
                              ? oldest + 1
                              : std::min(oldest + 1, AgeBucketStart(bucket + 1));
      const double share = static_cast<double>(to - from) / length;
      for (uint32_t c = 0; c < kUseClassCount; ++c) ages[c][bucket] += share * counts[c];
    }
  }
  const uint32_t last = AgeBucketOf(age_bytes_max());
  for (uint32_t c = 0; c < kUseClassCount; ++c) ages[c][last] += older_[c];
  return ages;
}

}  // namespace terrace
