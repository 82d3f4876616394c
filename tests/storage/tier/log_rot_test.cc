// Flips bytes all over a device with a log, and looks at what opens and reads afterwards.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <optional>
#include <random>
#include <set>

#include "tests/storage/tier/log_machine.h"

namespace terrace {
namespace {

// Sanitizers look at the same code ten to a hundred times as slowly.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint32_t kFlips = 500;
#else
constexpr uint32_t kFlips = 10'000;
#endif

using testing::HasSubstr;

constexpr uint32_t kRecords = 30;

TestChunk Chunk(uint32_t number) { return ChunkOf(number, 1 + number * 7919 % 90'000); }

const std::vector<std::string>& Namespaces() {
  static const std::vector<std::string> kBlobs = {std::string(3000, 'n'), "second"};
  return kBlobs;
}

// Three segments: one sealed, two open; or all sealed.
void Fill(SimMedium& medium, SimClock& clock, bool all_sealed = false) {
  LogMachine machine(medium, clock);
  ASSERT_TRUE(machine.Start().ok());
  ASSERT_TRUE(machine.ReplaceNamespaces({"former"}).ok());
  ASSERT_TRUE(machine.ReplaceNamespaces(Namespaces()).ok());
  for (uint32_t number = 0; number < kRecords; ++number) {
    ASSERT_TRUE(machine.Put(Chunk(number), number % 3).ok());
    if (number == kRecords - 4) machine.log().Seal(0);
  }
  if (!all_sealed) return;
  for (uint32_t reuse_class = 0; reuse_class < 3; ++reuse_class) machine.log().Seal(reuse_class);
}

struct Outcome {
  uint32_t refused = 0, healed = 0, missed = 0, corrupt = 0, whole = 0;
};

// The next life on a device where `count` bytes changed.  Get insists on right bytes.
void Look(SimMedium& medium, SimClock& clock, Outcome* outcome) {
  LogMachine machine(medium, clock);
  const Status started = machine.Start();
  if (!started.ok()) {
    ++outcome->refused;
    EXPECT_FALSE(started.message().empty());
    return;
  }
  if (machine.log().stats().healed_copies > 0) ++outcome->healed;
  EXPECT_EQ(machine.log().namespaces(), Namespaces());
  EXPECT_LE(machine.recovered.size(), kRecords);
  bool whole = machine.recovered.size() == kRecords;
  if (!whole) ++outcome->missed;
  for (const RecoveredRecord& record : machine.recovered) {
    const TestChunk chunk = Chunk(NumberOf(record.identity.key));
    EXPECT_EQ(record.identity, chunk.identity);
    const Status got = machine.Get(chunk, record.place);
    if (got.ok()) continue;
    EXPECT_EQ(got.code(), StatusCode::kCorrupt) << got.ToString();
    ++outcome->corrupt;
    whole = false;
  }
  if (whole) ++outcome->whole;
}

// Half of the flips go where the log's own blocks lie, which are a small part of the device.
uint64_t PickByte(std::mt19937_64& random) {
  const uint64_t segments = SegmentOffset(0, kTestSegmentBytes);
  const auto within = [&](uint64_t from, uint64_t bytes) { return from + random() % bytes; };
  const uint64_t segment = segments + random() % 3 * kTestSegmentBytes;
  switch (random() % 8) {
    case 0: return within(random() % kLogCopyCount * kLogCopyStride, kLogBlockBytes);
    case 1:
      return within(random() % kLogCopyCount * kLogCopyStride + kNamespaceTableOffset,
                    2 * kLogBlockBytes);
    case 2: return within(segment, 2 * kLogBlockBytes);
    case 3: return within(segment + kTestSegmentBytes - 2 * kLogBlockBytes, 2 * kLogBlockBytes);
    default: return within(segment, 800 * kKiB);
  }
}

TEST(LogRot, FlipsAreMissesOrNamedRefusalsButNeverWrongBytes) {
  const uint64_t seed = 1;
  SimClock clock;
  SimMedium sealed(TestDiskBytes(4), seed), open(TestDiskBytes(4), seed);
  Fill(sealed, clock, true);
  Fill(open, clock);
  if (HasFailure()) return;
  std::mt19937_64 random(seed);
  Outcome outcome;
  std::optional<SimMedium> medium(sealed);
  for (uint32_t flip = 0; flip < kFlips; ++flip) {
    const bool of_open = flip % 10 == 0;
    if (of_open) medium.emplace(open);
    const uint64_t byte = PickByte(random);
    const uint32_t bit = static_cast<uint32_t>(random() % 8);
    SCOPED_TRACE("byte " + std::to_string(byte) + " bit " + std::to_string(bit));
    const uint64_t writes = medium->write_count();
    medium->FlipBit(byte, bit);
    Look(*medium, clock, &outcome);
    if (HasFailure()) return;
    if (!of_open && medium->write_count() == writes) {
      medium->FlipBit(byte, bit);
    } else {
      medium.emplace(sealed);  // healed: not the device it was
    }
  }
  std::printf("refused %u, healed %u, missed %u, corrupt %u, whole %u\n", outcome.refused,
              outcome.healed, outcome.missed, outcome.corrupt, outcome.whole);
  EXPECT_EQ(outcome.refused, 0u);  // there is a second copy of all that must not be lost
  EXPECT_GT(outcome.healed, kFlips / 10);
  EXPECT_GT(outcome.missed, kFlips / 500);
  EXPECT_GT(outcome.corrupt, kFlips / 10);
}

TEST(LogRot, ManyFlipsAtOnceNeverYieldWrongBytes) {
  SimClock clock;
  SimMedium filled(TestDiskBytes(4), 2);
  Fill(filled, clock);
  Outcome outcome;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    SimMedium medium = filled;
    for (uint64_t flips = 1 + random() % 40; flips > 0; --flips) {
      medium.FlipBit(PickByte(random), static_cast<uint32_t>(random() % 8));
    }
    Look(medium, clock, &outcome);
    if (HasFailure()) return;
  }
  EXPECT_GT(outcome.refused, 0u);
  EXPECT_GT(outcome.corrupt, 10u);
}

class LogCopies : public testing::Test {
 protected:
  void SetUp() override { Fill(medium_, clock_); }
  void Damage(uint64_t byte) { medium_.FlipBit(byte, 3); }
  Status Start() {
    LogMachine machine(medium_, clock_);
    const Status status = machine.Start();
    stats_ = machine.log().stats();
    namespaces_ = machine.log().namespaces();
    return status;
  }

  SimClock clock_;
  SimMedium medium_{TestDiskBytes(4), 1};
  SegmentLogStats stats_;
  std::vector<std::string> namespaces_;
};

TEST_F(LogCopies, EitherSuperblockHealsTheOther) {
  for (const uint64_t byte : {uint64_t{60}, kLogCopyStride + 60}) {
    Damage(byte);
    ASSERT_TRUE(Start().ok());
    EXPECT_EQ(stats_.healed_copies, 1u);
    EXPECT_THAT(stats_.damage, testing::ElementsAre(HasSubstr("superblock: checksum differs")));
    ASSERT_TRUE(Start().ok());
    EXPECT_EQ(stats_.healed_copies, 0u);
    EXPECT_EQ(stats_.recovery.records, kRecords);
  }
}

TEST_F(LogCopies, ALogGrowsWithItsDevice) {
  SimMedium larger(TestDiskBytes(6), 1);
  std::vector<uint8_t> bytes(medium_.bytes());
  medium_.Read(0, bytes.data(), bytes.size());
  larger.Write(0, bytes.data(), bytes.size());
  for (int life = 0; life < 2; ++life) {
    LogMachine machine(larger, clock_);
    ASSERT_TRUE(machine.Start().ok());
    const SegmentLogStats stats = machine.log().stats();
    EXPECT_EQ(stats.segments.total, 6u);
    EXPECT_EQ(stats.identity.segment_count, 6u);
    EXPECT_EQ(stats.recovery.records, kRecords);
    EXPECT_EQ(stats.healed_copies, 0u);
    EXPECT_THAT(stats.damage, testing::IsEmpty());
  }
  // Who says how many there are gets no others.
  SegmentLogOptions options = TestOptions();
  options.segment_count = 4;
  LogMachine machine(larger, clock_, options);
  EXPECT_EQ(machine.Open().code(), StatusCode::kInvalid);
}

// At every step of it the machine dies; what is done with Ok is there in the next life.
TEST_F(LogCopies, AGrowthThatIsBrokenOffIsMadeUpFor) {
  std::vector<uint8_t> bytes(medium_.bytes());
  medium_.Read(0, bytes.data(), bytes.size());
  bool ended = false;
  for (uint64_t step = 0; !ended; ++step) {
    SimMedium larger(TestDiskBytes(6), 1 + step);
    larger.Write(0, bytes.data(), bytes.size());
    larger.SyncUntil(larger.write_count());
    {
      LogMachine machine(larger, clock_);
      machine.StopAt(step);
      ended = machine.Open().ok();
      machine.LosePower();
    }
    LogMachine machine(larger, clock_);
    ASSERT_TRUE(machine.Start().ok()) << step;
    EXPECT_EQ(machine.log().stats().segments.total, 6u);
    EXPECT_EQ(machine.log().stats().recovery.records, kRecords);
    EXPECT_EQ(machine.log().namespaces(), Namespaces());
  }
}

TEST_F(LogCopies, ALogThatCannotGrowStaysAsItWas) {
  SimMedium larger(TestDiskBytes(6), 1);
  std::vector<uint8_t> bytes(medium_.bytes());
  medium_.Read(0, bytes.data(), bytes.size());
  larger.Write(0, bytes.data(), bytes.size());
  SimFaults faults;
  faults.write_error = 1000;
  LogMachine machine(larger, clock_, TestOptions(), faults);
  ASSERT_TRUE(machine.Start().ok());
  EXPECT_EQ(machine.log().stats().segments.total, 4u);
  EXPECT_EQ(machine.log().stats().recovery.records, kRecords);
  EXPECT_THAT(machine.log().stats().damage, testing::ElementsAre(HasSubstr("did not grow")));
}

TEST_F(LogCopies, BothSuperblocksDamagedAreRefusedAndLeftAlone) {
  Damage(60);
  Damage(kLogCopyStride + 60);
  const uint64_t writes = medium_.write_count();
  const Status refused = Start();
  EXPECT_EQ(refused.code(), StatusCode::kCorrupt);
  EXPECT_THAT(refused.message(), HasSubstr("both superblocks damaged"));
  EXPECT_EQ(medium_.write_count(), writes);
}

TEST_F(LogCopies, EitherNamespaceTableHealsTheOther) {
  for (const uint64_t byte :
       {kNamespaceTableOffset + 5000, kLogCopyStride + kNamespaceTableOffset + 9}) {
    Damage(byte);
    ASSERT_TRUE(Start().ok());
    EXPECT_EQ(stats_.healed_copies, 1u);
    EXPECT_EQ(namespaces_, Namespaces());
    ASSERT_TRUE(Start().ok());
    EXPECT_EQ(stats_.healed_copies, 0u);
  }
}

TEST_F(LogCopies, BothNamespaceTablesDamagedAreRefused) {
  Damage(kNamespaceTableOffset + 5000);
  Damage(kLogCopyStride + kNamespaceTableOffset + 9);
  const Status refused = Start();
  EXPECT_EQ(refused.code(), StatusCode::kCorrupt);
  EXPECT_THAT(refused.message(), HasSubstr("namespace table"));
}

TEST_F(LogCopies, DamagedHeadOfASealedSegmentCostsNothing) {
  ASSERT_TRUE(Start().ok());  // seals what is open
  Damage(SegmentOffset(0, kTestSegmentBytes) + 8);
  ASSERT_TRUE(Start().ok());
  EXPECT_EQ(stats_.recovery.damaged_heads, 1u);
  EXPECT_EQ(stats_.recovery.records, kRecords);
}

TEST_F(LogCopies, DamagedFooterIsMadeGoodFromTheHeaders) {
  ASSERT_TRUE(Start().ok());
  Damage(SegmentOffset(1, kTestSegmentBytes) - 2 * kLogBlockBytes + 100);
  ASSERT_TRUE(Start().ok());
  EXPECT_EQ(stats_.recovery.damaged_footers, 1u);
  EXPECT_EQ(stats_.recovery.walked, 1u);
  EXPECT_EQ(stats_.recovery.records, kRecords);
  ASSERT_TRUE(Start().ok());
  EXPECT_EQ(stats_.recovery.damaged_footers, 0u);
}

// A misdirected write or read: every byte is right, only the place is not.
TEST_F(LogCopies, RecordOfAnotherPlaceOrLifeIsRefused) {
  ASSERT_TRUE(Start().ok());
  LogMachine machine(medium_, clock_);
  ASSERT_TRUE(machine.Start().ok());
  const TestChunk chunk = Chunk(1);
  const LogPlace from = machine.places.at(1), to = machine.places.at(kRecords - 1);
  const auto offset = [](const LogPlace& place) {
    return SegmentOffset(place.segment, kTestSegmentBytes) +
           uint64_t{place.offset_units} * kLogBlockBytes;
  };
  std::vector<uint8_t> record(shm::RecordBytes(chunk.payload.size()));
  medium_.Read(offset(from), record.data(), record.size());
  medium_.Write(offset(to), record.data(), record.size());
  EXPECT_TRUE(machine.Get(chunk, from).ok());
  EXPECT_EQ(machine.Get(chunk, to).code(), StatusCode::kCorrupt);
  LogPlace former = from;
  --former.sequence;
  EXPECT_EQ(VerifyRecord(record, chunk.identity, former).code(), StatusCode::kCorrupt);
  EXPECT_TRUE(VerifyRecord(record, chunk.identity, from).ok());
  RecordIdentity other = chunk.identity;
  ++other.namespace_id;
  EXPECT_EQ(VerifyRecord(record, other, from).code(), StatusCode::kCorrupt);
}

// Someone else's file system over the first blocks must not be "healed" away.
TEST_F(LogCopies, WhatSomeoneElseWroteOverACopyIsRefusedAndLeftAlone) {
  const std::vector<uint8_t> theirs(kLogBlockBytes, 0x5a);
  medium_.Write(0, theirs.data(), theirs.size());
  const uint64_t writes = medium_.write_count();
  const Status refused = Start();
  EXPECT_EQ(refused.code(), StatusCode::kCorrupt);
  EXPECT_THAT(refused.message(), HasSubstr("something else was written over the log at byte 0"));
  EXPECT_EQ(medium_.write_count(), writes);
}

TEST(LogOpen, OtherDataIsRefusedAndLeftAlone) {
  SimClock clock;
  SimMedium medium(TestDiskBytes(2), 1);
  const std::vector<uint8_t> theirs(kLogBlockBytes, 0x5a);
  medium.Write(5 * kMiB, theirs.data(), theirs.size());
  const uint64_t writes = medium.write_count();
  LogMachine machine(medium, clock);
  const Status refused = machine.Start();
  EXPECT_EQ(refused.code(), StatusCode::kCorrupt);
  EXPECT_THAT(refused.message(), HasSubstr("holds other data"));
  EXPECT_EQ(medium.write_count(), writes);
}

TEST_F(LogCopies, AnotherIdentityIsRefusedAndLeavesTheLogAlone) {
  const uint64_t writes = medium_.write_count();
  const auto refused = [&](const std::function<void(SegmentLogOptions&)>& change) {
    SegmentLogOptions options = TestOptions();
    change(options);
    LogMachine machine(medium_, clock_, options);
    return machine.Open();
  };
  EXPECT_EQ(refused([](SegmentLogOptions& o) { o.set_id[0] = 99; }).code(), StatusCode::kDenied);
  EXPECT_EQ(refused([](SegmentLogOptions& o) { o.tenant = "other"; }).code(), StatusCode::kDenied);
  EXPECT_EQ(refused([](SegmentLogOptions& o) { o.segment_bytes = 4 * kMiB; }).code(),
            StatusCode::kInvalid);
  EXPECT_EQ(refused([](SegmentLogOptions& o) { o.segment_count = 3; }).code(),
            StatusCode::kInvalid);
  EXPECT_EQ(refused([](SegmentLogOptions& o) { o.device_count = 2; }).code(), StatusCode::kInvalid);
  EXPECT_EQ(medium_.write_count(), writes);
  EXPECT_TRUE(refused([](SegmentLogOptions& o) { o.segment_count = 4; }).ok());
}

TEST_F(LogCopies, NewerVersionIsRefusedAndLeftAlone) {
  LogSuperblock block;
  medium_.Read(0, reinterpret_cast<uint8_t*>(&block), sizeof(block));
  block.version = 3;
  block.checksum = 0;
  block.checksum = HashBytes(&block, sizeof(block));
  medium_.Write(0, reinterpret_cast<const uint8_t*>(&block), sizeof(block));
  const uint64_t writes = medium_.write_count();
  const Status refused = Start();
  EXPECT_EQ(refused.code(), StatusCode::kInvalid);
  EXPECT_THAT(refused.message(), HasSubstr("version 3"));
  EXPECT_EQ(medium_.write_count(), writes);
}

// The same set again over a device whose start was wiped: namespace ids begin anew there, so that
// what the former log left behind would be found under another namespace's name.
TEST_F(LogCopies, FormerLogsRecordsStayGone) {
  const std::vector<uint8_t> zeros(kLogStartBytes);
  medium_.Write(0, zeros.data(), zeros.size());
  SegmentLogOptions options = TestOptions();
  options.new_log_id = 5;  // its sequences run below the former ones
  {
    LogMachine machine(medium_, clock_, options);
    ASSERT_TRUE(machine.Start().ok());
    EXPECT_EQ(machine.recovered.size(), 0u);
    // In the places and of the sizes of the former: the chain must not run on into those.
    for (uint32_t number = 0; number < 3; ++number) {
      ASSERT_TRUE(machine.Put(Chunk(number), number).ok());
    }
    machine.LosePower();
  }
  LogMachine machine(medium_, clock_, options);
  ASSERT_TRUE(machine.Start().ok());
  EXPECT_EQ(machine.recovered.size(), 3u);
}

// Heads and records of a former set under the same device are no part of the new one.
TEST_F(LogCopies, FormerSetsRecordsStayGone) {
  const std::vector<uint8_t> zeros(kLogStartBytes);
  medium_.Write(0, zeros.data(), zeros.size());
  SegmentLogOptions options = TestOptions();
  options.set_id[0] = 99;
  LogMachine machine(medium_, clock_, options);
  ASSERT_TRUE(machine.Start().ok());
  EXPECT_TRUE(machine.log().stats().formatted);
  EXPECT_EQ(machine.recovered.size(), 0u);
  EXPECT_GT(machine.log().stats().recovery.foreign, 0u);
  EXPECT_EQ(machine.log().stats().segments.free, 4u);
}

}  // namespace
}  // namespace terrace
