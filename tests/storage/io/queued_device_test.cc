// Queues, budgets, order, cancels: what happens before an operation starts.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <deque>
#include <utility>
#include <vector>

#include "tests/storage/io/io_testing.h"
#include "tests/storage/io/scripted_device.h"
#include "tests/storage/io/sim_clock.h"

namespace terrace {
namespace {

constexpr uint64_t kStripe = 64 * kMiB;
constexpr uint64_t kCapacity = 4 * kStripe;

class IoQueue : public testing::Test {
 protected:
  IoQueue() { clock_.Advance(kNsPerSecond); }
  ~IoQueue() override {
    device_.EndAll();  // what a test left
  }

  Ask& Made() { return asks_.emplace_back(); }
  std::deque<Ask>& Many(size_t count) {
    many_.resize(count);
    return many_;
  }
  void Submit(Ask& ask) { ASSERT_TRUE(device_.Submit(ask).ok()); }
  std::vector<ScriptedDevice::Operation> Flushed() {
    device_.Flush();
    return device_.TakeStarted();
  }
  bool EventIsSet() {
    pollfd event{.fd = device_.event_fd(), .events = POLLIN, .revents = 0};
    return poll(&event, 1, 0) == 1;
  }

  std::deque<Ask> asks_;  // outlive a test's body: some are in flight at its end
  std::deque<Ask> many_;
  SimClock clock_;
  PageMemory memory_{16 * kMiB};
  uint8_t* const at_ = memory_.data();
  ScriptedDevice device_{
      {.capacity_bytes = kCapacity, .stripe_bytes = kStripe, .file_count = 2}, 2, clock_};
};

TEST_F(IoQueue, StartsNothingBeforeFlushAndCallsDoneOnlyInPoll) {
  Ask& ask = Made();
  Submit(ask.Read(0, at_, kPageBytes));
  EXPECT_TRUE(device_.TakeStarted().empty());
  const auto started = Flushed();
  ASSERT_EQ(started.size(), 1u);
  EXPECT_TRUE(ask.outstanding());
  EXPECT_EQ(ask.ends, 0u);
  device_.End(started[0]);
  EXPECT_EQ(ask.ends, 1u);
  EXPECT_FALSE(ask.outstanding());
  EXPECT_TRUE(ask.status().ok());
}

TEST_F(IoQueue, BatchIsHandedOverOnceAndAgainWhereTheSystemTookLess) {
  Ask &first = Made(), &second = Made();
  Submit(first.Read(0, at_, kPageBytes));
  Submit(second.Read(kPageBytes, at_ + kPageBytes, kPageBytes));
  device_.kick_works = false;
  Flushed();
  EXPECT_EQ(device_.kicks, 1u);
  EXPECT_TRUE(EventIsSet());
  device_.kick_works = true;
  device_.Poll();
  EXPECT_EQ(device_.kicks, 2u);
  device_.Poll();
  EXPECT_EQ(device_.kicks, 2u);
}

TEST_F(IoQueue, CutsAtFourMiBAndAtStripesOfTwoFiles) {
  Ask &big = Made(), &across = Made();
  Submit(big.Read(0, at_, 9 * kMiB));
  IoBudgets budgets;
  budgets.read_bytes = 64 * kMiB;
  device_.SetBudgets(budgets);
  auto started = Flushed();
  ASSERT_EQ(started.size(), 3u);
  EXPECT_EQ(started[0].bytes, 4 * kMiB);
  EXPECT_EQ(started[1].offset, 4 * kMiB);
  EXPECT_EQ(started[1].memory, at_ + 4 * kMiB);
  EXPECT_EQ(started[2].bytes, 1 * kMiB);

  // The end of stripe 2 (file 0, its second) and the begin of stripe 3 (file 1, its second).
  Submit(across.Read(3 * kStripe - kPageBytes, at_, 2 * kPageBytes));
  started = Flushed();
  ASSERT_EQ(started.size(), 2u);
  EXPECT_EQ(started[0].file, 0u);
  EXPECT_EQ(started[0].offset, 2 * kStripe - kPageBytes);
  EXPECT_EQ(started[1].file, 1u);
  EXPECT_EQ(started[1].offset, kStripe);
  device_.End(started[1]);
  EXPECT_EQ(across.ends, 0u);
  device_.End(started[0]);
  EXPECT_EQ(across.ends, 1u);
}

TEST_F(IoQueue, RefusesWhatLiesOutsideOrOffPages) {
  Ask& ask = Made();
  const auto code = [&](Ask& asked) { return device_.Submit(asked).code(); };
  EXPECT_EQ(code(ask.Read(0, at_, 0)), StatusCode::kInvalid);
  EXPECT_EQ(code(ask.Read(512, at_, kPageBytes)), StatusCode::kInvalid);
  EXPECT_EQ(code(ask.Read(0, at_ + 512, kPageBytes)), StatusCode::kInvalid);
  EXPECT_EQ(code(ask.Read(0, at_, kPageBytes + 512)), StatusCode::kInvalid);
  EXPECT_EQ(code(ask.Read(0, nullptr, kPageBytes)), StatusCode::kInvalid);
  EXPECT_EQ(code(ask.Read(kCapacity, at_, kPageBytes)), StatusCode::kInvalid);
  EXPECT_EQ(code(ask.Read(UINT64_MAX - kPageBytes + 1, at_, kPageBytes)), StatusCode::kInvalid);
  EXPECT_EQ(code(ask.Discard(0, 2 * kCapacity)), StatusCode::kInvalid);
  EXPECT_FALSE(ask.outstanding());
  EXPECT_EQ(code(ask.Read(kCapacity - kPageBytes, at_, kPageBytes)), StatusCode::kOk);
}

TEST_F(IoQueue, FullQueueIsBusyAtTheDoorOfItsClassOnly) {
  for (Ask& ask : Many(kIoQueueRequestsMax)) Submit(ask.Write(0, at_, kPageBytes));
  Ask &refused = Made(), &read = Made();
  EXPECT_EQ(device_.Submit(refused.Write(0, at_, kPageBytes)).code(), StatusCode::kBusy);
  EXPECT_FALSE(refused.outstanding());
  EXPECT_EQ(device_.stats().busy, 1u);
  Submit(read.Read(0, at_, kPageBytes));
}

TEST_F(IoQueue, ReadsFillTheirBudgetUrgentOnesFirst) {
  Ask& soon = Made();
  std::deque<Ask>& urgent = Many(5);
  Submit(soon.Read(0, at_, kMiB, IoClass::kPrefetch));
  for (Ask& ask : urgent) Submit(ask.Read(kMiB, at_, kMiB));
  auto started = Flushed();
  ASSERT_EQ(started.size(), 4u);
  for (const auto& operation : started) EXPECT_EQ(operation.offset, kMiB);
  EXPECT_EQ(device_.stats().reading_bytes, 4 * kMiB);
  device_.End(started[0]);
  started = device_.TakeStarted();
  ASSERT_EQ(started.size(), 1u);
  EXPECT_EQ(started[0].offset, kMiB);  // the fifth urgent one, before the prefetch
}

TEST_F(IoQueue, HastenedReadsGoWithTheUrgentOnes) {
  IoBudgets budgets;
  budgets.read_bytes = kPageBytes;
  device_.SetBudgets(budgets);
  Ask &busy = Made(), &other = Made(), &hastened = Made();
  Submit(busy.Read(0, at_, 2 * kPageBytes));
  auto started = Flushed();
  ASSERT_EQ(started.size(), 1u);
  Submit(other.Read(kMiB, at_ + kMiB, kPageBytes, IoClass::kPrefetch));
  Submit(hastened.Read(2 * kMiB, at_ + 2 * kMiB, kPageBytes, IoClass::kWriteBehind));
  device_.Hasten(hastened, IoClass::kDeadline);
  device_.Hasten(hastened, IoClass::kPrefetch);  // never back
  device_.Hasten(busy, IoClass::kDeadline);      // on its way already
  EXPECT_EQ(hastened.io_class(), IoClass::kDeadline);
  device_.End(started[0]);
  started = Flushed();
  ASSERT_EQ(started.size(), 1u);
  EXPECT_EQ(started[0].offset, 2 * kMiB);
  device_.End(started[0]);
  EXPECT_EQ(hastened.ends, 1u);
  device_.EndAll();
  EXPECT_EQ(other.ends, 1u);
  device_.Hasten(other, IoClass::kDeadline);  // idle
  EXPECT_EQ(other.io_class(), IoClass::kPrefetch);
}

TEST_F(IoQueue, PrefetchLeavesHalfTheBudgetWhileSomebodyWaits) {
  Ask& urgent = Made();
  std::deque<Ask>& soon = Many(4);
  Submit(urgent.Read(0, at_, kPageBytes));
  for (Ask& ask : soon) Submit(ask.Read(kMiB, at_, kMiB, IoClass::kPrefetch));
  const auto started = Flushed();
  ASSERT_EQ(started.size(), 3u);  // the urgent one, and 2 of 4 MiB
  device_.End(started[0]);
  EXPECT_EQ(device_.TakeStarted().size(), 2u);  // nobody waits any more
  EXPECT_EQ(device_.stats().reading_bytes, 4 * kMiB);
}

TEST_F(IoQueue, WritesAreWideAloneAndNarrowBesideReads) {
  Ask &write = Made(), &read = Made();
  Submit(write.Write(0, at_, 8 * kMiB));
  auto wide = Flushed();
  ASSERT_EQ(wide.size(), 4u);
  for (const auto& operation : wide) EXPECT_EQ(operation.bytes, kMiB);

  Submit(read.Read(0, at_ + 8 * kMiB, kMiB));
  const auto reads = Flushed();
  ASSERT_EQ(reads.size(), 1u);
  for (uint32_t i = 0; i < 3; ++i) {
    device_.End(wide[i]);
    EXPECT_TRUE(device_.TakeStarted().empty());
  }
  device_.End(wide[3]);
  auto narrow = device_.TakeStarted();
  ASSERT_EQ(narrow.size(), 1u);
  EXPECT_EQ(narrow[0].bytes, 256 * kKiB);

  // The gap until the reader's next wish is no room for a burst; after a while it is.
  device_.End(reads[0]);
  device_.End(narrow[0]);
  narrow = device_.TakeStarted();
  ASSERT_EQ(narrow.size(), 1u);
  EXPECT_EQ(narrow[0].bytes, 256 * kKiB);
  clock_.Advance(device_.budgets().read_quiet_ns);
  device_.End(narrow[0]);
  wide = device_.TakeStarted();
  ASSERT_EQ(wide.size(), 4u);
  EXPECT_EQ(wide[0].bytes, kMiB);
  for (const auto& operation : wide) device_.End(operation);
  EXPECT_EQ(write.ends, 1u);
  EXPECT_TRUE(write.status().ok());
}

TEST_F(IoQueue, ReadsThatNobodyWaitsForDoNotHoldWritesBack) {
  Ask &write = Made(), &carried = Made(), &prefetched = Made();
  Submit(carried.Read(0, at_ + 8 * kMiB, kMiB, IoClass::kWriteBehind));
  Submit(write.Write(0, at_, 8 * kMiB));
  auto started = Flushed();
  ASSERT_EQ(started.size(), 5u);
  for (size_t i = 1; i < 5; ++i) EXPECT_EQ(started[i].bytes, kMiB);
  Submit(prefetched.Read(0, at_ + 8 * kMiB, kMiB, IoClass::kPrefetch));
  started = Flushed();
  ASSERT_EQ(started.size(), 1u);
  EXPECT_EQ(started[0].kind, IoKind::kRead);
}

TEST_F(IoQueue, PagesBeforePiecesTakeNoPlaceOfTheirOwn) {
  std::deque<Ask>& writes = Many(12);
  for (uint32_t i = 0; i < 6; ++i) {
    Submit(writes[2 * i].Write(2 * i * kMiB, at_, kPageBytes));
    Submit(writes[2 * i + 1].Write(2 * i * kMiB + kPageBytes, at_, kMiB));
  }
  const auto started = Flushed();
  ASSERT_EQ(started.size(), 8u);
  for (const auto& operation : started) device_.End(operation);
  for (const auto& operation : device_.TakeStarted()) device_.End(operation);
  // Pages alone: twice as many as pieces.
  std::deque<Ask>& pages = Many(12);
  for (uint32_t i = 0; i < 12; ++i) Submit(pages[i].Write(i * kMiB, at_, kPageBytes));
  EXPECT_EQ(Flushed().size(), 8u);
}

TEST_F(IoQueue, UrgentWritesGoBeforeWriteBehind) {
  Ask &behind = Made(), &urgent = Made();
  Submit(behind.Write(0, at_, 8 * kMiB));
  Submit(urgent.Write(16 * kMiB, at_, kPageBytes, IoClass::kDeadline));
  EXPECT_EQ(Flushed()[0].offset, 16 * kMiB);
}

TEST_F(IoQueue, SyncTouchesTheFilesOfItsRangeAndNeedsAllToEndWell) {
  Ask &one = Made(), &all = Made();
  Submit(one.Sync(kStripe, kPageBytes));
  auto started = Flushed();
  ASSERT_EQ(started.size(), 1u);
  EXPECT_EQ(started[0].file, 1u);
  device_.End(started[0], 0);
  EXPECT_TRUE(one.status().ok());

  Submit(all.Sync());
  started = Flushed();
  ASSERT_EQ(started.size(), 2u);
  device_.End(started[0], -EIO);
  EXPECT_EQ(all.ends, 0u);
  device_.End(started[1], 0);
  EXPECT_EQ(all.status().code(), StatusCode::kIoError);
}

TEST_F(IoQueue, SyncsAndDiscardsLeaveRoomForReads) {
  for (Ask& ask : Many(kIoOperationsMax)) Submit(ask.Discard(0, kStripe));
  Ask& read = Made();
  Submit(read.Read(0, at_, kPageBytes));
  auto started = Flushed();
  ASSERT_EQ(started.size(), kIoOthersInFlightMax + 1);
  EXPECT_EQ(started.back().kind, IoKind::kRead);
  device_.End(started[0], 0);
  EXPECT_EQ(device_.TakeStarted().size(), 1u);
}

TEST_F(IoQueue, CancelOfWhatIsQueuedEndsInTheNextPoll) {
  Ask &first = Made(), &second = Made();
  Submit(first.Write(0, at_, 4 * kMiB));
  Flushed();
  Submit(second.Write(8 * kMiB, at_, kMiB));
  device_.Cancel(second);
  EXPECT_EQ(second.ends, 0u);
  EXPECT_TRUE(second.outstanding());
  EXPECT_TRUE(EventIsSet());
  device_.Poll();
  EXPECT_EQ(second.ends, 1u);
  EXPECT_EQ(second.status().code(), StatusCode::kCancelled);
  device_.Cancel(second);  // idle: nothing
  EXPECT_EQ(device_.stats().of(IoKind::kWrite).cancelled, 1u);
}

TEST_F(IoQueue, CancelOfWhatIsInFlightKeepsTheMemoryUntilItEnds) {
  Ask& write = Made();
  Submit(write.Write(0, at_, 8 * kMiB));
  const auto started = Flushed();
  ASSERT_EQ(started.size(), 4u);
  device_.Cancel(write);
  device_.Flush();
  EXPECT_EQ(device_.TakeCancels().size(), 4u);
  device_.Cancel(write);
  EXPECT_TRUE(device_.TakeCancels().empty());  // one is enough
  device_.End(started[0]);
  device_.End(started[1], -ECANCELED);
  device_.End(started[2], -EINTR);
  EXPECT_EQ(write.ends, 0u);
  device_.End(started[3], 100);  // short
  EXPECT_EQ(write.ends, 1u);
  EXPECT_EQ(write.status().code(), StatusCode::kCancelled);
  EXPECT_TRUE(device_.TakeStarted().empty());
}

TEST_F(IoQueue, CancelThatComesTooLateIsNoHarm) {
  Ask& read = Made();
  Submit(read.Read(0, at_, kPageBytes));
  const auto started = Flushed();
  device_.Cancel(read);
  device_.End(started[0]);
  EXPECT_EQ(read.ends, 1u);
  EXPECT_TRUE(read.status().ok());
}

TEST_F(IoQueue, DoneMaySubmitAndCancelAgain) {
  Ask &read = Made(), &other = Made();
  read.then = [&] {
    if (read.ends > 1) return;
    Submit(read.Read(kMiB, at_, kPageBytes));
    Submit(other.Read(2 * kMiB, at_, kPageBytes));
    device_.Cancel(other);
  };
  Submit(read.Read(0, at_, kPageBytes));
  device_.End(Flushed()[0]);
  EXPECT_EQ(read.ends, 1u);
  EXPECT_EQ(other.ends, 0u);
  const auto started = device_.TakeStarted();
  ASSERT_EQ(started.size(), 1u);
  EXPECT_EQ(started[0].offset, kMiB);
  device_.End(started[0]);
  EXPECT_EQ(read.ends, 2u);
  EXPECT_EQ(other.ends, 1u);
}

}  // namespace
}  // namespace terrace
