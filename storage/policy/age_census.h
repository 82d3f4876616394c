#pragma once

// How many of a population were last used how long ago, by use class: a histogram over slices of
// the clock, so that nobody ever walks the population.  It knows counts, not who they are.
//
// Resolution: a member's age is known to a slice (1/64 capacity) and spread evenly inside it.
// Members older than kSpanCapacities count as that old.
//
// Threads: values of one owner.

#include <array>
#include <cstdint>
#include <vector>

#include "storage/policy/age_buckets.h"
#include "storage/policy/use_class.h"

namespace terrace {

class AgeCensus {
 public:
  static constexpr uint32_t kSlicesPerCapacity = 64;
  static constexpr uint32_t kSpanCapacities = 16;

  using Histogram = std::array<std::array<double, kAgeBucketCount>, kUseClassCount>;

  explicit AgeCensus(uint64_t capacity_bytes);

  // The clock moved on.  REQUIRES: clock does not fall.  Costs a step a slice passed.
  void AdvanceTo(uint64_t clock);

  // A member was last used at `used_at`.  REQUIRES: used_at <= the clock.
  void Add(uint32_t use_class, uint64_t used_at);

  // REQUIRES: such a member was added and not taken since.
  void Take(uint32_t use_class, uint64_t used_at);

  // Members by class and age bucket at `clock`.  Costs a step a slice, whatever the population.
  Histogram AgesAt(uint64_t clock) const;

  // Ages beyond this are not told apart.
  uint64_t age_bytes_max() const { return slice_bytes_ * kSliceCount; }

 private:
  static constexpr uint32_t kSliceCount = kSlicesPerCapacity * kSpanCapacities;
  using Counts = std::array<uint32_t, kUseClassCount>;

  Counts& CountsOf(uint64_t used_at);

  // Constant after construction.
  uint64_t slice_bytes_;

  // The newest slice, and the counts of the kSliceCount newest, by slice modulo kSliceCount.
  uint64_t newest_ = 0;
  std::vector<Counts> slices_;
  Counts older_{};
};

}  // namespace terrace
