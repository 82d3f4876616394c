// Flips bytes in each kind of block of a log, checks it, mends it, and starts a daemon's log on it.

#include "storage/tier/log_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <optional>
#include <random>
#include <set>

#include "tests/storage/tier/log_machine.h"

namespace terrace {
namespace {

using testing::HasSubstr;

// 13 places in turns.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint32_t kFlips = 13;
#else
constexpr uint32_t kFlips = 65;
#endif
constexpr uint32_t kRecords = 30;
constexpr uint64_t kSegment0 = SegmentOffset(0, kTestSegmentBytes);
constexpr uint64_t kTail0 = kSegment0 + kTestSegmentBytes - sizeof(SegmentTrailer);

TestChunk Chunk(uint32_t number) { return ChunkOf(number, 1 + number * 7919 % 90'000); }

struct Outcome {
  Status status;
  LogCheckReport report;
  std::vector<LogFinding> findings;
  std::set<uint32_t> records;  // by number
};

class LogCheckTest : public testing::Test {
 protected:
  // Records 0, 3, 6, ... in segment 0, and so on; three segments.
  void Fill(bool sealed) {
    LogMachine machine(medium_, clock_);
    ASSERT_TRUE(machine.Start().ok());
    ASSERT_TRUE(machine.ReplaceNamespaces({std::string(3000, 'n'), "second"}).ok());
    for (uint32_t number = 0; number < kRecords; ++number) {
      ASSERT_TRUE(machine.Put(Chunk(number), number % 3).ok());
    }
    for (uint32_t reuse_class = 0; sealed && reuse_class < 3; ++reuse_class) {
      machine.log().Seal(reuse_class);
    }
    machine.RunUntilIdle();
    medium_.SyncUntil(medium_.write_count());
    places_ = machine.places;
  }

  // `writes_max`: from then on the device takes no more.
  Outcome Check(SimMedium& medium, bool repair, bool payloads = true,
                uint64_t writes_max = UINT64_MAX, uint64_t sick = UINT64_MAX) {
    SimDevice device(medium, clock_, SimDevice::Options{});
    if (sick != UINT64_MAX) device.FailReads(sick, 1'000'000);
    Outcome outcome;
    LogCheckOptions options;
    options.payloads = payloads;
    options.repair = repair;
    options.on_finding = [&](const LogFinding& finding) { outcome.findings.push_back(finding); };
    options.on_record = [&](const CheckedRecord& record) {
      outcome.records.insert(NumberOf(IdentityOf(record.entry).key));
    };
    options.wait = [&] {
      const IoStats stats = device.stats();
      if (stats.of(IoKind::kWrite).requests + stats.of(IoKind::kSync).requests >= writes_max) {
        device.faults().write_error = device.faults().sync_error = 1000;
      }
      if (const auto next = device.next_event_ns()) clock_.AdvanceTo(*next);
    };
    outcome.status = CheckLog(device, options, &outcome.report);
    if (writes_max != UINT64_MAX) device.LosePower();
    return outcome;
  }
  Outcome Check(bool repair) { return Check(medium_, repair); }

  // Those that a daemon finds and can give.
  std::set<uint32_t> Served(SimMedium medium) {
    LogMachine machine(medium, clock_);
    EXPECT_TRUE(machine.Start().ok());
    std::set<uint32_t> served;
    for (const RecoveredRecord& record : machine.recovered) {
      if (record.identity.namespace_id == 0) continue;  // of no namespace that the engine knows
      const uint32_t number = NumberOf(record.identity.key);
      if (machine.Get(Chunk(number), record.place).ok()) served.insert(number);
    }
    return served;
  }

  uint64_t HeaderAt(uint32_t number) const {
    const LogPlace& place = places_.at(number);
    return SegmentOffset(place.segment, kTestSegmentBytes) +
           uint64_t{place.offset_units} * kLogBlockBytes;
  }

  SimClock clock_;
  SimMedium medium_{TestDiskBytes(4), 1};
  std::map<uint32_t, LogPlace> places_;
};

TEST_F(LogCheckTest, AWholeLogIsCleanAndStaysUntouched) {
  Fill(true);
  const uint64_t writes = medium_.write_count();
  for (const bool repair : {false, true}) {
    const Outcome outcome = Check(repair);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.ToString();
    EXPECT_EQ(outcome.report.damaged, 0u);
    EXPECT_EQ(outcome.report.unfinished, 0u);
    EXPECT_EQ(outcome.report.records, kRecords);
    EXPECT_EQ(outcome.report.sealed, 3u);
    EXPECT_EQ(outcome.report.free, 1u);
    EXPECT_EQ(outcome.report.segments_done, 4u);
    EXPECT_EQ(medium_.write_count(), writes);
  }
}

TEST_F(LogCheckTest, OpenSegmentsAreCleanAndAMendSealsThem) {
  Fill(false);
  const Outcome checked = Check(false);
  EXPECT_EQ(checked.report.damaged, 0u);
  EXPECT_EQ(checked.report.open, 3u);
  EXPECT_EQ(checked.report.records, kRecords);
  EXPECT_EQ(Check(true).report.sealed_now, 3u);
  const Outcome again = Check(true);
  EXPECT_EQ(again.report.sealed, 3u);
  EXPECT_EQ(again.report.sealed_now, 0u);
  EXPECT_EQ(again.report.records, kRecords);
  EXPECT_EQ(Served(medium_).size(), kRecords);
}

struct Place {
  LogDamage damage;
  uint64_t from, bytes;
  size_t lost;  // records
};

TEST_F(LogCheckTest, EveryFlipIsFoundMendedAndGoneAfterwards) {
  Fill(true);
  const auto header = [&](uint32_t number) { return HeaderAt(number); };
  const uint64_t block = kLogBlockBytes, table = kNamespaceTableOffset;
  const std::vector<Place> places = {
      {LogDamage::kSuperblock, 0, block, 0},
      {LogDamage::kSuperblock, kLogCopyStride, block, 0},
      {LogDamage::kNamespaceTable, table, block, 0},
      {LogDamage::kNamespaceTable, table + block, block, 0},
      {LogDamage::kNamespaceTable, kLogCopyStride + table, 2 * block, 0},
      {LogDamage::kHead, kSegment0, block, 0},
      {LogDamage::kFooter, kTail0, block, 0},
      {LogDamage::kFooter, kTail0 - block, block, 0},
      {LogDamage::kHeader, header(0), block, 1},   // the first of its segment
      {LogDamage::kHeader, header(12), block, 1},  // one in the middle
      {LogDamage::kHeader, header(27), block, 1},  // the last
      {LogDamage::kPayload, header(12) + block, Chunk(12).payload.size(), 1},
      {LogDamage::kPayload, header(13) + block, Chunk(13).payload.size(), 1},
  };
  std::mt19937_64 random(1);
  const SimMedium filled = medium_;
  for (uint32_t flip = 0; flip < kFlips; ++flip) {
    const Place& place = places[flip % places.size()];
    const uint64_t byte = place.from + random() % place.bytes;
    SCOPED_TRACE("flip " + std::to_string(flip) + " at byte " + std::to_string(byte) + " of a " +
                 LogDamageName(place.damage));
    SimMedium medium = filled;
    medium.FlipBit(byte, static_cast<uint32_t>(random() % 8));
    const std::set<uint32_t> before = Served(medium);
    const uint64_t writes = medium.write_count();
    const Outcome found = Check(medium, false);
    ASSERT_TRUE(found.status.ok());
    ASSERT_EQ(found.report.of(place.damage), 1u);
    ASSERT_EQ(found.report.damaged, 1u);
    ASSERT_EQ(found.report.mended, 0u);
    ASSERT_EQ(medium.write_count(), writes);
    const Outcome mended = Check(medium, true);
    ASSERT_EQ(mended.report.damaged, 1u);
    ASSERT_EQ(mended.report.mended, 1u);
    const Outcome clean = Check(medium, true);
    ASSERT_EQ(clean.report.damaged, 0u) << clean.findings.front().what;
    ASSERT_EQ(clean.report.unfinished, 0u);
    ASSERT_EQ(clean.report.records, kRecords - place.lost);
    const std::set<uint32_t> served = Served(medium);
    ASSERT_EQ(served, clean.records);
    ASSERT_TRUE(std::includes(served.begin(), served.end(), before.begin(), before.end()));
  }
}

TEST_F(LogCheckTest, AFindingNamesWhatItIsAndWhose) {
  Fill(true);
  medium_.FlipBit(HeaderAt(5) + kLogBlockBytes + 7, 2);
  const Outcome outcome = Check(false);
  ASSERT_EQ(outcome.findings.size(), 1u);
  const LogFinding& finding = outcome.findings.front();
  EXPECT_EQ(finding.damage, LogDamage::kPayload);
  EXPECT_EQ(finding.segment, places_.at(5).segment);
  EXPECT_EQ(finding.offset, HeaderAt(5) + kLogBlockBytes);
  ASSERT_TRUE(finding.record.has_value());
  EXPECT_EQ(*finding.record, Chunk(5).identity);
  EXPECT_FALSE(finding.unreadable);
  EXPECT_THAT(finding.what, HasSubstr("--repair retires"));
}

TEST_F(LogCheckTest, QuickReadsNoPayloads) {
  Fill(true);
  medium_.FlipBit(HeaderAt(5) + kLogBlockBytes + 7, 2);
  const Outcome quick = Check(medium_, false, false);
  EXPECT_EQ(quick.report.damaged, 0u);
  EXPECT_EQ(quick.report.records, kRecords);
  medium_.FlipBit(HeaderAt(6) + 7, 2);
  EXPECT_EQ(Check(medium_, false, false).report.of(LogDamage::kHeader), 1u);
}

// Both damaged: the walk ends at the header, and what lies behind is given up by name.
TEST_F(LogCheckTest, DamagedHeaderUnderADamagedFooterEndsTheWalk) {
  Fill(true);
  medium_.FlipBit(HeaderAt(12) + 100, 2);
  medium_.FlipBit(kTail0 - 10, 2);
  const Outcome mended = Check(true);
  EXPECT_EQ(mended.report.of(LogDamage::kFooter), 1u);
  EXPECT_EQ(mended.report.of(LogDamage::kHeader), 1u);
  EXPECT_EQ(mended.report.mended, 2u);
  EXPECT_EQ(mended.report.records, kRecords - 6);
  EXPECT_EQ(Check(true).report.damaged, 0u);
  EXPECT_EQ(Served(medium_).size(), kRecords - 6);
}

TEST_F(LogCheckTest, SegmentWithoutHeadAndFooterIsFreed) {
  Fill(false);
  medium_.FlipBit(kSegment0 + 9, 2);
  const Outcome found = Check(false);
  EXPECT_EQ(found.report.of(LogDamage::kHead), 1u);
  EXPECT_THAT(found.findings.front().what, HasSubstr("--repair frees it"));
  EXPECT_EQ(Check(true).report.mended, 1u);
  const Outcome clean = Check(true);
  EXPECT_EQ(clean.report.damaged, 0u);
  EXPECT_EQ(clean.report.free, 2u);
  EXPECT_EQ(Served(medium_), clean.records);
}

// Were its end taken for the records' end, a sector's hiccup would cost them all.
TEST_F(LogCheckTest, WhatCannotBeReadIsLeftAlone) {
  Fill(false);
  const Outcome outcome = Check(medium_, true, true, UINT64_MAX, HeaderAt(12));
  EXPECT_EQ(outcome.report.damaged, 1u);
  EXPECT_EQ(outcome.report.mended, 0u);
  EXPECT_TRUE(outcome.findings.front().unreadable);
  EXPECT_EQ(Check(false).report.records, kRecords);
}

TEST_F(LogCheckTest, CopiesThatAreBothDamagedAreTold) {
  Fill(true);
  SimMedium blind = medium_;
  blind.FlipBit(60, 3);
  blind.FlipBit(kLogCopyStride + 60, 3);
  Outcome outcome = Check(blind, true);
  EXPECT_EQ(outcome.status.code(), StatusCode::kCorrupt);
  EXPECT_EQ(outcome.report.of(LogDamage::kSuperblock), 2u);
  EXPECT_EQ(outcome.report.mended, 0u);
  SimMedium medium = medium_;
  medium.FlipBit(kNamespaceTableOffset + 60, 3);
  medium.FlipBit(kLogCopyStride + kNamespaceTableOffset + 60, 3);
  outcome = Check(medium, true);
  EXPECT_EQ(outcome.status.code(), StatusCode::kCorrupt);
  EXPECT_EQ(outcome.report.of(LogDamage::kNamespaceTable), 2u);
}

TEST_F(LogCheckTest, AShortDeviceMissesSegments) {
  Fill(true);
  std::vector<uint8_t> bytes(TestDiskBytes(2));
  medium_.Read(0, bytes.data(), bytes.size());
  SimMedium shorter(bytes.size(), 1);
  shorter.Write(0, bytes.data(), bytes.size());
  const Outcome outcome = Check(shorter, false);
  EXPECT_EQ(outcome.report.of(LogDamage::kMissing), 1u);
  EXPECT_EQ(outcome.report.segments_done, 2u);
  EXPECT_THAT(outcome.findings.front().what, HasSubstr("before 2 of its segments"));
}

TEST_F(LogCheckTest, StopsWhenItIsTold) {
  Fill(true);
  SimDevice device(medium_, clock_, SimDevice::Options{});
  uint32_t asked = 0;
  LogCheckOptions options;
  options.go_on = [&] { return ++asked < 3; };
  options.wait = [&] {
    if (const auto next = device.next_event_ns()) clock_.AdvanceTo(*next);
  };
  LogCheckReport report;
  EXPECT_EQ(CheckLog(device, options, &report).code(), StatusCode::kCancelled);
  EXPECT_LT(report.segments_done, 3u);
}

// The machine dies after each write and sync of a mend: nothing that could be served before is
// lost, and the next mend ends what this one began.
TEST_F(LogCheckTest, AMendThatIsBrokenOffMakesNothingWorse) {
  Fill(true);
  medium_.FlipBit(60, 3);
  medium_.FlipBit(kLogCopyStride + kNamespaceTableOffset + 60, 3);
  medium_.FlipBit(kSegment0 + 9, 2);                         // head of one segment
  medium_.FlipBit(HeaderAt(3) + kLogBlockBytes + 7, 2);      // and a payload in it
  medium_.FlipBit(HeaderAt(4) + 200, 2);                     // header in another
  medium_.FlipBit(HeaderAt(7) + kLogBlockBytes + 7, 2);      // and a payload behind it
  medium_.FlipBit(kTail0 + 2 * kTestSegmentBytes - 100, 2);  // footer of the third
  medium_.SyncUntil(medium_.write_count());
  const SimMedium damaged = medium_;
  const std::set<uint32_t> before = Served(damaged);
  ASSERT_EQ(before.size(), kRecords - 3);
  uint64_t broken_off = 0;
  for (uint64_t writes = 0;; ++writes) {
    SCOPED_TRACE("after " + std::to_string(writes) + " writes and syncs");
    SimMedium medium = damaged;
    const Outcome outcome = Check(medium, true, true, writes);
    const std::set<uint32_t> after = Served(medium);
    ASSERT_TRUE(std::includes(after.begin(), after.end(), before.begin(), before.end()));
    ASSERT_TRUE(Check(medium, true).status.ok());
    const Outcome clean = Check(medium, true);
    ASSERT_EQ(clean.report.damaged, 0u);
    ASSERT_EQ(clean.records, before);
    if (outcome.report.mended == outcome.report.damaged) break;
    ++broken_off;
  }
  EXPECT_GE(broken_off, 12u);
}

}  // namespace
}  // namespace terrace
