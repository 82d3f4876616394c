#pragma once

// The client's end of a session's touch ring: many threads of this process, one reader (the
// daemon).  Touches are hints, so nobody ever waits here: a full ring, or a lock that stays taken
// (its holder was descheduled), drops and counts.
//
// Threads: safe from any thread; no system call.

#include <atomic>
#include <cstdint>
#include <span>

#include "proto/shm/lookup.h"
#include "proto/shm/session_layout.h"

namespace terrace {

class TouchRing {
 public:
  explicit TouchRing(shm::SessionMemory& memory) : memory_(memory) {}

  void Push(uint64_t word) { PushReversed(std::span(&word, 1)); }

  // The last word first.
  void PushReversed(std::span<const uint64_t> words) {
    if (words.empty()) return;
    if (!TryLock()) return Drop(words.size());
    size_t dropped = 0;
    for (size_t left = words.size(); left > 0; --left) {
      if (tail_ - head_seen_ >= shm::kTouchCount) {
        head_seen_ = memory_.touch_head.load(std::memory_order_acquire);
        if (tail_ - head_seen_ >= shm::kTouchCount) {
          dropped = left;
          break;
        }
      }
      memory_.touches[tail_ % shm::kTouchCount].store(words[left - 1], std::memory_order_relaxed);
      ++tail_;
    }
    memory_.touch_tail.store(tail_, std::memory_order_release);
    locked_.store(false, std::memory_order_release);
    if (dropped > 0) Drop(dropped);
  }

 private:
  static constexpr int kLockTries = 100;

  bool TryLock() {
    for (int tries = 0; tries < kLockTries; ++tries) {
      if (!locked_.exchange(true, std::memory_order_acquire)) return true;
      shm::SpinPause();
    }
    return false;
  }
  void Drop(size_t count) { memory_.touches_dropped.fetch_add(count, std::memory_order_relaxed); }

  // Constant after construction.
  shm::SessionMemory& memory_;

  std::atomic<bool> locked_{false};
  // Under the lock.  The daemon's head is on a line that it writes: looked at only when full.
  uint32_t tail_ = 0;
  uint32_t head_seen_ = 0;
};

}  // namespace terrace
