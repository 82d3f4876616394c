#pragma once

// The child of a crash round: a workload of several segments, with reclaim of the log, new epochs
// and a restart in its middle, on a store whose device kills the process at one write or sync.
//
// Threads: runs in a forked child, and never returns to the caller's code.

#include <cstdint>
#include <string>

#include "storage/io/block_device.h"
#include "tests/crash/killing_device.h"

namespace terrace {

inline constexpr uint64_t kCrashKeys = 64;

struct CrashRound {
  std::string path;
  uint64_t seed = 1;
  uint64_t life = 1;  // of the file: versions of other lives are others
  uint32_t operations = 100;
  DeviceMode mode = DeviceMode::kThreads;
  KillPoint point = {};
  bool encode = false;  // what goes to the file
};

// Says what it did through `notes` (CrashWord) before it goes on.  Exits with 0 after its end, 4
// when the file did not open, 5 when something took too long.
[[noreturn]] void RunCrashChild(const CrashRound& round, int notes);

}  // namespace terrace
