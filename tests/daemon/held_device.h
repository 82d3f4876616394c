#pragma once

// A device in memory whose reads and writes a test holds back or lets fail, while another thread
// uses it.
//
// Threads: as BlockDevice; the words are anybody's.

#include <sys/eventfd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "storage/io/queued_device.h"

namespace terrace {

class HeldDevice final : public QueuedDevice {
 public:
  // `medium` outlives the device.
  HeldDevice(std::vector<uint8_t>& medium, const Clock& clock, bool writable = true)
      : QueuedDevice({.capacity_bytes = medium.size(),
                      .stripe_bytes = medium.size(),
                      .file_count = 1,
                      .writable = writable},
                     UniqueFd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)), 64, clock),
        medium_(medium) {}

  DeviceMode mode() const override { return DeviceMode::kSimulated; }
  std::string Describe() const override { return "memory"; }
  Status CheckMedium() const override { return Status::Ok(); }
  uint64_t AllocatedBytes() const override { return capacity_bytes(); }

  std::atomic<bool> hold_reads{false}, hold_writes{false};
  std::atomic<bool> fail_reads{false}, fail_writes{false};
  std::atomic<uint32_t> reads{0};  // begun

 private:
  void Start(const Operation& operation) override {
    if (operation.kind == IoKind::kRead) ++reads;
    started_.push_back(operation);
    Wake();
  }
  bool Kick() override { return true; }
  void StartCancel(uint64_t tag) override {
    cancelled_.push_back(tag);
    Wake();
  }
  void Reap() override {
    std::erase_if(started_, [this](const Operation& operation) {
      const bool cancelled = std::erase(cancelled_, operation.tag) != 0;
      const bool read = operation.kind == IoKind::kRead;
      if (!cancelled && (read ? hold_reads : hold_writes)) return false;
      Completed(operation.tag, cancelled ? -ECANCELED : Perform(operation));
      return true;
    });
  }
  int64_t Perform(const Operation& operation) {
    uint8_t* const at = medium_.data() + operation.offset;
    switch (operation.kind) {
      case IoKind::kRead:
        if (fail_reads) return -EIO;
        std::memcpy(operation.memory, at, operation.bytes);
        return static_cast<int64_t>(operation.bytes);
      case IoKind::kWrite:
        if (fail_writes) return -EIO;
        std::memcpy(at, operation.memory, operation.bytes);
        return static_cast<int64_t>(operation.bytes);
      case IoKind::kSync: return fail_writes ? -EIO : 0;
      case IoKind::kDiscard: return 0;
    }
    return -EINVAL;
  }
  bool AdoptBuffer(uint32_t, uint8_t*, uint64_t) override { return true; }
  bool ReleaseBuffer(uint32_t) override { return true; }

  std::vector<uint8_t>& medium_;
  std::vector<Operation> started_;
  std::vector<uint64_t> cancelled_;
};

}  // namespace terrace
