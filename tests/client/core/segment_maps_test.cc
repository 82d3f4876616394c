#include "client/core/segment_maps.h"

#include <gtest/gtest.h>

#include <thread>

#include "proto/shm/record_layout.h"
#include "storage/base/clock.h"
#include "storage/base/limits.h"
#include "storage/mem/memory_file.h"

namespace terrace {
namespace {

constexpr uint64_t kSegment = 2 * kMiB;

MemoryFile File(uint8_t fill) {
  Result<MemoryFile> file =
      MemoryFile::Create("terrace-test", kSegment, {.best = PageRung::kSmall, .root = {}});
  EXPECT_TRUE(file.ok());
  file->mapping().writable_data()[8192] = fill;
  return *std::move(file);
}

shm::Location At(uint32_t segment, uint64_t generation, uint64_t offset = 8192) {
  return {.segment = segment, .generation = generation, .offset = offset};
}

TEST(SegmentMaps, FindsOnlyTheGenerationThatIsMapped) {
  SegmentMaps maps(4, kSegment);
  const MemoryFile file = File(7);
  EXPECT_EQ(maps.Find(At(1, 5), 4096), nullptr);
  ASSERT_TRUE(
      maps.Map({.segment = 1, .writable = 0, .generation = 5}, kSegment, file.OpenReadOnly()->get())
          .ok());
  const std::byte* const found = maps.Find(At(1, 5), 4096);
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(*found, std::byte{7});
  EXPECT_EQ(maps.Find(At(1, 6), 4096), nullptr);
  EXPECT_EQ(maps.Find(At(2, 5), 4096), nullptr);
  EXPECT_EQ(maps.Find(At(4000, 5), 4096), nullptr);
}

TEST(SegmentMaps, ARecordBeyondTheSegmentIsNotFound) {
  SegmentMaps maps(1, kSegment);
  const MemoryFile file = File(7);
  ASSERT_TRUE(
      maps.Map({.segment = 0, .writable = 0, .generation = 1}, kSegment, file.OpenReadOnly()->get())
          .ok());
  const uint64_t last = kSegment - shm::RecordBytes(4096);
  EXPECT_NE(maps.Find(At(0, 1, last), 4096), nullptr);
  EXPECT_EQ(maps.Find(At(0, 1, last), 4097), nullptr);
  EXPECT_EQ(maps.Find(At(0, 1, last + 4096), 4096), nullptr);
  EXPECT_EQ(maps.Find(At(0, 1, 0), UINT32_MAX), nullptr);
}

TEST(SegmentMaps, WhatTheIndexDoesNotHaveIsRefused) {
  SegmentMaps maps(2, kSegment);
  const MemoryFile file = File(1);
  const int fd = file.fd().get();
  EXPECT_FALSE(maps.Map({.segment = 2, .writable = 0, .generation = 1}, kSegment, fd).ok());
  EXPECT_FALSE(maps.Map({.segment = 0, .writable = 0, .generation = 1}, kSegment / 2, fd).ok());
  EXPECT_FALSE(maps.Map({.segment = 0, .writable = 0, .generation = 0}, kSegment, fd).ok());
  EXPECT_TRUE(maps.Known().empty());
}

TEST(SegmentMaps, AWritableMappingServesReadersAndIsKnownAsBoth) {
  SegmentMaps maps(1, kSegment);
  const MemoryFile file = File(9);
  ASSERT_TRUE(
      maps.Map({.segment = 0, .writable = 1, .generation = 3}, kSegment, file.fd().get()).ok());
  std::shared_ptr<Mapping> hold;
  std::byte* const to = maps.FindWritable(At(0, 3), 4096, &hold);
  ASSERT_NE(to, nullptr);
  *to = std::byte{42};
  EXPECT_EQ(*maps.Find(At(0, 3), 4096), std::byte{42});
  EXPECT_EQ(maps.Known().size(), 2u);
}

TEST(SegmentMaps, AReadOnlyMappingIsNotWritable) {
  SegmentMaps maps(1, kSegment);
  const MemoryFile file = File(9);
  ASSERT_TRUE(
      maps.Map({.segment = 0, .writable = 0, .generation = 3}, kSegment, file.OpenReadOnly()->get())
          .ok());
  std::shared_ptr<Mapping> hold;
  EXPECT_EQ(maps.FindWritable(At(0, 3), 4096, &hold), nullptr);
}

TEST(SegmentMaps, ASupersededMappingStaysUnderItsPin) {
  SegmentMaps maps(1, kSegment);
  const MemoryFile old = File(1), fresh = File(2);
  std::vector<std::atomic<uint64_t>> pins(4);
  ASSERT_TRUE(
      maps.Map({.segment = 0, .writable = 0, .generation = 1}, kSegment, old.OpenReadOnly()->get())
          .ok());
  pins[2] = shm::PinWord(0, 1);
  const std::byte* const bytes = maps.Find(At(0, 1), 4096);
  ASSERT_TRUE(maps.Map({.segment = 0, .writable = 0, .generation = 2}, kSegment,
                       fresh.OpenReadOnly()->get())
                  .ok());
  EXPECT_EQ(maps.Find(At(0, 1), 4096), nullptr);
  EXPECT_EQ(*maps.Find(At(0, 2), 4096), std::byte{2});
  EXPECT_EQ(maps.Sweep(pins), 1u);
  EXPECT_EQ(*bytes, std::byte{1});
  pins[2] = shm::PinWord(0, 2);
  EXPECT_EQ(maps.Sweep(pins), 0u);
}

TEST(SegmentMaps, AWriterKeepsItsMappingWhateverHappens) {
  SegmentMaps maps(1, kSegment);
  const MemoryFile file = File(1);
  ASSERT_TRUE(
      maps.Map({.segment = 0, .writable = 1, .generation = 1}, kSegment, file.fd().get()).ok());
  std::shared_ptr<Mapping> hold;
  std::byte* const to = maps.FindWritable(At(0, 1), 4096, &hold);
  maps.Clear();
  *to = std::byte{5};
  EXPECT_EQ(file.mapping().data()[8192], 5);
}

TEST(SegmentMaps, AwaitEndsWithTheMappingTheDeadlineOrTheEnd) {
  SegmentMaps maps(2, kSegment);
  const MemoryFile file = File(1);
  EXPECT_FALSE(maps.Await(At(0, 1), false, MonotonicNs() + kNsPerMs));
  std::thread mapper([&] {
    EXPECT_TRUE(maps.Map({.segment = 0, .writable = 0, .generation = 1}, kSegment,
                         file.OpenReadOnly()->get())
                    .ok());
  });
  EXPECT_TRUE(maps.Await(At(0, 1), false, MonotonicNs() + 20 * kNsPerSecond));
  mapper.join();
  std::thread closer([&] { maps.Close(); });
  EXPECT_FALSE(maps.Await(At(0, 1), true, MonotonicNs() + 20 * kNsPerSecond));
  closer.join();
}

}  // namespace
}  // namespace terrace
