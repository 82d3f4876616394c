#pragma once

// How likely a chunk is to be used next, by use class and age, learnt from what happened: a
// Kaplan-Meier estimate over age buckets, and the Gittins index that follows from it:
//
//     index(class, age) = max over tau of  P(used in (age, age + tau]) / E[time kept in it]
//
// the best rate of hits for the time that it will occupy its room.  It knows no chunks: only that
// one of a class was used at an age, was lost from sight at an age, or is of an age now.
//
// Before anything is learnt every half octave is as likely as the other, so young is better.
//
// Threads: values of one owner.

#include <array>
#include <cstdint>

#include "storage/policy/age_buckets.h"
#include "storage/policy/age_census.h"
#include "storage/policy/use_class.h"

namespace terrace {

class ReuseHazard {
 public:
  using Table = std::array<std::array<double, kAgeBucketCount>, kUseClassCount>;

  ReuseHazard();

  // One of the class was used again at this age (an event).
  void AddUse(uint32_t use_class, uint64_t age_bytes) {
    used_[use_class][AgeBucketOf(age_bytes)] += 1;
  }

  // One of the class was lost from sight at this age: whether it will be used is not known
  // (censored).
  void AddLost(uint32_t use_class, uint64_t age_bytes) {
    lost_[use_class][AgeBucketOf(age_bytes)] += 1;
  }

  // Learns from what was added, and from those still in sight, censored at their present age:
  // without them a large cache, which loses few, would see only the quick reuses.  Then lets the
  // past fade.
  void Refit(const AgeCensus::Histogram& in_sight);

  // Hits an inserted byte of time, for one chunk whatever its size.  O(1).
  double Index(uint32_t use_class, uint64_t age_bytes) const {
    return index_[use_class][AgeBucketOf(age_bytes)];
  }

 private:
  using Hazard = std::array<double, kAgeBucketCount>;

  // Numbers of one class, or of all together.
  struct Counts {
    Hazard used{};
    Hazard censored{};
  };
  static Hazard Estimate(const Counts& counts, const Hazard& prior, double pseudo_count);
  static Hazard IndexOf(const Hazard& hazard);

  // Since the beginning, fading by kDecay a refit.
  Table used_{};
  Table lost_{};
  // The answer, until the next refit.
  Table index_{};
};

}  // namespace terrace
