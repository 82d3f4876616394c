#include "storage/base/clock.h"

#include <ctime>

namespace terrace {

int64_t MonotonicNs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * kNsPerSecond + now.tv_nsec;
}

int64_t WallMs() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000 + now.tv_nsec / kNsPerMs;
}

int64_t SystemClock::NowNs() const { return MonotonicNs(); }

}  // namespace terrace
