#pragma once

// The bare ring as a second yardstick: fio reads into, and writes from, the same few MiB again and
// again, which stay in the processor's caches; a tier's memory is a thousand times that.  This does
// what fio does over as much memory as the tier has.
//
// Threads: main.

#include <cstdint>
#include <memory>
#include <string>

#include "storage/base/clock.h"
#include "storage/base/result.h"
#include "storage/io/block_device.h"
#include "storage/mem/memory_file.h"

namespace terrace {

struct RingJob {
  IoKind kind = IoKind::kRead;  // random reads, or writes from front to back
  uint64_t block_bytes = 0;
  uint32_t depth = 1;
  uint64_t range_bytes = 0;
  uint64_t io_bytes = 0;
};

class Ring {
 public:
  // Of an existing file, with `memory_bytes` (whole 2 MiB, 1 GiB at most) of registered memory.
  static Result<Ring> Open(const std::string& file, uint64_t memory_bytes);
  Ring(Ring&&) = default;
  Ring& operator=(Ring&&) = default;
  ~Ring();

  uint64_t page_bytes() const { return memory_.page_bytes(); }

  // Bytes a second.  kIoError as the device says.
  Result<double> Run(const RingJob& job);

 private:
  Ring() = default;

  std::unique_ptr<SystemClock> clock_;  // outlives the device
  MemoryFile memory_;
  std::unique_ptr<BlockDevice> device_;
  BufferId buffer_ = kNoBuffer;
  uint64_t written_ = 0;  // where writes go on
};

}  // namespace terrace
