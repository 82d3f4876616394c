#include "tests/sim/sim_plan.h"

#include <algorithm>
#include <numeric>

namespace terrace {
namespace {

// Of 0: never in half of the seeds.  The commonest of what a seed has stays far above its ends.
struct Range {
  SimOperation operation;
  uint32_t always, sometimes;
};
constexpr Range kRanges[] = {
    {SimOperation::kPut, 40, 60},     {SimOperation::kBeginPut, 0, 20},
    {SimOperation::kEndPut, 10, 20},  {SimOperation::kGet, 30, 60},
    {SimOperation::kPrefetch, 0, 30}, {SimOperation::kHold, 0, 20},
    {SimOperation::kRelease, 10, 20}, {SimOperation::kRemove, 0, 20},
    {SimOperation::kLease, 0, 10},    {SimOperation::kPersist, 0, 40},
    {SimOperation::kBump, 0, 3},      {SimOperation::kClear, 0, 3},
    {SimOperation::kDie, 0, 5},       {SimOperation::kRestart, 0, 3},
    {SimOperation::kKill, 0, 4},      {SimOperation::kPowerLoss, 1, 4},
    {SimOperation::kIdle, 0, 20},     {SimOperation::kSettle, 1, 8},
};
static_assert(std::size(kRanges) == kSimOperationCount);

// A third of the seeds meets a disk that is only slow and forgetful, as a good one is: there all
// that is durable must be found.  A third meets errors, and only the rest a disk that lies.
SimFaults FaultsOf(uint64_t seed, std::mt19937_64& random) {
  SimFaults faults = SimFaults::Swarm(seed);
  const uint64_t kind = random() % 3;
  if (kind < 2) faults.rot = faults.misdirected_write = faults.dropped_write = 0;
  if (faults.rot != 0) faults.rot *= 5;  // most reads are of a few pages
  if (kind < 1) {
    faults.read_error = faults.write_error = faults.sync_error = faults.full = 0;
    faults.short_transfer = 0;  // one below a page is an error
  }
  return faults;
}

}  // namespace

SimPlan SimPlan::Of(uint64_t seed) {
  std::mt19937_64 random(seed * 0x9e3779b97f4a7c15 + 1);
  const auto between = [&random](uint64_t least, uint64_t most) {
    return static_cast<uint32_t>(least + random() % (most - least + 1));
  };
  SimPlan plan;
  plan.seed = seed;
  plan.faults = FaultsOf(seed, random);
  for (const Range& range : kRanges) {
    uint32_t& weight = plan.weights[static_cast<size_t>(range.operation)];
    weight = range.always;
    if (random() % 2 == 0) weight += between(1, range.sometimes);
  }
  plan.operations = between(200, 400);
  plan.dram_segments = between(4, 6);
  plan.log_segments = between(5, 12);
  plan.keys = between(8, 40);
  plan.labels = between(1, 2);
  plan.sessions = between(1, 3);
  constexpr uint32_t kPayloads[] = {10'000, 100'000, 300'000, 600'000, 1'000'000};
  plan.payload_bytes_max = kPayloads[random() % std::size(kPayloads)];
  plan.policy = random() % 2 == 0 ? "lru" : "gittins";
  constexpr NvmeAdmission kAdmissions[] = {NvmeAdmission::kAlways, NvmeAdmission::kAlways,
                                           NvmeAdmission::kSecondHit, NvmeAdmission::kBytesADay};
  plan.admission = kAdmissions[random() % std::size(kAdmissions)];
  plan.steps_max = between(2, 16);
  plan.encode = random() % 2 == 0;
  return plan;
}

SimOperation SimPlan::Draw(std::mt19937_64& random) const {
  uint64_t at = random() % std::accumulate(weights.begin(), weights.end(), uint64_t{0});
  for (size_t i = 0; i < weights.size(); ++i) {
    if (at < weights[i]) return static_cast<SimOperation>(i);
    at -= weights[i];
  }
  return SimOperation::kPut;
}

}  // namespace terrace
