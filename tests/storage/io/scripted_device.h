#pragma once

// A device whose every completion a test writes by hand.
//
// Threads: as BlockDevice.

#include <sys/eventfd.h>

#include <string>
#include <utility>
#include <vector>

#include "storage/io/queued_device.h"

namespace terrace {

class ScriptedDevice final : public QueuedDevice {
 public:
  using QueuedDevice::Operation;

  ScriptedDevice(const Geometry& geometry, uint32_t buffer_count, const Clock& clock)
      : QueuedDevice(geometry, UniqueFd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)), buffer_count,
                     clock) {}

  DeviceMode mode() const override { return DeviceMode::kSimulated; }
  std::string Describe() const override { return "scripted"; }
  Status CheckMedium() const override { return Status::Ok(); }
  uint64_t AllocatedBytes() const override { return capacity_bytes(); }

  // Takes what was started since the last call.
  std::vector<Operation> TakeStarted() { return std::exchange(started_, {}); }
  std::vector<uint64_t> TakeCancels() { return std::exchange(cancels_, {}); }
  // Ends an operation, with all of its bytes unless told; the request's `done` follows if it was
  // its last.
  void End(const Operation& operation, int64_t result) {
    completions_.emplace_back(operation.tag, result);
    Poll();
  }
  void End(const Operation& operation) { End(operation, static_cast<int64_t>(operation.bytes)); }
  // Ends well whatever is in flight or queued.
  void EndAll() {
    do {
      Flush();
      for (const Operation& operation : std::exchange(open_, {})) {
        const bool transfer = operation.kind == IoKind::kRead || operation.kind == IoKind::kWrite;
        completions_.emplace_back(operation.tag,
                                  transfer ? static_cast<int64_t>(operation.bytes) : 0);
      }
      Poll();
    } while (!open_.empty());
    started_.clear();
  }
  void ReleaseLater(uint32_t slot) {
    releases_.push_back(slot);
    Poll();
  }

  bool refuse_buffers = false;
  bool release_at_once = true;
  bool kick_works = true;
  uint32_t kicks = 0;
  std::vector<uint32_t> released_slots;

 private:
  void Start(const Operation& operation) override {
    started_.push_back(operation);
    open_.push_back(operation);
  }
  bool Kick() override {
    ++kicks;
    return kick_works;
  }
  void StartCancel(uint64_t tag) override { cancels_.push_back(tag); }
  void Reap() override {
    for (const auto& [tag, result] : std::exchange(completions_, {})) Completed(tag, result);
    for (const uint32_t slot : std::exchange(releases_, {})) BufferReleased(slot);
  }
  bool AdoptBuffer(uint32_t, uint8_t*, uint64_t) override { return !refuse_buffers; }
  bool ReleaseBuffer(uint32_t slot) override {
    released_slots.push_back(slot);
    return release_at_once;
  }

  std::vector<Operation> started_;
  std::vector<Operation> open_;  // started, and not ended by EndAll
  std::vector<uint64_t> cancels_;
  std::vector<std::pair<uint64_t, int64_t>> completions_;
  std::vector<uint32_t> releases_;
};

}  // namespace terrace
