#pragma once

// A device whose medium, time and faults a test owns: what happens follows from the seed alone.
// The queues, budgets and checks above it are the product's own.
//
// The test advances the clock to next_event_ns() and calls Poll.
//
// Threads: as BlockDevice.

#include <optional>
#include <string>
#include <vector>

#include "storage/io/queued_device.h"
#include "tests/storage/io/sim_clock.h"
#include "tests/storage/io/sim_medium.h"

namespace terrace {

class SimDevice final : public QueuedDevice {
 public:
  struct Options {
    uint64_t stripe_bytes = 1 * kMiB;
    uint32_t buffer_count = 64;
    SimFaults faults;
  };

  // Both outlive the device.  REQUIRES: the medium holds whole stripes.
  SimDevice(SimMedium& medium, SimClock& clock, const Options& options);

  DeviceMode mode() const override { return DeviceMode::kSimulated; }
  std::string Describe() const override { return DeviceModeName(mode()); }
  Status CheckMedium() const override;
  uint64_t AllocatedBytes() const override { return capacity_bytes(); }

  // When the next operation ends; none is in flight without a value.
  std::optional<int64_t> next_event_ns() const;
  // Advances the clock to each next event and polls, until nothing is in flight.
  void RunUntilIdle();

  // The machine dies: operations in flight happened, partly or not at all, requests outstanding are
  // idle without a word, and unsynced writes meet their fate.  The device can only be destroyed.
  void LosePower();

  // The next `times` reads that touch the byte end with EIO.
  void FailReads(uint64_t offset, uint32_t times) { sick_.push_back({offset, times}); }

  SimFaults& faults() { return faults_; }
  const SimInjected& injected() const { return injected_; }

 private:
  struct Sick {
    uint64_t offset = 0;
    uint32_t times = 0;
  };
  struct Event {
    int64_t due_ns = 0;
    uint64_t number = 0;  // breaks ties in order of Start
    bool cancelled = false;
    uint64_t writes_before = 0;  // what a sync covers
    Operation operation;
  };

  void Start(const Operation& operation) override;
  bool Kick() override { return true; }
  void StartCancel(uint64_t tag) override;
  void Reap() override;
  void AwaitEvent() override;
  bool AdoptBuffer(uint32_t, uint8_t*, uint64_t) override { return true; }
  bool ReleaseBuffer(uint32_t) override { return true; }

  int64_t Perform(const Event& event);
  int64_t Read(const Operation& operation);
  int64_t Write(const Operation& operation);
  int64_t Sync(const Event& event);
  uint64_t Shortened(uint64_t bytes);
  bool IsSick(const Operation& read);

  SimMedium& medium_;
  SimClock& clock_;
  SimFaults faults_;
  SimInjected injected_;
  std::vector<Sick> sick_;
  std::vector<Event> events_;
  uint64_t event_count_ = 0;
};

}  // namespace terrace
