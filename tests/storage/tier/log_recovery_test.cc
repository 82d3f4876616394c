// What a start makes of a medium that fails for a moment: nothing that was acknowledged is lost to
// it, and nothing counts as durable that may be gone at the next start.

#include <gtest/gtest.h>

#include <cstring>

#include "tests/storage/tier/log_machine.h"

namespace terrace {
namespace {

constexpr uint32_t kRecords = 6;
constexpr uint32_t kAlways = 1'000'000;

TestChunk Chunk(uint32_t number) { return ChunkOf(number, 1 + number * 7919 % 90'000); }

class LogRecoveryTest : public testing::Test {
 protected:
  // kRecords in segment 0.
  void Fill(bool sealed) {
    LogMachine machine(medium_, clock_);
    ASSERT_TRUE(machine.Start().ok());
    for (uint32_t number = 0; number < kRecords; ++number) {
      ASSERT_TRUE(machine.Put(Chunk(number)).ok());
    }
    if (sealed) machine.log().Seal(0);
    machine.RunUntilIdle();
    medium_.SyncUntil(medium_.write_count());
  }

  // Another life of segment 0 has begun, and got no further.
  void Reopen() {
    LogIdentity identity;
    identity.set_id = TestOptions().set_id;
    identity.tenant = TestOptions().tenant;
    identity.log_id = TestOptions().new_log_id;
    SegmentHead head;
    BuildSegmentHead(identity, 0, identity.log_id + 100, &head);
    medium_.Write(HeadAt(), reinterpret_cast<const uint8_t*>(&head), sizeof(head));
    medium_.SyncUntil(medium_.write_count());
  }

  static uint64_t HeadAt() { return SegmentOffset(0, kTestSegmentBytes); }
  // Where the header of that record lies.
  static uint64_t HeaderAt(uint32_t number) {
    uint64_t at = HeadAt() + sizeof(SegmentHead);
    for (uint32_t before = 0; before < number; ++before) {
      at += shm::RecordBytes(Chunk(before).payload.size());
    }
    return at;
  }

  // One life; every record that it calls recovered must be there.
  struct Life {
    uint64_t sick = 0;
    uint32_t times = 0;
    SimFaults faults = {};
    bool put = false;  // another record
  };
  SegmentLogStats Live(const Life& life) {
    LogMachine machine(medium_, clock_, TestOptions(), life.faults);
    if (life.times > 0) machine.device().FailReads(life.sick, life.times);
    EXPECT_TRUE(machine.Start().ok());
    machine.device().faults() = SimFaults();
    for (const RecoveredRecord& record : machine.recovered) {
      EXPECT_TRUE(machine.Get(Chunk(NumberOf(record.identity.key))).ok());
    }
    if (life.put) {
      EXPECT_TRUE(machine.Put(Chunk(++last_)).ok());
    }
    return machine.log().stats();
  }

  SimClock clock_;
  SimMedium medium_{TestDiskBytes(4), 1};
  uint32_t last_ = 100;
};

TEST_F(LogRecoveryTest, OneReadErrorCostsNothing) {
  Fill(true);
  const uint64_t tail = HeadAt() + kTestSegmentBytes - sizeof(SegmentTrailer);
  for (const uint64_t sick : {HeadAt(), tail}) {
    const SegmentLogStats stats = Live({.sick = sick, .times = kLogReadRetries});
    EXPECT_EQ(stats.recovery.records, kRecords);
    EXPECT_EQ(stats.recovery.unreadable, 0u);
    EXPECT_EQ(stats.recovery.from_footers, 1u);
  }
}

// Were they called durable under the old trailer alone, the next start would not find them.
TEST_F(LogRecoveryTest, FormerLifeUnderAnUnreadableHeadCountsOnlyOnceTheHeadIsWritten) {
  Fill(true);
  Reopen();
  const SegmentLogStats stats = Live({.sick = HeadAt(), .times = kLogReadRetries + 1});
  EXPECT_EQ(stats.recovery.records, kRecords);
  EXPECT_EQ(stats.recovery.mended_heads, 1u);
  const SegmentLogStats next = Live({});
  EXPECT_EQ(next.recovery.records, kRecords);
  EXPECT_EQ(next.recovery.from_footers, 1u);
}

TEST_F(LogRecoveryTest, FormerLifeUnderAnUnreadableHeadThatCannotBeWrittenIsWithheld) {
  Fill(true);
  Reopen();
  SimFaults faults;
  faults.write_error = 1000;
  const SegmentLogStats stats =
      Live({.sick = HeadAt(), .times = kLogReadRetries + 1, .faults = faults});
  EXPECT_EQ(stats.recovery.records, 0u);
  EXPECT_EQ(stats.recovery.withheld, 1u);
  EXPECT_EQ(stats.segments.quarantined, 1u);
  EXPECT_EQ(stats.segments.free, 3u);
  const SegmentLogStats next = Live({});
  EXPECT_EQ(next.recovery.records, 0u);
  EXPECT_EQ(next.segments.free, 4u);
}

// The machine dies at every step of writing footer and head anew.
TEST_F(LogRecoveryTest, MendThatIsBrokenOffLosesAndResurrectsNothing) {
  Fill(true);
  medium_.FlipBit(HeadAt() + 9, 1);  // rotten, in the same life
  const SimMedium filled = medium_;
  bool ended = false;
  for (uint64_t step = 1; !ended; ++step) {
    SimMedium medium = filled;
    uint64_t counted = 0;
    {
      LogMachine machine(medium, clock_);
      machine.StopAt(step);
      ended = machine.Start().ok();
      counted = machine.recovered.size();
      machine.LosePower();
    }
    ASSERT_TRUE(counted == 0 || counted == kRecords);
    LogMachine machine(medium, clock_);
    ASSERT_TRUE(machine.Start().ok());
    ASSERT_EQ(machine.recovered.size(), kRecords) << step;
    for (uint32_t number = 0; number < kRecords; ++number) {
      ASSERT_TRUE(machine.Get(Chunk(number)).ok()) << step;
    }
  }
}

TEST_F(LogRecoveryTest, OpenSegmentWithAnUnreadableHeadIsNeitherReadNorWritten) {
  Fill(false);
  const SegmentLogStats stats = Live({.sick = HeadAt(), .times = kAlways, .put = true});
  EXPECT_EQ(stats.recovery.records, 0u);
  EXPECT_EQ(stats.recovery.withheld, 1u);
  EXPECT_EQ(Live({}).recovery.records, kRecords + 1);
}

TEST_F(LogRecoveryTest, HeadersThatCannotBeReadAreNotLostToAFooter) {
  Fill(false);
  const SegmentLogStats first = Live({.sick = HeaderAt(0), .times = kAlways, .put = true});
  EXPECT_EQ(first.recovery.records, 0u);
  EXPECT_EQ(first.recovery.withheld, 1u);
  const SegmentLogStats last = Live({.sick = HeaderAt(kRecords - 1), .times = kAlways});
  EXPECT_EQ(last.recovery.records, kRecords);  // with the one that was put meanwhile
  EXPECT_EQ(last.recovery.withheld, 0u);
  EXPECT_EQ(Live({}).recovery.records, kRecords + 1);
}

TEST_F(LogRecoveryTest, WhatNoTrailerVouchesForIsWithheldWhenTheFirstSyncFails) {
  Fill(false);
  {
    LogMachine machine(medium_, clock_);
    ASSERT_TRUE(machine.Start().ok());
    ASSERT_TRUE(machine.Put(Chunk(50), 1).ok());
  }
  // Segment 0 has its footer by now.
  SimFaults faults;
  faults.sync_error = 1000;
  const SegmentLogStats stats = Live({.faults = faults});
  EXPECT_EQ(stats.recovery.records, kRecords);
  EXPECT_EQ(stats.recovery.withheld, 1u);
  EXPECT_EQ(Live({}).recovery.records, kRecords + 1);
}

TEST_F(LogRecoveryTest, NamespaceTablesThatFailForAMomentAreReadAgain) {
  Fill(true);
  for (const uint64_t at : {uint64_t{0}, kNamespaceTableOffset}) {
    LogMachine machine(medium_, clock_);
    machine.device().FailReads(at, kNamespaceReadRetries);
    machine.device().FailReads(kLogCopyStride + at, kNamespaceReadRetries);
    ASSERT_TRUE(machine.Start().ok());
    EXPECT_EQ(machine.recovered.size(), kRecords);
    EXPECT_EQ(machine.log().stats().healed_copies, 0u);
  }
  LogMachine machine(medium_, clock_);
  machine.device().FailReads(0, kAlways);
  machine.device().FailReads(kLogCopyStride, kAlways);
  EXPECT_EQ(machine.Start().code(), StatusCode::kIoError);
}

}  // namespace
}  // namespace terrace
