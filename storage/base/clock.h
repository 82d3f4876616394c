#pragma once

// Time as a value that tests can own.
//
// Threads: Clock implementations are safe from any thread.

#include <cstdint>

namespace terrace {

inline constexpr int64_t kNsPerUs = 1'000;
inline constexpr int64_t kNsPerMs = 1'000'000;
inline constexpr int64_t kNsPerSecond = 1'000'000'000;

class Clock {
 public:
  virtual ~Clock() = default;

  // CLOCK_MONOTONIC, in nanoseconds: the same in every process of the node, so that a deadline
  // can travel through shared memory.
  virtual int64_t NowNs() const = 0;
};

class SystemClock final : public Clock {
 public:
  int64_t NowNs() const override;
};

// CLOCK_MONOTONIC now; a vDSO call, not a system call.
int64_t MonotonicNs();

// CLOCK_REALTIME, in milliseconds since 1970: for people.
int64_t WallMs();

}  // namespace terrace
