#include "storage/engine/segment_buffers.h"

#include "storage/base/log.h"

namespace terrace {

SegmentBuffers::SegmentBuffers(BlockDevice& device, SegmentPool& pool)
    : device_(device), pool_(pool), ids_(pool.count(), kNoBuffer) {
  pool_.OnUnmap([this](uint32_t segment) { Forget(segment); });
}

SegmentBuffers::~SegmentBuffers() {
  pool_.OnUnmap(nullptr);
  for (uint32_t segment = 0; segment < ids_.size(); ++segment) Forget(segment);
}

BufferId SegmentBuffers::Of(uint32_t segment) {
  if (ids_[segment] != kNoBuffer || !pool_.IsPopulated(segment)) return ids_[segment];
  const Mapping& mapping = pool_.at(segment).memory.mapping();
  const Result<BufferId> registered =
      device_.RegisterBuffer(mapping.writable_data(), mapping.bytes());
  if (!registered.ok()) return kNoBuffer;  // until a slot is free again
  ids_[segment] = *registered;
  AnnouncePlain();
  return *registered;
}

void SegmentBuffers::AnnouncePlain() {
  if (announced_ || device_.stats().plain_buffers == 0) return;
  announced_ = true;
  LogWarning("nvme: reads into DRAM are slower than they could be: " + device_.Describe());
}

void SegmentBuffers::Forget(uint32_t segment) {
  if (ids_[segment] == kNoBuffer) return;
  device_.UnregisterBuffer(ids_[segment]);
  ids_[segment] = kNoBuffer;
}

}  // namespace terrace
