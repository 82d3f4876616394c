// The contract on real files, for each way in which bytes move.

#include "storage/io/block_device.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <vector>

#include "storage/io/open_device.h"
#include "storage/io/tune_budgets.h"
#include "tests/storage/io/io_testing.h"

namespace terrace {
namespace {

constexpr uint64_t kStripe = 1 * kMiB;
constexpr uint64_t kCapacity = 16 * kMiB;

class RealDevice : public testing::TestWithParam<DeviceMode> {
 protected:
  void Open() {
    OpenOptions options;
    options.files.paths = {folder_.path("a"), folder_.path("b")};
    options.files.capacity_bytes = kCapacity + 64 * kKiB;  // room for extents' own blocks
    options.files.stripe_bytes = kStripe;
    options.best = GetParam();
    options.buffer_count = 4;
    Result<OpenedDevice> opened = OpenDevice(options, clock_);
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    device_ = std::move(opened->device);
    ASSERT_EQ(device_->mode(), GetParam()) << device_->Describe();
    ASSERT_EQ(device_->capacity_bytes(), kCapacity);
  }
  void TearDown() override {
    if (device_ != nullptr) device_->Drain();
  }

  TestFolder folder_;
  SystemClock clock_;
  std::deque<Ask> asks_;
  std::unique_ptr<BlockDevice> device_;
};

TEST_P(RealDevice, WhatWasWrittenIsReadAfterOpeningAgain) {
  Open();
  PageMemory out(kCapacity), in(kCapacity);
  out.Fill(1);
  const Result<BufferId> buffer = device_->RegisterBuffer(out.data(), out.bytes());
  ASSERT_TRUE(buffer.ok());
  Ask write, sync, read;
  ASSERT_TRUE(
      Carry(*device_, write.Write(0, out.data(), kCapacity, IoClass::kWriteBehind, *buffer)).ok());
  ASSERT_TRUE(Carry(*device_, sync.Sync()).ok());
  device_->UnregisterBuffer(*buffer);
  device_.reset();
  Open();
  ASSERT_TRUE(Carry(*device_, read.Read(0, in.data(), kCapacity)).ok());
  EXPECT_EQ(std::memcmp(in.data(), out.data(), kCapacity), 0);
  EXPECT_EQ(device_->stats().of(IoKind::kRead).bytes, kCapacity);
  EXPECT_EQ(device_->stats().stale, 0u);
}

TEST_P(RealDevice, ManyAtOnceAgreeWithAModel) {
  Open();
  constexpr uint64_t kCell = 64 * kKiB;
  constexpr uint64_t kCells = kCapacity / kCell;
  constexpr uint32_t kWorkers = 24;
  PageMemory memory(kWorkers * kCell);
  const Result<BufferId> buffer = device_->RegisterBuffer(memory.data(), memory.bytes());
  ASSERT_TRUE(buffer.ok());
  std::vector<uint8_t> model(kCells, 0);  // what every byte of a cell is
  std::vector<bool> taken(kCells, false);
  std::mt19937_64 random(7);
  uint32_t left = 600, running = 0, wrong = 0;
  asks_.resize(kWorkers);
  std::vector<uint64_t> cells(kWorkers);
  const auto next = [&](uint32_t worker) {
    if (left == 0) return;
    --left;
    ++running;
    uint64_t cell = random() % kCells;
    while (taken[cell]) cell = random() % kCells;
    taken[cell] = true;
    cells[worker] = cell;
    uint8_t* const at = memory.data() + worker * kCell;
    const BufferId id = random() % 4 == 0 ? kNoBuffer : *buffer;
    if (random() % 2 == 0) {
      model[cell] = static_cast<uint8_t>(random());
      std::memset(at, model[cell], kCell);
      asks_[worker].Write(cell * kCell, at, kCell, IoClass::kWriteBehind, id);
    } else {
      std::memset(at, model[cell] + 1, kCell);
      asks_[worker].Read(cell * kCell, at, kCell, IoClass::kPrefetch, id);
    }
    EXPECT_TRUE(device_->Submit(asks_[worker]).ok());
  };
  for (uint32_t worker = 0; worker < kWorkers; ++worker) {
    asks_[worker].then = [&, worker] {
      --running;
      const uint8_t* const at = memory.data() + worker * kCell;
      const uint8_t expected = model[cells[worker]];
      if (!asks_[worker].status().ok() ||
          !std::all_of(at, at + kCell, [expected](uint8_t byte) { return byte == expected; })) {
        ++wrong;
      }
      taken[cells[worker]] = false;
      next(worker);
    };
    next(worker);
  }
  ASSERT_TRUE(AwaitEnds(*device_, [&] { return running == 0 && left == 0; }));
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(device_->stats().operations, 0u);
  EXPECT_EQ(device_->stats().of(IoKind::kRead).errors, 0u);
}

TEST_P(RealDevice, CancelledAndDrainedRequestsEndOnce) {
  Open();
  PageMemory memory(kCapacity);
  asks_.resize(64);
  for (uint32_t i = 0; i < asks_.size(); ++i) {
    uint8_t* const at = memory.data() + i % 16 * kMiB;
    if (i % 2 == 0) asks_[i].Read(i % 16 * kMiB, at, kMiB);
    if (i % 2 == 1) asks_[i].Write(i % 16 * kMiB, at, kMiB);
    ASSERT_TRUE(device_->Submit(asks_[i]).ok());
  }
  device_->Flush();
  for (uint32_t i = 0; i < asks_.size(); i += 3) device_->Cancel(asks_[i]);
  device_->Drain();
  for (const Ask& ask : asks_) {
    EXPECT_EQ(ask.ends, 1u);
    EXPECT_FALSE(ask.outstanding());
    EXPECT_TRUE(ask.status().ok() || ask.status().code() == StatusCode::kCancelled)
        << ask.status().ToString();
  }
}

TEST_P(RealDevice, ShrunkenFileIsAnErrorAndNamed) {
  Open();
  EXPECT_TRUE(device_->CheckMedium().ok());
  ASSERT_EQ(truncate(folder_.path("b").c_str(), static_cast<off_t>(kStripe / 2)), 0);
  PageMemory memory(2 * kMiB);
  Ask inside, across, beyond, other;
  EXPECT_EQ(Carry(*device_, across.Read(kStripe, memory.data(), kStripe)).code(),
            StatusCode::kIoError);
  EXPECT_EQ(Carry(*device_, beyond.Read(3 * kStripe, memory.data(), kPageBytes)).code(),
            StatusCode::kIoError);
  EXPECT_TRUE(Carry(*device_, inside.Read(kStripe, memory.data(), kPageBytes)).ok());
  EXPECT_TRUE(Carry(*device_, other.Read(0, memory.data(), kStripe)).ok());
  const Status check = device_->CheckMedium();
  EXPECT_EQ(check.code(), StatusCode::kIoError);
  EXPECT_NE(check.message().find(folder_.path("b")), std::string::npos) << check.ToString();
}

TEST_P(RealDevice, RemovedFileIsNamedAndStillServes) {
  Open();
  ASSERT_EQ(unlink(folder_.path("a").c_str()), 0);
  PageMemory memory(kPageBytes);
  Ask read;
  EXPECT_TRUE(Carry(*device_, read.Read(0, memory.data(), kPageBytes)).ok());
  EXPECT_EQ(device_->CheckMedium().code(), StatusCode::kIoError);
}

TEST_P(RealDevice, DiscardKeepsTheFilesRoom) {
  Open();
  const uint64_t before = device_->AllocatedBytes();
  Ask discard;
  EXPECT_TRUE(Carry(*device_, discard.Discard(0, 4 * kStripe)).ok());
  EXPECT_EQ(device_->AllocatedBytes(), before);
}

TEST_P(RealDevice, BuffersComeAndGoUnderLoad) {
  Open();
  PageMemory memory(8 * kMiB), out(kMiB);
  out.Fill(3);
  Ask write;
  ASSERT_TRUE(Carry(*device_, write.Write(0, out.data(), kMiB)).ok());
  for (uint32_t round = 0; round < 50; ++round) {
    uint8_t* const at = memory.data() + round % 8 * kMiB;
    std::memset(at, 0, kMiB);
    Result<BufferId> buffer = device_->RegisterBuffer(at, kMiB);
    // All slots may still be with the kernel.
    while (!buffer.ok()) {
      ASSERT_EQ(buffer.status().code(), StatusCode::kBusy);
      AwaitEnds(*device_, [&] { return (buffer = device_->RegisterBuffer(at, kMiB)).ok(); });
    }
    Ask read;
    ASSERT_TRUE(device_->Submit(read.Read(0, at, kMiB, IoClass::kDeadline, *buffer)).ok());
    device_->Flush();
    device_->UnregisterBuffer(*buffer);
    ASSERT_TRUE(AwaitEnds(*device_, [&] { return read.ends == 1; }));
    ASSERT_TRUE(read.status().ok()) << read.status().ToString();
    ASSERT_EQ(std::memcmp(at, out.data(), kMiB), 0);
  }
}

TEST_P(RealDevice, BufferOfReadOnlyMemoryCanBeWrittenFrom) {
  Open();
  PageMemory memory(kMiB), in(kMiB);
  memory.Fill(5);
  ASSERT_EQ(mprotect(memory.data(), kMiB, PROT_READ), 0);
  const Result<BufferId> buffer = device_->RegisterBuffer(memory.data(), kMiB);
  ASSERT_TRUE(buffer.ok());
  Ask write, read;
  EXPECT_TRUE(
      Carry(*device_, write.Write(0, memory.data(), kMiB, IoClass::kWriteBehind, *buffer)).ok());
  EXPECT_TRUE(Carry(*device_, read.Read(0, in.data(), kMiB)).ok());
  EXPECT_EQ(std::memcmp(in.data(), memory.data(), kMiB), 0);
  EXPECT_EQ(device_->mode(), GetParam());  // one buffer is not the mode
}

TEST_P(RealDevice, TuningSetsBudgetsThatItMeasured) {
  Open();
  PageMemory memory(5 * kMiB);
  TuneOptions options;
  options.bytes = 8 * kMiB;
  options.scratch = true;
  options.memory = memory.data();
  options.memory_bytes = memory.bytes();
  options.time_ns_max = 60 * kNsPerMs;
  const Result<IoBudgets> tuned = TuneBudgets(*device_, options, clock_);
  ASSERT_TRUE(tuned.ok()) << tuned.status().ToString();
  EXPECT_EQ(tuned->read_bytes, 4 * (kMiB + kPageBytes));  // more does not fit its memory
  EXPECT_EQ(device_->budgets().read_bytes, tuned->read_bytes);
  EXPECT_GE(tuned->write_depth, 1u);
  EXPECT_EQ(device_->budgets().read_quiet_ns, IoBudgets().read_quiet_ns);
  EXPECT_GT(device_->stats().of(IoKind::kWrite).bytes, 0u);

  options.bytes = kPageBytes;
  EXPECT_EQ(TuneBudgets(*device_, options, clock_).status().code(), StatusCode::kInvalid);
}

std::string ModeName(const testing::TestParamInfo<DeviceMode>& mode) {
  if (mode.param == DeviceMode::kUringFixed) return "UringFixed";
  return mode.param == DeviceMode::kUringPlain ? "UringPlain" : "Threads";
}

INSTANTIATE_TEST_SUITE_P(Modes, RealDevice,
                         testing::Values(DeviceMode::kUringFixed, DeviceMode::kUringPlain,
                                         DeviceMode::kThreads),
                         ModeName);

}  // namespace
}  // namespace terrace
