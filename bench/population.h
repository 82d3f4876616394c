#pragma once

// Chunks as a Zipf law draws them: numbers, and each number's payload length, log-uniform.
//
// Threads: immutable after construction.

#include <cstdint>
#include <vector>

#include "bench/measure.h"

namespace terrace {

class Population {
 public:
  // Lengths in [least, most]; as many chunks as come to `bytes`, numbered from `first_number` on.
  Population(uint64_t first_number, uint32_t least, uint32_t most, double bytes);

  uint64_t Draw(Random& random) const;
  uint32_t BytesOf(uint64_t number) const;

 private:
  uint64_t first_number_;
  uint32_t least_, most_;
  std::vector<double> cumulative_;
};

}  // namespace terrace
