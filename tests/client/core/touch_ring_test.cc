#include "client/core/touch_ring.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <thread>
#include <vector>

namespace terrace {
namespace {

TEST(TouchRing, TellsTheLastWordFirst) {
  const auto memory = std::make_unique<shm::SessionMemory>();
  TouchRing ring(*memory);
  const std::array<uint64_t, 3> words{1, 2, 3};
  ring.PushReversed(words);
  ring.Push(4);
  EXPECT_EQ(memory->touch_tail.load(), 4u);
  EXPECT_EQ(memory->touches[0].load(), 3u);
  EXPECT_EQ(memory->touches[2].load(), 1u);
  EXPECT_EQ(memory->touches[3].load(), 4u);
}

TEST(TouchRing, AFullRingDropsAndCounts) {
  const auto memory = std::make_unique<shm::SessionMemory>();
  TouchRing ring(*memory);
  for (uint64_t i = 0; i < shm::kTouchCount + 10; ++i) ring.Push(i + 1);
  EXPECT_EQ(memory->touch_tail.load(), shm::kTouchCount);
  EXPECT_EQ(memory->touches_dropped.load(), 10u);
  memory->touch_head.store(1);
  ring.Push(77);
  EXPECT_EQ(memory->touches[0].load(), 77u);
  EXPECT_EQ(memory->touches_dropped.load(), 10u);
}

TEST(TouchRing, ThreadsLoseNothingUncounted) {
  const auto memory = std::make_unique<shm::SessionMemory>();
  TouchRing ring(*memory);
  constexpr uint32_t kThreads = 4, kEach = 3000;
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (uint32_t i = 0; i < kEach; ++i) ring.Push(1);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(memory->touch_tail.load() + memory->touches_dropped.load(), kThreads * kEach);
}

}  // namespace
}  // namespace terrace
