// Media that fail: what is refused, what goes on, and when it is tried again.

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <random>
#include <set>

#include "tests/storage/tier/log_machine.h"

namespace terrace {
namespace {

class LogFaults : public testing::Test {
 protected:
  void Boot(const SegmentLogOptions& options = TestOptions()) {
    machine_ = std::make_unique<LogMachine>(medium_, clock_, options);
    ASSERT_TRUE(machine_->Start().ok());
  }
  SegmentLog& log() { return machine_->log(); }
  SimFaults& faults() { return machine_->device().faults(); }

  SimClock clock_;
  SimMedium medium_{TestDiskBytes(8), 1};
  std::unique_ptr<LogMachine> machine_;
};

TEST_F(LogFaults, FullDeviceStopsWritesForAWhileAndReadsGoOn) {
  Boot();
  const TestChunk first = ChunkOf(1, 50'000);
  ASSERT_TRUE(machine_->Put(first).ok());
  faults().full = 1000;
  EXPECT_EQ(machine_->Put(ChunkOf(2, 50'000)).code(), StatusCode::kNoSpace);
  EXPECT_TRUE(log().stats().writes.breaker_open);
  const uint64_t operations = machine_->device().stats().of(IoKind::kWrite).operations;
  EXPECT_EQ(machine_->Put(ChunkOf(3, 50'000)).code(), StatusCode::kIoError);
  EXPECT_EQ(machine_->device().stats().of(IoKind::kWrite).operations, operations);
  EXPECT_TRUE(machine_->Get(first).ok());

  // Still full after the first wait: the next one is longer.
  clock_.Advance(kNsPerSecond);
  EXPECT_EQ(machine_->Put(ChunkOf(3, 50'000)).code(), StatusCode::kNoSpace);
  clock_.Advance(kNsPerSecond);
  EXPECT_EQ(machine_->Put(ChunkOf(3, 50'000)).code(), StatusCode::kIoError);
  faults().full = 0;
  clock_.Advance(kNsPerSecond);
  EXPECT_TRUE(machine_->Put(ChunkOf(3, 50'000)).ok());
  EXPECT_FALSE(log().stats().writes.breaker_open);
  EXPECT_TRUE(machine_->Get(ChunkOf(3, 50'000)).ok());
  // A full file system is no fault of the places.
  EXPECT_EQ(log().stats().segments.quarantined, 0u);
}

TEST_F(LogFaults, FailedWriteAbandonsItsSegmentButNotWhatWasDone) {
  Boot();
  std::vector<TestChunk> chunks;
  for (uint32_t number = 0; number < 6; ++number) chunks.push_back(ChunkOf(number, 100'000));
  for (uint32_t number = 0; number < 3; ++number) ASSERT_TRUE(machine_->Put(chunks[number]).ok());
  const uint32_t segment = machine_->places.at(0).segment;
  faults().write_error = 1000;
  std::vector<StatusCode> ends;
  for (uint32_t number = 3; number < 6; ++number) {
    ASSERT_TRUE(
        machine_
            ->Append(chunks[number], 0,
                     [&](const LogPlace&, const Status& status) { ends.push_back(status.code()); })
            .ok());
  }
  machine_->RunUntilIdle();
  EXPECT_EQ(ends, std::vector<StatusCode>(3, StatusCode::kIoError));
  EXPECT_EQ(log().segments()->at(segment).state, LogSegmentState::kSealed);
  faults().write_error = 0;
  clock_.Advance(kNsPerSecond);
  for (uint32_t number = 0; number < 3; ++number) {
    EXPECT_TRUE(machine_->Get(chunks[number]).ok());
  }
  ASSERT_TRUE(machine_->Put(chunks[3]).ok());
  EXPECT_NE(machine_->places.at(3).segment, segment);

  machine_.reset();
  Boot();
  for (uint32_t number = 0; number < 4; ++number) {
    EXPECT_TRUE(machine_->Get(chunks[number]).ok()) << number;
  }
}

TEST_F(LogFaults, FailedSyncAcknowledgesNothing) {
  Boot();
  ASSERT_TRUE(machine_->Put(ChunkOf(1, 5000)).ok());
  faults().sync_error = 1000;
  EXPECT_EQ(machine_->Put(ChunkOf(2, 5000)).code(), StatusCode::kIoError);
  EXPECT_FALSE(machine_->places.contains(2));
  faults().sync_error = 0;
  clock_.Advance(kNsPerSecond);
  EXPECT_TRUE(machine_->Put(ChunkOf(3, 5000)).ok());
}

TEST_F(LogFaults, PlaceThatKeepsFailingIsQuarantined) {
  Boot();
  ASSERT_TRUE(machine_->Put(ChunkOf(1, 5000)).ok());
  log().Seal(0);
  machine_->RunUntilIdle();
  const LogPlace place = machine_->places.at(1);
  for (uint32_t i = 0; i + 1 < kSegmentFailuresMax; ++i) log().NoteCorrupt(place);
  EXPECT_TRUE(machine_->Get(ChunkOf(1, 5000)).ok());
  log().NoteCorrupt(place);
  EXPECT_EQ(log().TakeQuarantined(), std::vector<uint32_t>{place.segment});
  EXPECT_EQ(log().TakeQuarantined(), std::vector<uint32_t>{});
  EXPECT_EQ(machine_->Get(ChunkOf(1, 5000)).code(), StatusCode::kIoError);
  EXPECT_EQ(log().BeginReclaim(place.segment).code(), StatusCode::kInvalid);
  EXPECT_EQ(log().stats().segments.quarantined, 1u);
  // Never opened again: seven segments of four such records remain.
  uint32_t number = 100;
  while (machine_->Put(ChunkOf(number, 450'000)).ok()) {
    EXPECT_NE(machine_->places.at(number).segment, place.segment);
    ++number;
  }
  EXPECT_EQ(number, 128u);
}

TEST_F(LogFaults, DeviceThatFailsAllReadsIsLeftAloneForAWhileAndKeepsItsSegments) {
  Boot();
  ASSERT_TRUE(machine_->Put(ChunkOf(1, 5000)).ok());
  for (uint32_t i = 0; i < 7; ++i) {
    faults().read_error = 1000;
    EXPECT_EQ(machine_->Get(ChunkOf(1, 5000)).code(), StatusCode::kIoError);
    faults().read_error = 0;
    if (i == 1) {
      EXPECT_TRUE(machine_->Get(ChunkOf(1, 5000)).ok());  // counts begin anew
    }
  }
  EXPECT_FALSE(log().stats().reads.breaker_open);
  faults().read_error = 1000;
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(machine_->Get(ChunkOf(1, 5000)).code(), StatusCode::kIoError);
  }
  EXPECT_TRUE(log().stats().reads.breaker_open);
  const uint64_t operations = machine_->device().stats().of(IoKind::kRead).operations;
  EXPECT_EQ(machine_->Get(ChunkOf(1, 5000)).code(), StatusCode::kIoError);
  EXPECT_EQ(machine_->device().stats().of(IoKind::kRead).operations, operations);
  // Writes have a breaker of their own.
  EXPECT_TRUE(machine_->Put(ChunkOf(2, 5000)).ok());
  faults().read_error = 0;
  clock_.Advance(kNsPerSecond);
  EXPECT_TRUE(machine_->Get(ChunkOf(2, 5000)).ok());
  EXPECT_FALSE(log().stats().reads.breaker_open);
}

TEST_F(LogFaults, ShrunkenDeviceHasFewerSegments) {
  Boot();
  uint32_t number = 0;
  while (machine_->Put(ChunkOf(number, 900'000)).ok()) ++number;
  ASSERT_EQ(number, 16u);
  machine_.reset();
  SimMedium shorter(TestDiskBytes(3), 1);
  std::vector<uint8_t> bytes(kMiB);
  for (uint64_t at = 0; at < shorter.bytes(); at += kMiB) {
    medium_.Read(at, bytes.data(), kMiB);
    shorter.Write(at, bytes.data(), kMiB);
  }
  LogMachine machine(shorter, clock_);
  ASSERT_TRUE(machine.Start().ok());
  EXPECT_EQ(machine.log().stats().segments.total, 3u);
  EXPECT_EQ(machine.recovered.size(), 6u);
  for (const RecoveredRecord& record : machine.recovered) {
    EXPECT_TRUE(machine.Get(ChunkOf(NumberOf(record.identity.key), 900'000)).ok());
  }
}

TEST_F(LogFaults, FileCutShortUnderARunningLogFailsReadsOnly) {
  Boot();
  ASSERT_TRUE(machine_->Put(ChunkOf(1, 5000)).ok());
  log().Seal(0);
  ASSERT_TRUE(machine_->Put(ChunkOf(2, 5000)).ok());
  const LogPlace last = machine_->places.at(2);
  medium_.Shrink(SegmentOffset(last.segment, kTestSegmentBytes));
  EXPECT_EQ(machine_->Get(ChunkOf(2, 5000)).code(), StatusCode::kIoError);
  EXPECT_TRUE(machine_->Get(ChunkOf(1, 5000)).ok());
}

// Everything that a medium does at once, and never a wrong byte: Get insists.
TEST(LogFaultsSwarm, WrongBytesAreNeverAnswered) {
  uint64_t puts = 0, gets = 0, corrupt = 0;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    SimMedium medium(TestDiskBytes(5), seed);
    SimClock clock;
    std::map<uint32_t, uint32_t> lengths;
    uint32_t next = 0;
    for (int life = 0; life < 4; ++life) {
      SegmentLogOptions options = TestOptions();
      options.sequence_floor = static_cast<uint64_t>(life + 1) * 1'000'000;
      LogMachine machine(medium, clock, options);
      machine.device().faults() = SimFaults::Swarm(seed * 10 + static_cast<uint64_t>(life));
      if (!machine.Start().ok()) {  // refused for what the faults did to both copies, or now
        machine.LosePower();
        continue;
      }
      for (int i = 0; i < 60; ++i) {
        const uint32_t number = next++;
        const uint32_t bytes = static_cast<uint32_t>(1 + random() % 200'000);
        lengths[number] = bytes;
        const Status put = machine.Put(ChunkOf(number, bytes), static_cast<uint32_t>(random() % 3));
        puts += put.ok();
        if (put.code() == StatusCode::kIoError) clock.Advance(kNsPerSecond);
        if (put.code() == StatusCode::kNoSpace) {
          const uint32_t victim = static_cast<uint32_t>(random() % 5);
          if (machine.log().BeginReclaim(victim).ok()) {
            EXPECT_TRUE(machine.log().Free(victim).ok());
          }
        }
        if (machine.places.empty()) continue;
        auto at = machine.places.lower_bound(static_cast<uint32_t>(random() % next));
        if (at == machine.places.end()) at = machine.places.begin();
        const Status got = machine.Get(ChunkOf(at->first, lengths.at(at->first)), at->second);
        gets += got.ok();
        corrupt += got.code() == StatusCode::kCorrupt;
        if (got.code() == StatusCode::kCorrupt) machine.log().NoteCorrupt(at->second);
      }
      machine.LosePower();
    }
  }
  EXPECT_GT(puts, 3000u);
  EXPECT_GT(gets, 3000u);
  EXPECT_GT(corrupt, 10u);
  std::printf("%llu puts, %llu gets, %llu corrupt\n", static_cast<unsigned long long>(puts),
              static_cast<unsigned long long>(gets), static_cast<unsigned long long>(corrupt));
}

}  // namespace
}  // namespace terrace
