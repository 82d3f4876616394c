#pragma once

// What this machine can give the DRAM tier, and whether a setting asks for more.
//
// Threads: pure functions; ReadMachineMemory reads files.

#include <cstdint>
#include <limits>
#include <string>

#include "storage/base/limits.h"
#include "storage/base/result.h"

namespace terrace {

inline constexpr uint64_t kAutoDramBytesMax = 64 * kGiB;
inline constexpr uint64_t kDramBytesMax = kSegmentCountMax * kSegmentBytesMax;

struct MachineMemory {
  static constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();

  uint64_t available_bytes = 0;             // MemAvailable
  uint64_t cgroup_left_bytes = kUnlimited;  // of the tightest limit above this process
  uint64_t hugetlb_free_bytes = 0;          // 2 MiB pages neither used nor promised

  // What ordinary pages can take without reclaim.
  uint64_t ordinary_bytes() const {
    return available_bytes < cgroup_left_bytes ? available_bytes : cgroup_left_bytes;
  }
};

// Reads /proc/meminfo, this process' cgroups (v1 and v2, every level) and the hugetlb pool; tests
// put a tree of theirs in front with `root`.  kIoError without a readable MemAvailable; a missing
// cgroup or hugetlb file is no limit and no pages.
Result<MachineMemory> ReadMachineMemory(const std::string& root = "");

// dram = "auto": a quarter of the ordinary pages, at most kAutoDramBytesMax, whole 2 MiB; 0 when
// there is not even that.
uint64_t AutoDramBytes(const MachineMemory& machine);

// Whether a pool of `bytes` fits: hugetlb pages first when `huge_pages`, ordinary ones for the
// rest.  kInvalid for a size that no machine could serve, kNoSpace for one that this machine
// cannot; the message names the figure it can give.
Status CheckDramBytes(uint64_t bytes, const MachineMemory& machine, bool huge_pages);

}  // namespace terrace
