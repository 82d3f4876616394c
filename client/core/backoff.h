#pragma once

// How long to wait before connecting again: longer with each attempt that fails, and from the
// shortest again after a connection that served.
//
// Threads: a value; one owner.

#include <algorithm>
#include <cstdint>

#include "storage/base/clock.h"

namespace terrace {

class Backoff {
 public:
  static constexpr int64_t kNsMin = 10 * kNsPerMs;
  static constexpr int64_t kNsMax = kNsPerSecond;

  // `served`: the attempt before was a connection that became available.
  int64_t NextNs(bool served) {
    pause_ns_ = served ? kNsMin : std::min(pause_ns_ * 2, kNsMax);
    return pause_ns_;
  }

 private:
  int64_t pause_ns_ = kNsMin;
};

}  // namespace terrace
