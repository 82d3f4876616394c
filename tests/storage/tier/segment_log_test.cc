#include "storage/tier/segment_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>

#include "tests/storage/tier/log_machine.h"

namespace terrace {
namespace {

using testing::HasSubstr;

struct Disk {
  explicit Disk(uint32_t segments) : medium(TestDiskBytes(segments), 1) {}
  SimMedium medium;
  SimClock clock;
};

std::set<uint32_t> Numbers(const std::vector<RecoveredRecord>& records) {
  std::set<uint32_t> numbers;
  for (const RecoveredRecord& record : records) numbers.insert(NumberOf(record.identity.key));
  return numbers;
}

TEST(SegmentLog, RecordsComeBackWholeAndInParts) {
  Disk disk(8);
  LogMachine machine(disk.medium, disk.clock);
  ASSERT_TRUE(machine.Start().ok());
  const TestChunk small = ChunkOf(1, 1);
  const TestChunk odd = ChunkOf(2, 3 * shm::kLeafBytes + 11);
  const TestChunk large = ChunkOf(3, 1'500'000);
  for (const TestChunk* chunk : {&small, &odd, &large}) {
    ASSERT_TRUE(machine.Put(*chunk).ok());
    EXPECT_TRUE(machine.Get(*chunk).ok());
  }

  // The header, and a range of leaves in the middle and at the end.
  const LogPlace place = machine.places.at(2);
  AlignedBytes into(256 * kKiB);
  const auto read = [&](uint64_t offset, uint64_t bytes) {
    std::optional<Status> done;
    EXPECT_TRUE(machine.log()
                    .Read(
                        {.place = place, .offset = offset, .bytes = bytes, .into = into.data()},
                        [&](const Status& status) { done = status; }, machine.now())
                    .ok());
    machine.RunUntil([&] { return done.has_value(); });
    EXPECT_TRUE(done->ok());
  };
  shm::RecordHeader header;
  read(0, sizeof(header));
  std::memcpy(&header, into.data(), sizeof(header));
  read(sizeof(header) + shm::kLeafBytes, shm::kLeafBytes);
  EXPECT_TRUE(
      VerifyRange(header, odd.identity, place, shm::kLeafBytes, {into.data(), shm::kLeafBytes})
          .ok());
  EXPECT_EQ(std::memcmp(into.data(), odd.payload.data() + shm::kLeafBytes, shm::kLeafBytes), 0);
  EXPECT_EQ(VerifyRange(header, odd.identity, place, 0, {into.data(), shm::kLeafBytes}).code(),
            StatusCode::kCorrupt);
  read(sizeof(header) + 2 * shm::kLeafBytes, shm::kLeafBytes + kPageBytes);
  EXPECT_TRUE(VerifyRange(header, odd.identity, place, 2 * shm::kLeafBytes,
                          {into.data(), shm::kLeafBytes + 11})
                  .ok());
  EXPECT_EQ(VerifyRange(header, odd.identity, place, 1, {into.data(), 5}).code(),
            StatusCode::kInvalid);
}

TEST(SegmentLog, EachReuseClassFillsASegmentOfItsOwn) {
  Disk disk(8);
  LogMachine machine(disk.medium, disk.clock);
  ASSERT_TRUE(machine.Start().ok());
  for (uint32_t number = 0; number < 9; ++number) {
    ASSERT_TRUE(machine.Put(ChunkOf(number, 5000), number % 3).ok());
  }
  for (uint32_t number = 3; number < 9; ++number) {
    EXPECT_EQ(machine.places.at(number).segment, machine.places.at(number % 3).segment);
    EXPECT_GT(machine.places.at(number).offset_units, machine.places.at(number - 3).offset_units);
  }
  EXPECT_NE(machine.places.at(0).segment, machine.places.at(1).segment);
  EXPECT_NE(machine.places.at(1).segment, machine.places.at(2).segment);
  EXPECT_EQ(machine.log().stats().segments.open, 3u);
}

TEST(SegmentLog, AppendsOfOneGroupShareASync) {
  Disk disk(8);
  LogMachine machine(disk.medium, disk.clock);
  ASSERT_TRUE(machine.Start().ok());
  ASSERT_TRUE(machine.Put(ChunkOf(1000, 5000)).ok());
  const uint64_t before = machine.log().stats().writes.syncs;
  std::vector<TestChunk> chunks;
  for (uint32_t number = 0; number < 10; ++number) chunks.push_back(ChunkOf(number, 5000));
  int done = 0;
  for (const TestChunk& chunk : chunks) {
    ASSERT_TRUE(
        machine
            .Append(chunk, 0, [&](const LogPlace&, const Status& status) { done += status.ok(); })
            .ok());
  }
  EXPECT_EQ(done, 0);
  machine.RunUntil([&] { return done == 10; });
  EXPECT_EQ(done, 10);
  EXPECT_EQ(machine.log().stats().writes.syncs, before + 1);
}

TEST(SegmentLog, VerifiedAppendsEndCorruptWhereTheyDifferFromTheirTable) {
  for (const uint64_t buffer_bytes : {64 * kKiB, 100 * kKiB, 1 * kMiB}) {
    Disk disk(8);
    SegmentLogOptions options = TestOptions();
    options.write.buffer_bytes = static_cast<uint32_t>(buffer_bytes);
    LogMachine machine(disk.medium, disk.clock, options);
    ASSERT_TRUE(machine.Start().ok());
    const auto append = [&](const TestChunk& chunk) {
      std::optional<Status> ended;
      const LogAppend wanted{.header = &chunk.header, .stored = chunk.payload, .verify = true};
      const auto done = [&](const LogPlace& place, const Status& status) {
        if (status.ok()) machine.places[NumberOf(chunk.identity.key)] = place;
        ended = status;
      };
      EXPECT_TRUE(machine.log().Append(wanted, done, machine.now()).ok());
      machine.RunUntil([&] { return ended.has_value(); });
      return ended->code();
    };
    const TestChunk first = ChunkOf(1, 3 * shm::kLeafBytes + 11), last = ChunkOf(3, 1);
    TestChunk changed = ChunkOf(2, 3 * shm::kLeafBytes + 11);
    changed.payload[2 * shm::kLeafBytes + 5] ^= 1;
    EXPECT_EQ(append(first), StatusCode::kOk);
    EXPECT_EQ(append(changed), StatusCode::kCorrupt);
    EXPECT_EQ(append(last), StatusCode::kOk);
    EXPECT_TRUE(machine.Get(first).ok());
    EXPECT_TRUE(machine.Get(last).ok());
    EXPECT_EQ(machine.log().stats().writes.records, 2u);
  }
}

TEST(SegmentLog, WhatIsSealedWasWritten) {
  Disk disk(8);
  LogMachine machine(disk.medium, disk.clock);
  ASSERT_TRUE(machine.Start().ok());
  EXPECT_EQ(machine.log().LongestWritten().bytes, 0u);
  uint32_t number = 0;
  while (machine.log().stats().segments.sealed < 3) {
    ASSERT_TRUE(machine.Put(ChunkOf(number++, 500'000)).ok());
    machine.RunUntilIdle();
  }
  const SegmentLog::Written written = machine.log().LongestWritten();
  EXPECT_EQ(written.offset, SegmentOffset(0, kTestSegmentBytes));
  EXPECT_GT(written.bytes, 2 * kTestSegmentBytes);
  EXPECT_LT(written.bytes, 3 * kTestSegmentBytes);
}

TEST(SegmentLog, UrgentAppendsDoNotLinger) {
  Disk disk(8);
  SegmentLogOptions options = TestOptions();
  options.write.linger_ns = 10 * kNsPerSecond;
  LogMachine machine(disk.medium, disk.clock, options);
  ASSERT_TRUE(machine.Start().ok());
  const TestChunk chunk = ChunkOf(1, 5000), other = ChunkOf(2, 5000);
  const int64_t begun = machine.now();
  int done = 0;
  const auto count = [&](const LogPlace&, const Status& status) { done += status.ok(); };
  ASSERT_TRUE(machine.Append(other, 0, count).ok());
  ASSERT_TRUE(machine.Append(chunk, 0, count, true).ok());
  machine.RunUntil([&] { return done == 2; });
  EXPECT_LT(machine.now() - begun, 10 * kNsPerMs);
}

TEST(SegmentLog, SealedSegmentsAreRecoveredFromTheirFooters) {
  Disk disk(8);
  std::map<uint32_t, LogPlace> places;
  {
    LogMachine machine(disk.medium, disk.clock);
    ASSERT_TRUE(machine.Start().ok());
    EXPECT_TRUE(machine.log().stats().formatted);
    for (uint32_t number = 0; number < 40; ++number) {
      ASSERT_TRUE(machine.Put(ChunkOf(number, 100'000 + number), number % 2).ok()) << number;
    }
    for (uint32_t reuse_class = 0; reuse_class < 3; ++reuse_class) machine.log().Seal(reuse_class);
    machine.RunUntilIdle();
    EXPECT_EQ(machine.log().stats().segments.open, 0u);
    places = machine.places;
  }
  LogMachine machine(disk.medium, disk.clock);
  ASSERT_TRUE(machine.Start().ok());
  const SegmentLogStats stats = machine.log().stats();
  EXPECT_FALSE(stats.formatted);
  EXPECT_EQ(stats.recovery.from_footers, 4u);
  EXPECT_EQ(stats.recovery.walked, 0u);
  EXPECT_EQ(stats.recovery.records, 40u);
  EXPECT_EQ(stats.segments.sealed, 4u);
  EXPECT_EQ(stats.segments.live_bytes, stats.recovery.record_bytes);
  EXPECT_EQ(machine.places, places);
  for (const RecoveredRecord& record : machine.recovered) {
    const uint32_t number = NumberOf(record.identity.key);
    const TestChunk chunk = ChunkOf(number, 100'000 + number);
    EXPECT_EQ(record.identity, chunk.identity);
    EXPECT_EQ(record.stored_bytes, chunk.payload.size());
    EXPECT_TRUE(machine.Get(chunk).ok());
  }
}

TEST(SegmentLog, OpenSegmentsAreWalkedOnceAndSealedThen) {
  Disk disk(8);
  const auto expect_all = [](LogMachine& machine) {
    EXPECT_EQ(machine.recovered.size(), 10u);
    EXPECT_EQ(Numbers(machine.recovered).size(), 10u);
    for (uint32_t number = 0; number < 10; ++number) {
      EXPECT_TRUE(machine.Get(ChunkOf(number, 70'000 * (number % 4) + 1)).ok()) << number;
    }
  };
  {
    LogMachine machine(disk.medium, disk.clock);
    ASSERT_TRUE(machine.Start().ok());
    for (uint32_t number = 0; number < 10; ++number) {
      ASSERT_TRUE(machine.Put(ChunkOf(number, 70'000 * (number % 4) + 1), number % 3).ok());
    }
    machine.LosePower();
  }
  {
    LogMachine machine(disk.medium, disk.clock);
    ASSERT_TRUE(machine.Start().ok());
    EXPECT_EQ(machine.log().stats().recovery.walked, 3u);
    EXPECT_EQ(machine.log().stats().recovery.from_footers, 0u);
    expect_all(machine);
    machine.RunUntilIdle();
    EXPECT_EQ(machine.log().stats().segments.sealed, 3u);
  }
  LogMachine machine(disk.medium, disk.clock);
  ASSERT_TRUE(machine.Start().ok());
  EXPECT_EQ(machine.log().stats().recovery.walked, 0u);
  EXPECT_EQ(machine.log().stats().recovery.from_footers, 3u);
  expect_all(machine);
}

// 507 records of 8 KiB and their footer of 32 KiB fill 4 MiB to the last byte: more than recovery
// reads at first, and more than one write buffer holds.
TEST(SegmentLog, LargeFooterIsWrittenAndReadInPieces) {
  SegmentLogOptions options = TestOptions();
  options.segment_bytes = 4 * kMiB;
  options.write.buffer_bytes = 16 * kKiB;
  options.write.linger_ns = kNsPerMs;
  SimMedium medium(SegmentOffset(3, options.segment_bytes), 1);
  SimClock clock;
  {
    LogMachine machine(medium, clock, options);
    ASSERT_TRUE(machine.Start().ok());
    for (uint32_t number = 0; number < 507; ++number) {
      ASSERT_TRUE(machine.Put(ChunkOf(number, 1)).ok());
    }
    EXPECT_EQ(machine.log().stats().segments.free, 2u);
    ASSERT_TRUE(machine.Put(ChunkOf(507, 1)).ok());
    EXPECT_EQ(machine.log().stats().segments.free, 1u);
  }
  LogMachine machine(medium, clock, options);
  ASSERT_TRUE(machine.Start().ok());
  EXPECT_EQ(Numbers(machine.recovered).size(), 508u);
  EXPECT_EQ(machine.log().stats().recovery.from_footers, 1u);
  EXPECT_EQ(machine.log().stats().recovery.walked, 1u);
  for (uint32_t number = 0; number < 508; number += 13) {
    EXPECT_TRUE(machine.Get(ChunkOf(number, 1)).ok()) << number;
  }
}

TEST(SegmentLog, FullLogHasNoSpaceUntilASegmentIsFreed) {
  Disk disk(2);
  LogMachine machine(disk.medium, disk.clock);
  ASSERT_TRUE(machine.Start().ok());
  uint32_t number = 0;
  while (machine.Put(ChunkOf(number, 500'000)).ok()) ++number;
  EXPECT_EQ(number, 8u);
  EXPECT_EQ(machine.Put(ChunkOf(number, 500'000)).code(), StatusCode::kNoSpace);
  // A class that has no segment yet gets none either; smaller records still fit the open one.
  EXPECT_EQ(machine.Put(ChunkOf(100, 5000), 1).code(), StatusCode::kNoSpace);
  EXPECT_TRUE(machine.Put(ChunkOf(101, 5000)).ok());

  const LogPlace old = machine.places.at(0);
  EXPECT_EQ(machine.log().BeginReclaim(machine.places.at(7).segment).code(), StatusCode::kInvalid);
  machine.RunUntilIdle();
  ASSERT_TRUE(machine.log().BeginReclaim(old.segment).ok());
  EXPECT_EQ(machine.Get(ChunkOf(0, 500'000)).code(), StatusCode::kStale);
  ASSERT_TRUE(machine.log().Free(old.segment).ok());
  ASSERT_TRUE(machine.Put(ChunkOf(number, 500'000)).ok());
  const LogPlace fresh = machine.places.at(number);
  EXPECT_EQ(fresh.segment, old.segment);
  EXPECT_GT(fresh.sequence, old.sequence);
  EXPECT_EQ(machine.Get(ChunkOf(0, 500'000), old).code(), StatusCode::kStale);
  EXPECT_TRUE(machine.Get(ChunkOf(number, 500'000)).ok());
}

TEST(SegmentLog, ReusedSegmentNeverYieldsItsFormerRecords) {
  Disk disk(1);
  {
    LogMachine machine(disk.medium, disk.clock);
    ASSERT_TRUE(machine.Start().ok());
    for (uint32_t number = 0; number < 20; ++number) {
      ASSERT_TRUE(machine.Put(ChunkOf(number, 60'000)).ok());
    }
    machine.log().Seal(0);
    machine.RunUntilIdle();
    const uint32_t segment = machine.places.at(0).segment;
    ASSERT_TRUE(machine.log().BeginReclaim(segment).ok());
    ASSERT_TRUE(machine.log().Free(segment).ok());
    // The same sizes: the old headers lie exactly where the chain would look for more.
    for (uint32_t number = 100; number < 103; ++number) {
      ASSERT_TRUE(machine.Put(ChunkOf(number, 60'000)).ok());
    }
    machine.LosePower();
  }
  LogMachine machine(disk.medium, disk.clock);
  ASSERT_TRUE(machine.Start().ok());
  EXPECT_EQ(Numbers(machine.recovered), (std::set<uint32_t>{100, 101, 102}));
}

TEST(SegmentLog, ReadsUnderWayHoldReclaimBack) {
  Disk disk(4);
  LogMachine machine(disk.medium, disk.clock);
  ASSERT_TRUE(machine.Start().ok());
  const TestChunk chunk = ChunkOf(1, 1'000'000);
  ASSERT_TRUE(machine.Put(chunk).ok());
  machine.log().Seal(0);
  machine.RunUntilIdle();
  const LogPlace place = machine.places.at(1);
  AlignedBytes into(shm::RecordBytes(chunk.payload.size()));
  std::optional<Status> done;
  const LogRead read{.place = place, .bytes = into.size(), .into = into.data()};
  ASSERT_TRUE(machine.log()
                  .Read(
                      read, [&](const Status& status) { done = status; }, machine.now())
                  .ok());
  ASSERT_TRUE(machine.log().BeginReclaim(place.segment).ok());
  EXPECT_EQ(machine.log().Free(place.segment).code(), StatusCode::kBusy);
  EXPECT_EQ(machine.Get(chunk).code(), StatusCode::kStale);
  machine.RunUntil([&] { return done.has_value(); });
  EXPECT_TRUE(done->ok());
  EXPECT_TRUE(VerifyRecord(into.span(), chunk.identity, place).ok());
  EXPECT_TRUE(machine.log().Free(place.segment).ok());
  EXPECT_EQ(machine.log().stats().segments.free, 4u);
}

TEST(SegmentLog, BytesAreLiveUntilMarkedDead) {
  Disk disk(4);
  LogMachine machine(disk.medium, disk.clock);
  ASSERT_TRUE(machine.Start().ok());
  ASSERT_TRUE(machine.Put(ChunkOf(1, 5000)).ok());
  ASSERT_TRUE(machine.Put(ChunkOf(2, 4096)).ok());
  const LogPlace place = machine.places.at(1);
  const LogSegment& segment = machine.log().segments()->at(place.segment);
  EXPECT_EQ(segment.live_bytes, 12288u + 8192u);
  EXPECT_EQ(segment.fill_bytes, 4096u + 12288u + 8192u);
  machine.log().MarkDead(place, 5000);
  EXPECT_EQ(segment.live_bytes, 8192u);
  LogPlace former = place;
  --former.sequence;
  machine.log().MarkDead(former, 5000);
  EXPECT_EQ(segment.live_bytes, 8192u);
}

TEST(SegmentLog, QueuesAreBoundedAtTheDoor) {
  Disk disk(8);
  LogMachine machine(disk.medium, disk.clock);
  ASSERT_TRUE(machine.Start().ok());
  const TestChunk chunk = ChunkOf(1, 4096);
  uint32_t ok = 0, done = 0;
  while (machine.Append(chunk, 0, [&](const LogPlace&, const Status&) { ++done; }).ok()) ++ok;
  EXPECT_EQ(ok, kLogAppendsMax);
  EXPECT_EQ(machine.Append(chunk, 0, nullptr).code(), StatusCode::kBusy);
  EXPECT_EQ(done, 0u);
  machine.RunUntilIdle();
  EXPECT_EQ(done, kLogAppendsMax);

  AlignedBytes into(8192);
  ok = done = 0;
  const LogRead read{.place = machine.places.at(1), .bytes = into.size(), .into = into.data()};
  while (machine.log()
             .Read(
                 read, [&](const Status&) { ++done; }, machine.now())
             .ok())
    ++ok;
  EXPECT_EQ(ok, kLogReadsMax);
  EXPECT_EQ(done, 0u);
  machine.RunUntilIdle();
  EXPECT_EQ(done, kLogReadsMax);
}

TEST(SegmentLog, RecordThatFitsNoSegmentIsInvalid) {
  Disk disk(2);
  LogMachine machine(disk.medium, disk.clock);
  ASSERT_TRUE(machine.Start().ok());
  const uint32_t largest = static_cast<uint32_t>(kTestSegmentBytes - 4 * kLogBlockBytes);
  EXPECT_EQ(machine.Put(ChunkOf(1, largest + 1)).code(), StatusCode::kInvalid);
  EXPECT_TRUE(machine.Put(ChunkOf(2, largest)).ok());
  EXPECT_TRUE(machine.Get(ChunkOf(2, largest)).ok());
  EXPECT_TRUE(machine.Put(ChunkOf(3, largest)).ok());
}

TEST(SegmentLog, ReadsPastTheirDeadlineEndOnce) {
  Disk disk(4);
  LogMachine machine(disk.medium, disk.clock);
  ASSERT_TRUE(machine.Start().ok());
  const TestChunk chunk = ChunkOf(1, 1'000'000);
  ASSERT_TRUE(machine.Put(chunk).ok());
  std::vector<AlignedBytes> into;
  std::vector<StatusCode> ends;
  for (int i = 0; i < 40; ++i) {
    into.emplace_back(shm::RecordBytes(chunk.payload.size()));
    const LogRead read{.place = machine.places.at(1),
                       .bytes = into.back().size(),
                       .into = into.back().data(),
                       .deadline_ns = machine.now() + 1};
    ASSERT_TRUE(
        machine.log()
            .Read(
                read, [&](const Status& status) { ends.push_back(status.code()); }, machine.now())
            .ok());
  }
  machine.RunUntilIdle();
  EXPECT_EQ(ends.size(), 40u);
  EXPECT_GT(std::count(ends.begin(), ends.end(), StatusCode::kDeadline), 20);
  EXPECT_EQ(machine.log().stats().reads.reading, 0u);
}

TEST(SegmentLog, FreedSegmentsAreDiscardedBeforeTheyAreUsedAgain) {
  Disk disk(1);
  SegmentLogOptions options = TestOptions();
  options.discard = true;
  LogMachine machine(disk.medium, disk.clock, options);
  ASSERT_TRUE(machine.Start().ok());
  ASSERT_TRUE(machine.Put(ChunkOf(1, 500'000)).ok());
  machine.log().Seal(0);
  machine.RunUntilIdle();
  ASSERT_TRUE(machine.log().BeginReclaim(0).ok());
  ASSERT_TRUE(machine.log().Free(0).ok());
  EXPECT_EQ(machine.log().Free(0).code(), StatusCode::kBusy);
  EXPECT_EQ(machine.Put(ChunkOf(2, 5000)).code(), StatusCode::kNoSpace);
  machine.RunUntilIdle();
  EXPECT_EQ(machine.log().stats().discards, 1u);
  EXPECT_TRUE(machine.Put(ChunkOf(2, 5000)).ok());
  EXPECT_TRUE(machine.Get(ChunkOf(2, 5000)).ok());
}

TEST(SegmentLog, OptionsOutOfBoundsAreInvalid) {
  Disk disk(1);
  SimDevice device(disk.medium, disk.clock, {});
  AlignedBytes memory(SegmentLog::MemoryBytes(TestOptions()) + 64 * kMiB);
  const auto code = [&](const std::function<void(SegmentLogOptions&)>& change) {
    SegmentLogOptions options = TestOptions();
    change(options);
    return SegmentLog::Create(device, options, memory.span()).status().code();
  };
  EXPECT_EQ(code([](SegmentLogOptions&) {}), StatusCode::kOk);
  EXPECT_EQ(code([](SegmentLogOptions& o) { o.segment_bytes = kMiB; }), StatusCode::kInvalid);
  EXPECT_EQ(code([](SegmentLogOptions& o) { o.segment_bytes = 3 * kMiB; }), StatusCode::kInvalid);
  EXPECT_EQ(code([](SegmentLogOptions& o) { o.tenant = ""; }), StatusCode::kInvalid);
  EXPECT_EQ(code([](SegmentLogOptions& o) { o.tenant = std::string(65, 't'); }),
            StatusCode::kInvalid);
  EXPECT_EQ(code([](SegmentLogOptions& o) { o.device_index = 1; }), StatusCode::kInvalid);
  EXPECT_EQ(code([](SegmentLogOptions& o) { o.sequence_floor = 0; }), StatusCode::kInvalid);
  EXPECT_EQ(code([](SegmentLogOptions& o) { o.write.buffer_bytes = 1000; }), StatusCode::kInvalid);
  EXPECT_EQ(code([](SegmentLogOptions& o) { o.write.buffer_count = 1; }), StatusCode::kInvalid);
  EXPECT_EQ(code([](SegmentLogOptions& o) { o.write.direct_bytes_min = 0; }), StatusCode::kInvalid);
}

}  // namespace
}  // namespace terrace
