#pragma once

// What one seed runs: the sizes of the store, the faults of its disk, and how often each operation
// comes.  Weights are drawn as a swarm: each seed has few kinds of trouble, but these often.
//
// Threads: a value.

#include <array>
#include <cstdint>
#include <random>
#include <string>

#include "storage/engine/nvme_tier.h"
#include "tests/storage/io/sim_medium.h"

namespace terrace {

enum class SimOperation : uint8_t {
  kPut,
  kBeginPut,  // and go on with others before it ends
  kEndPut,    // commit, abort, or leave it to its deadline
  kGet,
  kPrefetch,
  kHold,  // a get that keeps its pin
  kRelease,
  kRemove,
  kLease,
  kPersist,
  kBump,
  kClear,
  kDie,        // a session's process
  kRestart,    // drained first
  kKill,       // what was handed to the disk is there, synced or not
  kPowerLoss,  // what was not synced may be gone or torn
  kIdle,       // time passes
  kSettle,     // until nothing is under way
};
inline constexpr size_t kSimOperationCount = 18;

struct SimPlan {
  uint64_t seed = 0;
  std::array<uint32_t, kSimOperationCount> weights{};
  SimFaults faults;
  uint32_t operations = 0;
  uint32_t dram_segments = 0, log_segments = 0;  // of 2 MiB
  uint32_t keys = 0, labels = 0, sessions = 0;   // the last session is trusted
  uint32_t payload_bytes_max = 0;
  std::string policy;
  NvmeAdmission admission = NvmeAdmission::kAlways;
  uint32_t steps_max = 0;  // of the disk, between two operations
  bool encode = false;     // what goes to NVMe, in most lives

  static SimPlan Of(uint64_t seed);
  SimOperation Draw(std::mt19937_64& random) const;
};

}  // namespace terrace
