#pragma once

// What a policy keeps of each chunk, by PolicyHandle.  Grows with the greatest number of chunks
// ever alive, without moving what is there; handles are reused after Release.
//
// Threads: values of one owner.

#include <cstdint>
#include <deque>

#include "storage/base/check.h"
#include "storage/policy/policy.h"

namespace terrace {

template <typename Entry>
class HandleTable {
 public:
  PolicyHandle Add(const Entry& entry) {
    ++live_count_;
    if (first_free_ == kNone) {
      TERRACE_CHECK(places_.size() < kNone);
      places_.push_back(Place{.entry = entry, .next_free = kLive});
      return static_cast<PolicyHandle>(places_.size() - 1);
    }
    const PolicyHandle handle = first_free_;
    first_free_ = places_[handle].next_free;
    places_[handle] = Place{.entry = entry, .next_free = kLive};
    return handle;
  }

  // REQUIRES: the handle is live (also for At): a dead one means that the caller's books are wrong.
  void Release(PolicyHandle handle) {
    TERRACE_CHECK(IsLive(handle));
    places_[handle].next_free = first_free_;
    first_free_ = handle;
    --live_count_;
  }

  Entry& At(PolicyHandle handle) {
    TERRACE_CHECK(IsLive(handle));
    return places_[handle].entry;
  }
  const Entry& At(PolicyHandle handle) const {
    TERRACE_CHECK(IsLive(handle));
    return places_[handle].entry;
  }

  uint32_t live_count() const { return live_count_; }

 private:
  static constexpr uint32_t kLive = UINT32_MAX;      // a place in use
  static constexpr uint32_t kNone = UINT32_MAX - 1;  // the end of the free list

  struct Place {
    Entry entry;
    uint32_t next_free;
  };

  bool IsLive(PolicyHandle handle) const {
    return handle < places_.size() && places_[handle].next_free == kLive;
  }

  std::deque<Place> places_;  // never moves: growing a vector of millions would stall the shard
  uint32_t first_free_ = kNone;
  uint32_t live_count_ = 0;
};

}  // namespace terrace
