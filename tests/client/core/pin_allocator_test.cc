#include "client/core/pin_allocator.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>
#include <vector>

namespace terrace {
namespace {

TEST(PinAllocator, GivesEachNumberOnceAndThenNone) {
  PinAllocator pins;
  EXPECT_TRUE(pins.Idle());
  std::set<uint32_t> given;
  for (uint32_t i = 0; i < kPinCount; ++i) {
    const uint32_t pin = pins.Acquire();
    ASSERT_LT(pin, kPinCount);
    ASSERT_TRUE(given.insert(pin).second);
  }
  EXPECT_EQ(pins.Acquire(), PinAllocator::kNone);
  pins.Release(77);
  EXPECT_EQ(pins.Acquire(), 77u);
  for (const uint32_t pin : given) pins.Release(pin);
  EXPECT_TRUE(pins.Idle());
}

TEST(PinAllocator, AFreedNumberIsReusedFirst) {
  PinAllocator pins;
  const uint32_t first = pins.Acquire();
  pins.Release(first);
  EXPECT_EQ(pins.Acquire(), first);
}

TEST(PinAllocator, NoTwoThreadsHoldTheSame) {
  PinAllocator pins;
  std::vector<std::atomic<int>> holders(kPinCount);
  std::atomic<int> shared{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        std::vector<uint32_t> mine;
        for (int i = 0; i < 100; ++i) {
          mine.push_back(pins.Acquire());
          if (holders[mine.back()].fetch_add(1) != 0) ++shared;
        }
        for (const uint32_t pin : mine) {
          holders[pin].fetch_sub(1);
          pins.Release(pin);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(shared.load(), 0);
  EXPECT_TRUE(pins.Idle());
}

TEST(PinAllocatorDeathTest, ADoubleReleaseEndsTheProcess) {
  PinAllocator pins;
  const uint32_t pin = pins.Acquire();
  pins.Release(pin);
  EXPECT_DEATH(pins.Release(pin), "");
}

}  // namespace
}  // namespace terrace
