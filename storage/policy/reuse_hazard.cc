#include "storage/policy/reuse_hazard.h"

#include <algorithm>

namespace terrace {
namespace {

// None of the three is sensitive.  A class leans on all classes by as much as 20 sightings weigh;
// all classes lean on the flat start by one; a refit forgets a tenth.
constexpr double kClassPseudoCount = 20;
constexpr double kStartPseudoCount = 1;
constexpr double kDecay = 0.9;

// The chance of use in each half octave while nothing is known.
constexpr double kStartHazard = 0.01;

}  // namespace

ReuseHazard::ReuseHazard() {
  Hazard start;
  start.fill(kStartHazard);
  index_.fill(IndexOf(start));
}

ReuseHazard::Hazard ReuseHazard::Estimate(const Counts& counts, const Hazard& prior,
                                          double pseudo_count) {
  Hazard hazard;
  double older = 0;  // who outlived the bucket
  for (uint32_t bucket = kAgeBucketCount; bucket-- > 0;) {
    const double used = counts.used[bucket];
    const double censored = counts.censored[bucket];
    // Who was censored in the bucket was at risk for half of it.
    const double at_risk = older + used + censored / 2;
    hazard[bucket] = (used + pseudo_count * prior[bucket]) / (at_risk + pseudo_count);
    older += used + censored;
  }
  return hazard;
}

ReuseHazard::Hazard ReuseHazard::IndexOf(const Hazard& hazard) {
  Hazard index{};
  for (uint32_t from = 0; from < kAgeBucketCount; ++from) {
    double survival = 1;
    double used = 0;
    double kept = 0;
    for (uint32_t bucket = from; bucket < kAgeBucketCount; ++bucket) {
      const auto width = static_cast<double>(AgeBucketStart(bucket + 1) - AgeBucketStart(bucket));
      used += survival * hazard[bucket];
      kept += survival * width * (1 - hazard[bucket] / 2);
      survival *= 1 - hazard[bucket];
      index[from] = std::max(index[from], used / kept);
    }
  }
  return index;
}

void ReuseHazard::Refit(const AgeCensus::Histogram& in_sight) {
  std::array<Counts, kUseClassCount> classes;
  Counts all;
  for (uint32_t c = 0; c < kUseClassCount; ++c) {
    for (uint32_t bucket = 0; bucket < kAgeBucketCount; ++bucket) {
      classes[c].used[bucket] = used_[c][bucket];
      classes[c].censored[bucket] = lost_[c][bucket] + in_sight[c][bucket];
      all.used[bucket] += classes[c].used[bucket];
      all.censored[bucket] += classes[c].censored[bucket];
      used_[c][bucket] *= kDecay;
      lost_[c][bucket] *= kDecay;
    }
  }
  Hazard start;
  start.fill(kStartHazard);
  const Hazard of_all = Estimate(all, start, kStartPseudoCount);
  for (uint32_t c = 0; c < kUseClassCount; ++c) {
    index_[c] = IndexOf(Estimate(classes[c], of_all, kClassPseudoCount));
  }
}

}  // namespace terrace
