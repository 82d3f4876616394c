#pragma once

// Waiting for what other threads or processes bring about, with a bound.
//
// Threads: blocks the caller.

#include <chrono>
#include <functional>
#include <thread>

#include "storage/base/clock.h"

namespace terrace {

// Whether `wanted` comes true in time.  The pause between looks leaves the processor to who is
// waited for; nothing is told from its length.
inline bool Soon(const std::function<bool()>& wanted, int64_t within_ns = 20 * kNsPerSecond) {
  const int64_t until_ns = MonotonicNs() + within_ns;
  while (!wanted()) {
    if (MonotonicNs() > until_ns) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace terrace
