#include "client/core/pin_allocator.h"

#include <bit>

#include "storage/base/check.h"

namespace terrace {
namespace {

std::atomic<uint32_t> threads_seen{0};

// Threads begin in different groups.
thread_local uint32_t start_group = threads_seen.fetch_add(1, std::memory_order_relaxed);

}  // namespace

uint32_t PinAllocator::Acquire() {
  for (uint32_t step = 0; step < kGroups; ++step) {
    const uint32_t group = (start_group + step) % kGroups;
    std::atomic<uint64_t>& taken = groups_[group].taken;
    uint64_t bits = taken.load(std::memory_order_relaxed);
    while (bits != UINT64_MAX) {
      const auto bit = static_cast<uint32_t>(std::countr_one(bits));
      if (taken.compare_exchange_weak(bits, bits | (uint64_t{1} << bit), std::memory_order_seq_cst,
                                      std::memory_order_relaxed)) {
        if (step != 0) start_group = group;
        return group * kGroupPins + bit;
      }
    }
  }
  return kNone;
}

void PinAllocator::Release(uint32_t pin) {
  const uint64_t bit = uint64_t{1} << (pin % kGroupPins);
  // Release: what the holder read under the pin was read before somebody sees it free.
  const uint64_t before =
      groups_[pin / kGroupPins].taken.fetch_and(~bit, std::memory_order_seq_cst);
  TERRACE_CHECK((before & bit) != 0);
}

bool PinAllocator::Idle() const {
  for (const Group& group : groups_) {
    if (group.taken.load(std::memory_order_seq_cst) != 0) return false;
  }
  return true;
}

}  // namespace terrace
