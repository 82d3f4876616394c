#pragma once

// Makes memory present before it is needed, on a thread of its own: the first touch of a page that
// the host has not backed costs up to 9 s a GiB, which nobody should wait for at the door.
// Contents never change, whether the memory is new or in use.
//
// Threads: all methods are safe from any thread but the populator's own; `done` runs on that one.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "storage/base/limits.h"
#include "storage/base/status.h"

namespace terrace {

// Slices bound how long Cancel waits: 16 MiB take 0.15 s where they are slowest.
inline constexpr uint64_t kPopulateSliceBytes = 16 * kMiB;
inline constexpr uint32_t kPopulateQueueMax = kSegmentCountMax;

// Populates [data, data + bytes) now, on the caller's thread.  kNoSpace when there are no pages.
// REQUIRES: a writable mapping, data at a page's start.
Status PopulateNow(uint8_t* data, uint64_t bytes);

// What PopulateNow does on kernels that cannot populate by themselves (before 5.14): an atomic
// write of what is there already to each 4 KiB.  A SIGBUS where there are no pages.
void TouchEveryPage(uint8_t* data, uint64_t bytes);

class Populator {
 public:
  struct Job {
    uint64_t id = 0;  // names the job to Cancel; unique among those queued
    uint8_t* data = nullptr;
    uint64_t bytes = 0;
    // Called once when the job ended by itself, with Ok or kNoSpace; never when it was cancelled.
    // Short, and must not call the Populator.
    std::function<void(Status)> done;
  };

  Populator();
  // Cancels everything.
  ~Populator();
  Populator(const Populator&) = delete;
  Populator& operator=(const Populator&) = delete;

  // kBusy when kPopulateQueueMax jobs wait.  The memory must stay mapped until `done` was called
  // or Cancel returned.  Jobs run in the order in which they came.
  Status Enqueue(Job job);

  // Takes the job back, waiting for at most the slice (or the `done`) that is running.  Afterwards
  // the memory is not touched and `done` is not called.  True unless the job had already ended.
  bool Cancel(uint64_t id);

  // Jobs that have not ended.
  uint32_t pending() const;

 private:
  void Run();
  Status PopulateUnlessCancelled(const Job& job);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Under mutex_.
  std::deque<Job> queue_;
  bool running_ = false;
  uint64_t running_id_ = 0;
  bool running_cancelled_ = false;
  bool delivering_ = false;  // the running job's `done` is being called: too late to cancel
  bool stopping_ = false;

  std::thread thread_;
};

}  // namespace terrace
