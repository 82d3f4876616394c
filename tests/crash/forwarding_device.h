#pragma once

// A device that hands everything on to another one: what a test wants to see or to change, it
// overrides.
//
// Threads: as BlockDevice.

#include <memory>
#include <string>
#include <utility>

#include "storage/io/block_device.h"

namespace terrace {

class ForwardingDevice : public BlockDevice {
 public:
  explicit ForwardingDevice(std::unique_ptr<BlockDevice> inner) : inner_(std::move(inner)) {}

  uint64_t capacity_bytes() const override { return inner_->capacity_bytes(); }
  uint64_t stripe_bytes() const override { return inner_->stripe_bytes(); }
  uint32_t file_count() const override { return inner_->file_count(); }
  bool writable() const override { return inner_->writable(); }
  Status Submit(IoRequest& request) override { return inner_->Submit(request); }
  void Flush() override { inner_->Flush(); }
  void Cancel(IoRequest& request) override { inner_->Cancel(request); }
  void Hasten(IoRequest& request, IoClass io_class) override { inner_->Hasten(request, io_class); }
  uint32_t Poll() override { return inner_->Poll(); }
  int event_fd() const override { return inner_->event_fd(); }
  bool DrainUntil(int64_t until_ns) override { return inner_->DrainUntil(until_ns); }
  Result<BufferId> RegisterBuffer(uint8_t* memory, uint64_t bytes) override {
    return inner_->RegisterBuffer(memory, bytes);
  }
  void UnregisterBuffer(BufferId buffer) override { inner_->UnregisterBuffer(buffer); }
  const IoBudgets& budgets() const override { return inner_->budgets(); }
  void SetBudgets(const IoBudgets& budgets) override { inner_->SetBudgets(budgets); }
  DeviceMode mode() const override { return inner_->mode(); }
  std::string Describe() const override { return inner_->Describe(); }
  IoStats stats() const override { return inner_->stats(); }
  Status CheckMedium() const override { return inner_->CheckMedium(); }
  uint64_t AllocatedBytes() const override { return inner_->AllocatedBytes(); }

 protected:
  BlockDevice& inner() { return *inner_; }

 private:
  std::unique_ptr<BlockDevice> inner_;
};

// Nothing is written to it: what a reader finds is what was there.
class ReadOnlyDevice final : public ForwardingDevice {
 public:
  using ForwardingDevice::ForwardingDevice;
  bool writable() const override { return false; }
};

}  // namespace terrace
