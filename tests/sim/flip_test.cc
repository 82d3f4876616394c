// One bit flipped anywhere on the disk of a filled store: a miss, counted, and healed by the next
// put; never a wrong byte.  Half of the flips happen before the store is opened, half under it.
//
//   TERRACE_FLIPS=N        so many flips instead of the suite's
//   TERRACE_FLIPS_FROM=K   from this one on
//
// A flip that fails prints the command that does it alone.

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <random>

#include "storage/base/log.h"
#include "tests/storage/engine/nvme_harness.h"

namespace terrace {
namespace {

// Sanitizers look at the same code ten times as slowly.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kFlips = 60;
#else
constexpr uint64_t kFlips = 400;
#endif

constexpr uint64_t kKeys = 24;
constexpr uint32_t kParts = 3;  // each in a segment of its own
constexpr uint32_t kLogSegments = 8;

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* const given = std::getenv(name);
  return given == nullptr ? otherwise : std::strtoull(given, nullptr, 10);
}

uint32_t BytesOf(uint64_t key) { return static_cast<uint32_t>(1 + key * 7919 % 120'000); }

// Most flips go where bytes that mean something are: those are a small part of the disk.
uint64_t PickByte(std::mt19937_64& random, uint64_t disk_bytes) {
  const auto within = [&](uint64_t from, uint64_t bytes) { return from + random() % bytes; };
  const uint64_t copy = random() % kLogCopyCount * kLogCopyStride;
  const uint64_t segment =
      SegmentOffset(static_cast<uint32_t>(random() % kParts), kTestSegmentBytes);
  switch (random() % 8) {
    case 0: return within(copy, kLogBlockBytes);
    case 1: return within(copy + kNamespaceTableOffset, 2 * kLogBlockBytes);
    case 2: return within(segment, 2 * kLogBlockBytes);
    case 3: return within(segment + kTestSegmentBytes - 2 * kLogBlockBytes, 2 * kLogBlockBytes);
    case 4: return within(0, disk_bytes);
    default: return within(segment, 500 * kKiB);
  }
}

struct Outcome {
  uint64_t whole = 0, missed = 0, healed_copies = 0, corrupt = 0, uncounted = 0;
  uint64_t damaged_frames = 0;
};

class Flip : public NvmeStoreTest {
 protected:
  Flip() { dtype = "bf16"; }
  void SetUp() override { SetLogLevel(LogLevel::kOff); }

  // A disk with `kKeys` chunks, as they are or as frames of the codec; its last segment is sealed,
  // or open as a kill leaves it.
  void FillDisk(bool sealed, bool encode) {
    boots = 0;
    OpenNvme(4, kLogSegments);
    ShutDown();
    options.nvme.encode = encode;
    Boot();
    for (const char* label : {"other", "third"}) {
      NamespaceSpec spec;
      spec.label = label;
      spec.model = std::string(1500, 'm');
      ASSERT_TRUE(store->RegisterNamespace(spec).ok());
    }
    for (uint32_t part = 0; part < kParts; ++part) {
      for (uint64_t key = part; key < kKeys; key += kParts) {
        ASSERT_EQ(PutKey(key, BytesOf(key)), StatusCode::kOk);
        ASSERT_EQ(PersistKey(key), StatusCode::kOk);
      }
      if (sealed || part + 1 < kParts) Restart();
    }
    ShutDown();
  }

  StatusCode PersistKey(uint64_t key) {
    const auto ask = [&] { return store->Persist(ns, KeyOf(key), now_ns); };
    RunUntil([&] { return ask() != StatusCode::kBusy; });
    return ask();
  }

  // Flips one bit of a copy of `filled`, before or under a store, and reads everything.
  void FlipOne(const SimMedium& filled, uint64_t number, Outcome* outcome) {
    std::mt19937_64 random(number);
    medium.emplace(filled);
    const uint64_t byte = PickByte(random, medium->bytes());
    const auto bit = static_cast<uint32_t>(random() % 8);
    const bool before = random() % 2 == 0;
    SCOPED_TRACE("byte " + std::to_string(byte) + " bit " + std::to_string(bit) +
                 (before ? " before" : " under") + " the store");
    if (before) medium->FlipBit(byte, bit);
    Boot();
    if (HasFatalFailure()) return;
    if (!before) medium->FlipBit(byte, bit);
    ASSERT_TRUE(store->nvme_why_off().ok()) << store->nvme_why_off().ToString();
    std::vector<uint64_t> missed;
    for (uint64_t key = 0; key < kKeys && !HasFailure(); ++key) {
      if (Get(key, BytesOf(key)) != StatusCode::kOk) missed.push_back(key);
    }
    Count(!missed.empty(), outcome);
    Heal(missed, number % 4 == 0);
    ShutDown();
  }

  void Count(bool missed, Outcome* outcome) {
    const NvmeStats stats = nvme();
    const RecoveryProgress& found = stats.log.recovery;
    outcome->healed_copies += stats.log.healed_copies;
    outcome->corrupt += stats.load_corrupt;
    outcome->damaged_frames += stats.decodes_failed;
    if (!missed) {
      ++outcome->whole;
      return;
    }
    ++outcome->missed;
    const uint64_t counted = stats.load_corrupt + found.damaged_heads + found.damaged_footers +
                             found.foreign + found.damaged_headers + found.torn_records;
    if (counted == 0) ++outcome->uncounted;
  }

  // The next put of what is missed is taken and kept, in this life and the next.
  void Heal(const std::vector<uint64_t>& missed, bool look_again) {
    for (const uint64_t key : missed) {
      ASSERT_EQ(PutKey(key, BytesOf(key)), StatusCode::kOk) << "key " << key;
      ASSERT_EQ(PersistKey(key), StatusCode::kOk) << "key " << key;
      ASSERT_EQ(Get(key, BytesOf(key)), StatusCode::kOk) << "key " << key;
    }
    if (!look_again) return;
    ShutDown();
    Boot();
    for (const uint64_t key : missed) {
      ASSERT_EQ(Get(key, BytesOf(key)), StatusCode::kOk) << "key " << key << " in the next life";
    }
  }
};

TEST_F(Flip, IsAMissThatThePutHealsAndNeverWrongBytes) {
  std::vector<SimMedium> disks;
  for (const bool encode : {false, true}) {
    for (const bool sealed : {true, false}) {
      FillDisk(sealed, encode);
      ASSERT_FALSE(HasFailure());
      disks.push_back(*medium);
    }
  }

  const uint64_t from = FromEnvironment("TERRACE_FLIPS_FROM", 1);
  const uint64_t count = FromEnvironment("TERRACE_FLIPS", kFlips);
  Outcome outcome;
  for (uint64_t number = from; number < from + count; ++number) {
    FlipOne(disks[number % disks.size()], number, &outcome);
    ASSERT_FALSE(HasFailure()) << "again: TERRACE_FLIPS_FROM=" << number
                               << " TERRACE_FLIPS=1 build/release/bin/flip_test";
  }
  std::printf(
      "%lu flips: %lu without a miss, %lu with one, %lu of these counted nowhere, %lu "
      "corrupt reads, %lu of these of encoded records, %lu copies healed\n",
      count, outcome.whole, outcome.missed, outcome.uncounted, outcome.corrupt,
      outcome.damaged_frames, outcome.healed_copies);
  // Of a header's 4096 bytes 8 say in which life of the segment it was written: a walk that meets
  // others there has met the end.
  EXPECT_LE(outcome.uncounted, 1 + count / 100);
  if (count < 50) return;
  EXPECT_GT(outcome.missed, count / 10);
  EXPECT_GT(outcome.corrupt, count / 20);
  EXPECT_GT(outcome.damaged_frames, count / 40);
  EXPECT_GT(outcome.healed_copies, count / 20);
}

}  // namespace
}  // namespace terrace
