// The half of QueuedDevice that keeps the slots of registered buffers:
//
//   free --Register--> live --Unregister--> draining --last request ends--> releasing
//     ^------------------------------- the system lets go of the pages ---------'

#include "storage/io/queued_device.h"

namespace terrace {

namespace {

constexpr uint32_t kBufferSlotMask = 0xFFFF;
constexpr uint32_t kBufferGenerationShift = 16;
static_assert(kIoBufferCountMax <= kBufferSlotMask);  // so that no id equals kNoBuffer

}  // namespace

const QueuedDevice::Buffer* QueuedDevice::FindBuffer(BufferId id) const {
  const uint32_t slot = id & kBufferSlotMask;
  if (slot >= buffers_.size()) return nullptr;
  const Buffer& buffer = buffers_[slot];
  const bool live = buffer.state == Buffer::State::kLive;
  return live && buffer.generation == id >> kBufferGenerationShift ? &buffer : nullptr;
}

Status QueuedDevice::CheckBuffer(const IoRequest& request) const {
  if (request.buffer_ == kNoBuffer) return Status::Ok();
  const Buffer* const buffer = FindBuffer(request.buffer_);
  if (buffer == nullptr) return Status(StatusCode::kInvalid, "no such registered buffer");
  // As integers: the request's memory may lie anywhere.
  const auto begin = reinterpret_cast<uintptr_t>(buffer->memory);
  const auto at = reinterpret_cast<uintptr_t>(request.memory_);
  const bool inside = at >= begin && request.bytes_ <= buffer->bytes &&
                      at - begin <= buffer->bytes - request.bytes_;
  if (inside) return Status::Ok();
  return Status(StatusCode::kInvalid, "a request's memory lies outside its registered buffer");
}

Result<BufferId> QueuedDevice::RegisterBuffer(uint8_t* memory, uint64_t bytes) {
  TERRACE_CHECK(memory != nullptr && bytes > 0 && bytes <= kSegmentBytesMax);
  TERRACE_CHECK(reinterpret_cast<uintptr_t>(memory) % kPageBytes == 0 && bytes % kPageBytes == 0);
  for (uint32_t slot = 0; slot < buffers_.size(); ++slot) {
    Buffer& buffer = buffers_[slot];
    if (buffer.state != Buffer::State::kFree) continue;
    buffer.state = Buffer::State::kLive;
    buffer.adopted = AdoptBuffer(slot, memory, bytes);
    buffer.memory = memory;
    buffer.bytes = bytes;
    ++live_buffers_;
    if (!buffer.adopted) ++plain_buffers_;
    ++buffer.generation;
    return BufferId{slot | uint32_t{buffer.generation} << kBufferGenerationShift};
  }
  return Status(StatusCode::kBusy, "all " + std::to_string(buffers_.size()) +
                                       " slots of registered buffers are taken");
}

void QueuedDevice::UnregisterBuffer(BufferId id) {
  TERRACE_CHECK(FindBuffer(id) != nullptr);
  Buffer& buffer = buffers_[id & kBufferSlotMask];
  buffer.state = Buffer::State::kDraining;
  --live_buffers_;
  if (!buffer.adopted) --plain_buffers_;
  ++buffer.requests;  // this call's own, so that the end of the last request and it are one case
  LetGoOfBuffer(id);
}

void QueuedDevice::LetGoOfBuffer(BufferId id) {
  if (id == kNoBuffer) return;
  const uint32_t slot = id & kBufferSlotMask;
  Buffer& buffer = buffers_[slot];
  TERRACE_CHECK(buffer.requests > 0);
  --buffer.requests;
  if (buffer.state != Buffer::State::kDraining || buffer.requests > 0) return;
  buffer.state = Buffer::State::kReleasing;
  if (!buffer.adopted || ReleaseBuffer(slot)) BufferReleased(slot);
}

void QueuedDevice::BufferReleased(uint32_t slot) {
  if (slot >= buffers_.size() || buffers_[slot].state != Buffer::State::kReleasing) {
    ++stats_.stale;
    return;
  }
  buffers_[slot].state = Buffer::State::kFree;
  buffers_[slot].adopted = false;
}

}  // namespace terrace
