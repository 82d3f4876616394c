#pragma once

// Measures a device for a moment, and picks how much to keep in flight: the least that is within 5
// % of the fastest.  More only makes everybody wait longer.
//
// Threads: the device's thread, before anything else uses the device.  Blocks it.

#include "storage/base/clock.h"
#include "storage/io/block_device.h"

namespace terrace {

struct TuneOptions {
  // A range of the device, of 1,028 KiB at least.  Reads of what was never written tell nothing:
  // some file systems answer those without the medium.
  uint64_t offset = 0;
  uint64_t bytes = 0;
  // The range holds nothing: it is written first, and writes are measured too.
  bool scratch = false;
  // At least 4,112 KiB; as much as the largest budget that will be tried (four times that is
  // enough).
  uint8_t* memory = nullptr;
  uint64_t memory_bytes = 0;
  BufferId buffer = kNoBuffer;
  // All together; what is in flight then is waited for.
  int64_t time_ns_max = 500 * kNsPerMs;
};

// Sets the device's budgets and returns them.  What the measurements do not tell stays as it was
// (write budgets without `scratch`).  kInvalid for a range or memory below that, or with the
// first request's error; the budgets then are what they were.
// kDeadline: the device hangs and still has the memory, for good.
// REQUIRES: nothing outstanding.
Result<IoBudgets> TuneBudgets(BlockDevice& device, const TuneOptions& options, const Clock& clock);

}  // namespace terrace
