#include "storage/engine/codec_arena.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "storage/base/limits.h"
#include "tests/storage/io/sim_device.h"

namespace terrace {
namespace {

class CodecArenaTest : public testing::Test {
 protected:
  CodecArenaTest() : medium_(kMiB, 1), device_(medium_, clock_, {}) {
    arena_ = *CodecArena::Create(device_, 4 * kMiB, {.best = PageRung::kSmall, .root = {}});
  }
  SimClock clock_;
  SimMedium medium_;
  SimDevice device_;
  std::unique_ptr<CodecArena> arena_;
};

TEST_F(CodecArenaTest, GivesWholePagesThatDoNotOverlap) {
  std::mt19937_64 random(4);
  std::map<uint8_t*, std::span<uint8_t>> taken;
  for (int i = 0; i < 20'000; ++i) {
    if (random() % 2 == 0) {
      const std::span<uint8_t> piece = arena_->Take(1 + random() % (300 * kKiB));
      if (piece.empty()) continue;
      ASSERT_EQ(reinterpret_cast<uintptr_t>(piece.data()) % kPageBytes, 0u);
      const auto next = taken.lower_bound(piece.data());
      ASSERT_TRUE(next == taken.end() || piece.data() + piece.size() <= next->first);
      if (next != taken.begin()) {
        const auto& before = std::prev(next)->second;
        ASSERT_LE(before.data() + before.size(), piece.data());
      }
      taken.emplace(piece.data(), piece);
    } else if (!taken.empty()) {
      const auto at = std::next(taken.begin(), static_cast<int64_t>(random() % taken.size()));
      arena_->Give(at->second);
      taken.erase(at);
    }
  }
  for (const auto& [data, piece] : taken) arena_->Give(piece);
  EXPECT_EQ(arena_->taken_bytes(), 0u);
  const std::span<uint8_t> all = arena_->Take(4 * kMiB);
  EXPECT_EQ(all.size(), 4 * kMiB);
  arena_->Give(all);
}

TEST_F(CodecArenaTest, NeverGivesMoreThanItHas) {
  const std::span<uint8_t> most = arena_->Take(4 * kMiB - kPageBytes);
  ASSERT_FALSE(most.empty());
  EXPECT_TRUE(arena_->Take(kPageBytes + 1).empty());
  const std::span<uint8_t> last = arena_->Take(1);
  ASSERT_FALSE(last.empty());
  EXPECT_TRUE(arena_->Take(1).empty());
  arena_->Give(most);
  arena_->Give(last);
  EXPECT_TRUE(arena_->Take(4 * kMiB + 1).empty());
}

TEST_F(CodecArenaTest, ShrinkGivesTheRestBack) {
  std::span<uint8_t> most = arena_->Take(4 * kMiB - 100);
  ASSERT_TRUE(arena_->Take(1).empty());
  arena_->Shrink(&most, 4 * kMiB - 200);  // the same page
  ASSERT_TRUE(arena_->Take(1).empty());
  arena_->Shrink(&most, kMiB + 1);
  EXPECT_EQ(most.size(), kMiB + 1);
  EXPECT_EQ(arena_->taken_bytes(), kMiB + kPageBytes);
  const std::span<uint8_t> rest = arena_->Take(3 * kMiB - kPageBytes);
  ASSERT_FALSE(rest.empty());
  EXPECT_EQ(rest.data(), most.data() + kMiB + kPageBytes);
  arena_->Give(rest);
  arena_->Give(most);
  EXPECT_EQ(arena_->Take(4 * kMiB).size(), 4 * kMiB);
}

TEST_F(CodecArenaTest, TheDeviceKnowsItsMemory) {
  EXPECT_NE(arena_->buffer(), kNoBuffer);
  EXPECT_EQ(device_.stats().buffers, 1u);
  arena_.reset();
  EXPECT_EQ(device_.stats().buffers, 0u);
}

}  // namespace
}  // namespace terrace
