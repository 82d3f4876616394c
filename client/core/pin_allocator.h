#pragma once

// Which of a session's pin words are in use.  It hands out numbers; the words themselves lie in the
// session's shared memory.
//
// A thread starts its search where it found a word last, in a group of 64 with a cache line of its
// own: two threads meet only when one has filled its group.
//
// Threads: safe from any thread; lock-free, no system call.

#include <array>
#include <atomic>
#include <cstdint>

#include "storage/base/limits.h"

namespace terrace {

class PinAllocator {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  // A number below kPinCount that nobody else holds, or kNone when all are taken.  seq_cst: a load
  // that follows is later than the taking in the single total order (Session's guard rests on it).
  uint32_t Acquire();

  // REQUIRES: Acquire gave `pin`, and its word is 0 again.
  void Release(uint32_t pin);

  // Whether all are free.
  bool Idle() const;

 private:
  static constexpr uint32_t kGroupPins = 64;
  static constexpr uint32_t kGroups = kPinCount / kGroupPins;
  static_assert(kGroups * kGroupPins == kPinCount);

  struct alignas(64) Group {
    std::atomic<uint64_t> taken{0};  // a bit a pin
  };

  std::array<Group, kGroups> groups_;
};

}  // namespace terrace
