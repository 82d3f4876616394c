#include "bench/population.h"

#include <algorithm>
#include <cmath>

namespace terrace {
namespace {

constexpr double kZipf = 0.9;

double Fraction(uint64_t word) { return static_cast<double>(word >> 11) * 0x1p-53; }

}  // namespace

Population::Population(uint64_t first_number, uint32_t least, uint32_t most, double bytes)
    : first_number_(first_number), least_(least), most_(most) {
  const double octaves = std::log(static_cast<double>(most) / least);
  const double mean = (most - least) / octaves;
  const auto count = static_cast<size_t>(bytes / mean);
  double sum = 0;
  for (size_t rank = 1; rank <= count; ++rank) {
    sum += std::pow(static_cast<double>(rank), -kZipf);
    cumulative_.push_back(sum);
  }
}

uint64_t Population::Draw(Random& random) const {
  const double at = Fraction(random.Next()) * cumulative_.back();
  const auto found = std::lower_bound(cumulative_.begin(), cumulative_.end(), at);
  return first_number_ + static_cast<uint64_t>(found - cumulative_.begin());
}

uint32_t Population::BytesOf(uint64_t number) const {
  const double share = Fraction(Random(number).Next());
  const double bytes = least_ * std::pow(static_cast<double>(most_) / least_, share);
  return std::clamp(static_cast<uint32_t>(bytes), least_, most_);
}

}  // namespace terrace
