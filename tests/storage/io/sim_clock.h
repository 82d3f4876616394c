#pragma once

// Time that a test moves.
//
// Threads: belongs to the test's thread.

#include "storage/base/check.h"
#include "storage/base/clock.h"

namespace terrace {

class SimClock final : public Clock {
 public:
  int64_t NowNs() const override { return now_ns_; }
  void Advance(int64_t ns) { AdvanceTo(now_ns_ + ns); }
  // REQUIRES: not into the past.
  void AdvanceTo(int64_t ns) {
    TERRACE_CHECK(ns >= now_ns_);
    now_ns_ = ns;
  }

 private:
  int64_t now_ns_ = kNsPerSecond;  // past zero, so that "a while ago" is a time
};

}  // namespace terrace
