#include "storage/segment/segment_pool.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <set>
#include <thread>
#include <utility>

#include "storage/base/limits.h"

namespace terrace {
namespace {

constexpr uint64_t kBytes = 2 * kMiB;

SegmentPoolOptions FourSegments() {
  SegmentPoolOptions options;
  options.name = "terrace-test";
  options.segment_bytes = kBytes;
  options.segment_count = 4;
  options.memory.best = PageRung::kSmall;
  return options;
}

std::unique_ptr<SegmentPool> Make() {
  Result<std::unique_ptr<SegmentPool>> pool = SegmentPool::Create(FourSegments());
  TERRACE_CHECK(pool.ok());
  return *std::move(pool);
}

TEST(SegmentPool, SizesOutOfBoundsAreInvalid) {
  for (const uint64_t bytes : {kMiB, 3 * kMiB, 2 * kGiB}) {
    SegmentPoolOptions options = FourSegments();
    options.segment_bytes = bytes;
    EXPECT_EQ(SegmentPool::Create(options).status().code(), StatusCode::kInvalid);
  }
  SegmentPoolOptions options = FourSegments();
  options.segment_count = kSegmentCountMax + 1;
  EXPECT_EQ(SegmentPool::Create(options).status().code(), StatusCode::kInvalid);
}

TEST(SegmentPool, OpensEachOnceThenHasNoSpace) {
  const auto pool = Make();
  std::set<uint32_t> opened;
  for (int i = 0; i < 4; ++i) opened.insert(*pool->Open(SegmentKind::kLeased));
  EXPECT_EQ(opened.size(), 4u);
  EXPECT_EQ(pool->free_count(), 0u);
  EXPECT_EQ(pool->Open(SegmentKind::kLeased).status().code(), StatusCode::kNoSpace);
}

TEST(SegmentPool, GenerationsCountMemfdsFromOne) {
  const auto pool = Make();
  std::set<uint64_t> generations;
  for (uint32_t i = 0; i < 4; ++i) generations.insert(pool->at(i).generation);
  EXPECT_EQ(generations, (std::set<uint64_t>{1, 2, 3, 4}));
}

TEST(SegmentPool, AppendsBackToBackUntilFull) {
  const auto pool = Make();
  const uint32_t segment = *pool->Open(SegmentKind::kLeased);
  uint64_t offset = 1;
  EXPECT_TRUE(pool->Append(segment, kMiB, &offset));
  EXPECT_EQ(offset, 0u);
  EXPECT_FALSE(pool->Append(segment, kMiB + kPageBytes, &offset));
  EXPECT_TRUE(pool->Append(segment, kMiB, &offset));
  EXPECT_EQ(offset, kMiB);
  EXPECT_FALSE(pool->Append(segment, kPageBytes, &offset));
  pool->Unappend(segment, kMiB);
  EXPECT_TRUE(pool->Append(segment, kPageBytes, &offset));
  EXPECT_EQ(offset, kMiB);
}

TEST(SegmentPool, FreedSegmentKeepsItsMemfdAndForgetsItsContent) {
  const auto pool = Make();
  const uint32_t segment = *pool->Open(SegmentKind::kLeased);
  const uint64_t generation = pool->at(segment).generation;
  const uint64_t epoch = pool->epoch();
  uint64_t offset = 0;
  ASSERT_TRUE(pool->Append(segment, kMiB, &offset));
  pool->at(segment).records.push_back({});
  pool->at(segment).leaves.push_back(1);
  pool->Seal(segment);
  pool->BeginDrain(segment, 0);
  pool->Free(segment);
  EXPECT_EQ(pool->at(segment).generation, generation);
  EXPECT_EQ(pool->at(segment).fill_bytes, 0u);
  EXPECT_TRUE(pool->at(segment).records.empty());
  EXPECT_TRUE(pool->at(segment).leaves.empty());
  EXPECT_EQ(pool->free_count(), 4u);
  EXPECT_EQ(pool->epoch(), epoch);
}

TEST(SegmentPool, ReplacedSegmentIsOtherMemory) {
  const auto pool = Make();
  const uint32_t segment = *pool->Open(SegmentKind::kLeased);
  const uint64_t generation = pool->at(segment).generation;
  const uint64_t epoch = pool->epoch();
  pool->at(segment).poisons[7] = 1;
  pool->at(segment).writers = {7};
  std::memset(pool->at(segment).memory.mapping().writable_data(), 0xaa, kPageBytes);
  const UniqueFd old = pool->at(segment).memory.fd().Duplicate();
  pool->Seal(segment);
  pool->BeginDrain(segment, 0);
  pool->Replace(segment);
  EXPECT_GT(pool->at(segment).generation, generation);
  EXPECT_GT(pool->epoch(), epoch);
  EXPECT_TRUE(pool->at(segment).poisons.empty());
  EXPECT_TRUE(pool->at(segment).writers.empty());
  EXPECT_EQ(pool->at(segment).kind, SegmentKind::kFresh);
  EXPECT_EQ(pool->at(segment).memory.mapping().data()[0], 0);
  // Who still has the old one writes to pages of its own.
  const uint8_t late = 0xbb;
  ASSERT_EQ(pwrite(old.get(), &late, 1, 0), 1);
  EXPECT_EQ(pool->at(segment).memory.mapping().data()[0], 0);
}

TEST(SegmentPool, KindChangesOnlyByAFreshMemfd) {
  const auto pool = Make();
  std::set<uint64_t> leased;
  for (int i = 0; i < 4; ++i) {
    const uint32_t segment = *pool->Open(SegmentKind::kLeased);
    leased.insert(pool->at(segment).generation);
    pool->Seal(segment);
  }
  for (uint32_t i = 0; i < 4; ++i) {
    pool->BeginDrain(i, 0);
    pool->Free(i);
  }
  const uint32_t filled = *pool->Open(SegmentKind::kDaemonFilled);
  EXPECT_FALSE(leased.contains(pool->at(filled).generation));
  EXPECT_EQ(pool->free_count(), 3u);
  const uint32_t again = *pool->Open(SegmentKind::kLeased);
  EXPECT_TRUE(leased.contains(pool->at(again).generation));
}

TEST(SegmentPool, DaemonFilledMemoryCannotBeMappedWritableAnymore) {
  const auto pool = Make();
  const uint32_t segment = *pool->Open(SegmentKind::kDaemonFilled);
  const int fd = pool->at(segment).memory.fd().get();
  EXPECT_EQ(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
  pool->at(segment).memory.mapping().writable_data()[0] = 1;  // the daemon still can
  const uint32_t leased = *pool->Open(SegmentKind::kLeased);
  void* mapped = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                      pool->at(leased).memory.fd().get(), 0);
  ASSERT_NE(mapped, MAP_FAILED);
  munmap(mapped, kBytes);
}

TEST(SegmentPool, PopulationEndsByItself) {
  const auto pool = Make();
  while (pool->populated_bytes() != 4 * kBytes) std::this_thread::yield();
  const uint32_t segment = *pool->Open(SegmentKind::kLeased);
  pool->Seal(segment);
  pool->BeginDrain(segment, 0);
  pool->Replace(segment);
  while (!pool->IsPopulated(segment)) std::this_thread::yield();
}

}  // namespace
}  // namespace terrace
