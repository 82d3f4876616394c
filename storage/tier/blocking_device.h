#pragma once

// A block device for who has nothing else to do: each call begins one request and waits for it.
//
// Threads: belongs to the device's thread.

#include <cstdint>
#include <functional>
#include <span>

#include "storage/io/block_device.h"

namespace terrace {

// Repeats of a read that failed.
inline constexpr uint32_t kBlockingReadRetries = 2;

class BlockingDevice {
 public:
  // `wait` is called while nothing ends, and returns when something may have; null: the device's
  // event_fd is waited for.
  explicit BlockingDevice(BlockDevice& device, std::function<void()> wait = nullptr);

  // Sizes are multiples of 4 KiB, memory is page-aligned.  Errors as the device says.
  Status Read(uint64_t offset, std::span<uint8_t> into);
  Status Write(uint64_t offset, std::span<const uint8_t> from);
  // Everything that was written is stable.
  Status Sync();

  // Until something else that the device does has ended.
  void Await(const std::function<bool()>& ended);

  BlockDevice& device() { return device_; }
  uint64_t read_bytes() const { return read_bytes_; }

 private:
  Status Run(IoRequest& request);

  BlockDevice& device_;
  const std::function<void()> wait_;
  uint64_t read_bytes_ = 0;
};

}  // namespace terrace
