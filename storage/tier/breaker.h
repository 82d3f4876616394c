#pragma once

// Stops asking a medium that keeps failing, and asks again after a while:
//
//   closed --failures in a row--> open --its backoff has passed--> trying --success--> closed
//                                   ^------------- failure, backoff doubled -----------'
//
// Threads: a value; one owner.  Time comes in as a value.

#include <algorithm>
#include <cstdint>

#include "storage/base/clock.h"
#include "storage/base/status.h"

namespace terrace {

struct BreakerOptions {
  uint32_t failures = 1;  // in a row, that open it
  int64_t backoff_ns = kNsPerSecond;
  int64_t backoff_ns_max = 60 * kNsPerSecond;
};

class Breaker {
 public:
  explicit Breaker(const BreakerOptions& options)
      : options_(options), backoff_ns_(options.backoff_ns) {}

  bool Allows(int64_t now_ns) const { return !open_ || now_ns >= open_until_ns_; }
  // Failed and not tried again with success yet.
  bool open() const { return open_; }
  int64_t open_until_ns() const { return open_until_ns_; }
  uint64_t opened() const { return opened_; }
  const Status& cause() const { return cause_; }

  void Worked() {
    in_a_row_ = 0;
    open_ = false;
    backoff_ns_ = options_.backoff_ns;
  }

  void Failed(const Status& cause, int64_t now_ns) {
    ++in_a_row_;
    // What was under way when it opened says nothing new.
    if (open_ && now_ns < open_until_ns_) return;
    if (!open_ && in_a_row_ < options_.failures) return;
    if (open_) backoff_ns_ = std::min(2 * backoff_ns_, options_.backoff_ns_max);
    open_ = true;
    open_until_ns_ = now_ns + backoff_ns_;
    cause_ = cause;
    ++opened_;
  }

 private:
  BreakerOptions options_;
  bool open_ = false;
  uint32_t in_a_row_ = 0;
  uint64_t opened_ = 0;
  int64_t open_until_ns_ = 0;
  int64_t backoff_ns_ = 0;
  Status cause_;
};

}  // namespace terrace
