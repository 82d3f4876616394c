#pragma once

// A device on a pool of threads, for systems that forbid io_uring: preadv2, pwritev2, fdatasync.
//
// Threads: as BlockDevice.  The pool's threads see operations, file descriptors and the requests'
// memory, and block every signal.

#include <array>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "storage/io/device_files.h"
#include "storage/io/queued_device.h"

namespace terrace {

inline constexpr uint32_t kIoThreadCountMax = 64;

class ThreadDevice final : public QueuedDevice {
 public:
  struct Options {
    uint32_t buffer_count = kSegmentCountMax;
    uint32_t thread_count = 8;  // the operations that run at once
    std::string why;            // why not something better, for Describe
  };

  // Takes `files` only when it succeeds.  kBusy where the system gives no thread or descriptor.
  // `clock` outlives the device.  REQUIRES: 1 <= thread_count <= kIoThreadCountMax.
  static Result<std::unique_ptr<ThreadDevice>> Create(DeviceFiles& files, const Options& options,
                                                      const Clock& clock);
  ~ThreadDevice() override;

  DeviceMode mode() const override { return DeviceMode::kThreads; }
  std::string Describe() const override;
  Status CheckMedium() const override { return files_.Check(); }
  uint64_t AllocatedBytes() const override { return files_.AllocatedBytes(); }

 private:
  struct Completion {
    uint64_t tag = 0;
    int64_t result = 0;
  };

  ThreadDevice(DeviceFiles files, UniqueFd event, const Options& options, const Clock& clock);
  Status StartThreads(uint32_t count);

  void Start(const Operation& operation) override;
  bool Kick() override;
  void StartCancel(uint64_t tag) override;
  void Reap() override;
  // There is no one to tell: any memory will do.
  bool AdoptBuffer(uint32_t, uint8_t*, uint64_t) override { return true; }
  bool ReleaseBuffer(uint32_t) override { return true; }

  void Run();
  int64_t Perform(const Operation& operation) const;

  // Constant after construction.
  DeviceFiles files_;
  std::string why_;

  // Owned by the device's thread.
  std::vector<Operation> started_;  // since the last Kick
  std::vector<Completion> reaped_;

  std::mutex mutex_;
  std::condition_variable changed_;
  // Under mutex_.  None ever grows: at most kIoOperationsMax are in flight.
  std::array<Operation, kIoOperationsMax> waiting_;  // a ring
  uint32_t waiting_first_ = 0;
  uint32_t waiting_count_ = 0;
  std::vector<Completion> completions_;
  bool stopping_ = false;

  std::vector<std::thread> threads_;
};

}  // namespace terrace
