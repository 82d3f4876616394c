#pragma once

// Which of a tenant's DRAM segments its device knows, so that reads into them need not pin their
// pages each time.
//
// A segment is registered with its first read, and only once its pages are populated: registration
// pins all of them, and those that the host has not backed cost up to 9 s a GiB.  A memfd that the
// pool gives up is unregistered before it is unmapped; its successor gets a slot of its own, so
// that neither waits for the other.
//
// Threads: belongs to the device's thread.

#include <cstdint>
#include <vector>

#include "storage/io/block_device.h"
#include "storage/segment/segment_pool.h"

namespace terrace {

class SegmentBuffers {
 public:
  // Both outlive this object; the pool calls it until then.
  SegmentBuffers(BlockDevice& device, SegmentPool& pool);
  SegmentBuffers(const SegmentBuffers&) = delete;
  SegmentBuffers& operator=(const SegmentBuffers&) = delete;
  // REQUIRES: nothing outstanding in the device that names a segment.
  ~SegmentBuffers();

  // For I/O inside the segment's memory.  kNoBuffer while it is not populated, or where the device
  // has no slot left: such I/O works, slower.
  BufferId Of(uint32_t segment);

 private:
  void Forget(uint32_t segment);
  void AnnouncePlain();

  // Constant after construction.
  BlockDevice& device_;
  SegmentPool& pool_;
  // Owned by the device's thread.
  std::vector<BufferId> ids_;  // by segment
  bool announced_ = false;
};

}  // namespace terrace
