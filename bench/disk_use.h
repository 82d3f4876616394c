#pragma once

// What files take of their file system, as `du` counts it (allocated blocks, not lengths), watched
// while a workload runs.
//
// Threads: DiskWatch's are its own; DiskBytes is safe from any.

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>

namespace terrace {

// Of everything below `folder`, itself and what is in folders within included.
uint64_t DiskBytes(const std::string& folder);

class DiskWatch {
 public:
  explicit DiskWatch(std::string folder);
  DiskWatch(const DiskWatch&) = delete;
  DiskWatch& operator=(const DiskWatch&) = delete;
  ~DiskWatch();

  // The most that was seen so far, and how often it was looked.
  uint64_t most_bytes() const { return most_bytes_; }
  uint64_t samples() const { return samples_; }

 private:
  void Look();

  // Constant after construction.
  const std::string folder_;

  std::atomic<uint64_t> most_bytes_{0}, samples_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace terrace
