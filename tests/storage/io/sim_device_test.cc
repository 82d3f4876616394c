// The simulated device keeps the contract, and its faults are what their names say.

#include "tests/storage/io/sim_device.h"

#include <gtest/gtest.h>

#include <deque>
#include <vector>

#include "tests/storage/io/io_testing.h"

namespace terrace {
namespace {

constexpr uint64_t kBytes = 4 * kMiB;
constexpr uint64_t kCell = 64 * kKiB;
constexpr uint64_t kCells = kBytes / kCell;

SimFaults NoPowerFaults() {
  SimFaults faults;
  faults.lost = faults.torn = 0;
  return faults;
}

class Sim : public testing::Test {
 protected:
  void Begin(const SimFaults& faults, uint64_t seed = 1) {
    medium_ = std::make_unique<SimMedium>(kBytes, seed);
    Reopen(faults);
  }
  void Reopen(const SimFaults& faults) {
    device_ = std::make_unique<SimDevice>(*medium_, clock_, SimDevice::Options{.faults = faults});
  }
  Status Carry(Ask& ask) {
    if (Status submitted = device_->Submit(ask); !submitted.ok()) return submitted;
    device_->RunUntilIdle();
    return ask.status();
  }

  SimClock clock_;
  PageMemory out_{kCell};
  PageMemory in_{kCell};
  std::unique_ptr<SimMedium> medium_;
  std::deque<Ask> asks_;
  std::unique_ptr<SimDevice> device_;
};

TEST_F(Sim, SyncedWritesOutliveAPowerLossAndOthersNeedNot) {
  SimFaults faults;
  faults.lost = 1000;
  Begin(faults);
  Ask ask;
  out_.Fill(1);
  ASSERT_TRUE(Carry(ask.Write(0, out_.data(), kCell)).ok());
  ASSERT_TRUE(Carry(ask.Sync()).ok());
  ASSERT_TRUE(Carry(ask.Write(kCell, out_.data(), kCell)).ok());
  asks_.resize(1);
  ASSERT_TRUE(device_->Submit(asks_[0].Write(2 * kCell, out_.data(), kCell)).ok());
  device_->Flush();
  device_->LosePower();
  EXPECT_FALSE(asks_[0].outstanding());
  EXPECT_EQ(asks_[0].ends, 0u);
  EXPECT_EQ(device_->injected().lost, 2u);
  Reopen(faults);
  ASSERT_TRUE(Carry(ask.Read(0, in_.data(), kCell)).ok());
  EXPECT_EQ(std::memcmp(in_.data(), out_.data(), kCell), 0);
  ASSERT_TRUE(Carry(ask.Read(kCell, in_.data(), kCell)).ok());
  EXPECT_EQ(in_.data()[0] | in_.data()[kCell - 1], 0);
}

TEST_F(Sim, TornWritesKeepWholeSectors) {
  SimFaults faults = NoPowerFaults();
  faults.torn = 1000;
  Begin(faults);
  Ask ask;
  std::memset(out_.data(), 0xAB, kCell);
  ASSERT_TRUE(Carry(ask.Write(0, out_.data(), kCell)).ok());
  device_->LosePower();
  Reopen(faults);
  ASSERT_TRUE(Carry(ask.Read(0, in_.data(), kCell)).ok());
  uint64_t kept = 0;
  for (uint64_t at = 0; at < kCell; at += SimMedium::kSectorBytes) {
    for (uint64_t i = 1; i < SimMedium::kSectorBytes; ++i) {
      ASSERT_EQ(in_.data()[at + i], in_.data()[at]);
    }
    if (in_.data()[at] == 0xAB) ++kept;
  }
  EXPECT_GT(kept, 0u);
  EXPECT_LT(kept, kCell / SimMedium::kSectorBytes);
}

TEST_F(Sim, SyncCoversOnlyWhatWasWrittenBeforeIt) {
  SimFaults faults;
  faults.lost = 1000;
  faults.latency_ns_min = faults.latency_ns_max = 1000;
  Begin(faults);
  asks_.resize(2);
  out_.Fill(2);
  ASSERT_TRUE(device_->Submit(asks_[0].Write(0, out_.data(), kPageBytes)).ok());
  ASSERT_TRUE(device_->Submit(asks_[1].Sync()).ok());
  device_->RunUntilIdle();
  EXPECT_TRUE(asks_[1].status().ok());
  device_->LosePower();
  EXPECT_EQ(device_->injected().lost, 1u);
}

TEST_F(Sim, EachFaultShowsAsItsOwnAnswer) {
  const auto answer = [&](uint32_t SimFaults::*fault, bool read) {
    SimFaults faults;
    faults.*fault = 1000;
    Begin(faults);
    Ask ask;
    out_.Fill(4);
    return read ? Carry(ask.Read(0, in_.data(), kCell)) : Carry(ask.Write(0, out_.data(), kCell));
  };
  EXPECT_EQ(answer(&SimFaults::read_error, true).code(), StatusCode::kIoError);
  EXPECT_EQ(answer(&SimFaults::write_error, false).code(), StatusCode::kIoError);
  EXPECT_EQ(answer(&SimFaults::full, false).code(), StatusCode::kNoSpace);
  EXPECT_EQ(answer(&SimFaults::again, true).code(), StatusCode::kIoError);  // for ever
  EXPECT_TRUE(answer(&SimFaults::stale, true).ok());
  EXPECT_EQ(device_->stats().stale, device_->injected().stale);
  EXPECT_GT(device_->stats().stale, 0u);
  EXPECT_TRUE(answer(&SimFaults::slow, true).ok());
  EXPECT_TRUE(answer(&SimFaults::rot, true).ok());
  EXPECT_EQ(device_->injected().rotten_bits, 1u);
  EXPECT_TRUE(answer(&SimFaults::dropped_write, false).ok());
  medium_->Read(0, in_.data(), kCell);
  EXPECT_EQ(in_.data()[0] | in_.data()[1], 0);
  EXPECT_TRUE(answer(&SimFaults::misdirected_write, false).ok());
  EXPECT_EQ(device_->injected().misdirected, 1u);
}

TEST_F(Sim, ShrunkenMediumIsAnError) {
  Begin(NoPowerFaults());
  medium_->Shrink(kCell / 2);
  Ask ask;
  EXPECT_EQ(Carry(ask.Read(0, in_.data(), kCell)).code(), StatusCode::kIoError);
  EXPECT_EQ(device_->CheckMedium().code(), StatusCode::kIoError);
}

// What a run did, for comparing runs.
struct Outcome {
  uint64_t wrong = 0;  // an Ok that is not what it says, with no fault that explains it
  uint64_t unended = 0;
  uint64_t retries = 0, short_transfers = 0, stale = 0;
  int64_t end_ns = 0;
  bool operator==(const Outcome&) const = default;
};

Outcome RunSwarm(uint64_t seed) {
  SimFaults faults = SimFaults::Swarm(seed);
  faults.rot = faults.misdirected_write = faults.dropped_write = 0;  // for checksums to find
  SimClock clock;
  SimMedium medium(kBytes, seed);
  constexpr uint32_t kAsks = 16;
  PageMemory memory(kAsks * kCell);
  std::deque<Ask> asks(kAsks);
  SimDevice device(medium, clock, {.faults = faults});
  std::mt19937_64 random(seed);
  // What a cell holds; -1 once a failed write left it undefined.
  std::vector<int> model(kCells, 0);
  std::vector<uint32_t> submitted(kAsks, 0);
  Outcome outcome;
  for (uint32_t step = 0; step < 300; ++step) {
    const uint32_t i = static_cast<uint32_t>(random() % kAsks);
    Ask& ask = asks[i];
    const uint64_t cell = i + random() % (kCells / kAsks) * kAsks;  // each ask has its own cells
    uint8_t* const at = memory.data() + i * kCell;
    if (ask.outstanding()) {
      if (random() % 8 == 0) device.Cancel(ask);
    } else {
      const auto value = static_cast<uint8_t>(random());
      const bool read = random() % 2 == 0;
      if (read) {
        ask.Read(cell * kCell, at, kCell, static_cast<IoClass>(random() % kIoClassCount));
      } else {
        std::memset(at, value, kCell);
        ask.Write(cell * kCell, at, kCell);
      }
      ask.then = [&, cell, at, read, value] {
        if (!read) model[cell] = ask.status().ok() ? value : -1;
        if (!read || !ask.status().ok() || model[cell] < 0) return;
        for (uint64_t b = 0; b < kCell; b += 512) outcome.wrong += at[b] != model[cell];
      };
      if (device.Submit(ask).ok()) ++submitted[i];
    }
    if (random() % 3 != 0) continue;
    device.Flush();
    if (const auto next = device.next_event_ns()) clock.AdvanceTo(std::max(*next, clock.NowNs()));
    device.Poll();
  }
  device.RunUntilIdle();
  for (uint32_t i = 0; i < kAsks; ++i) outcome.unended += submitted[i] - asks[i].ends;
  outcome.retries = device.stats().retries;
  outcome.short_transfers = device.stats().short_transfers;
  outcome.stale = device.stats().stale - device.injected().stale;
  outcome.end_ns = clock.NowNs();
  return outcome;
}

TEST(SimSwarm, NoSeedLosesARequestOrAByte) {
  uint64_t retries = 0, short_transfers = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    const Outcome outcome = RunSwarm(seed);
    ASSERT_EQ(outcome.wrong, 0u) << "seed " << seed;
    ASSERT_EQ(outcome.unended, 0u) << "seed " << seed;
    ASSERT_EQ(outcome.stale, 0u) << "seed " << seed;
    retries += outcome.retries;
    short_transfers += outcome.short_transfers;
  }
  EXPECT_GT(retries, 0u);
  EXPECT_GT(short_transfers, 0u);
}

TEST(SimSwarm, SameSeedSameRun) { EXPECT_EQ(RunSwarm(42), RunSwarm(42)); }

}  // namespace
}  // namespace terrace
