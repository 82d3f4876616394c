// How completions are judged, and the slots of registered buffers.

#include <gtest/gtest.h>

#include <cerrno>

#include "tests/storage/io/io_testing.h"
#include "tests/storage/io/scripted_device.h"
#include "tests/storage/io/sim_clock.h"

namespace terrace {
namespace {

class IoCompletion : public testing::Test {
 protected:
  ScriptedDevice::Operation Started() {
    device_.Flush();
    const auto started = device_.TakeStarted();
    EXPECT_EQ(started.size(), 1u);
    return started.empty() ? ScriptedDevice::Operation{} : started[0];
  }
  ScriptedDevice::Operation StartedRead(Ask& ask, uint64_t bytes) {
    EXPECT_TRUE(device_.Submit(ask.Read(kMiB, at_, bytes)).ok());
    return Started();
  }
  ScriptedDevice::Operation StartedWrite(Ask& ask, uint64_t bytes) {
    EXPECT_TRUE(device_.Submit(ask.Write(kMiB, at_, bytes)).ok());
    return Started();
  }

  SimClock clock_;
  PageMemory memory_{kMiB};
  uint8_t* const at_ = memory_.data();
  ScriptedDevice device_{{.capacity_bytes = 64 * kMiB, .stripe_bytes = 16 * kMiB}, 2, clock_};
};

TEST_F(IoCompletion, ShortTransferGoesOnWhereItEnded) {
  Ask ask;
  const auto first = StartedRead(ask, 4 * kPageBytes);
  device_.End(first, 2 * kPageBytes + 100);
  EXPECT_EQ(ask.ends, 0u);
  const auto rest = Started();
  EXPECT_EQ(rest.offset, kMiB + 2 * kPageBytes);
  EXPECT_EQ(rest.memory, at_ + 2 * kPageBytes);
  EXPECT_EQ(rest.bytes, 2 * kPageBytes);
  EXPECT_EQ(device_.stats().reading_bytes, 2 * kPageBytes);
  device_.End(rest);
  EXPECT_EQ(ask.ends, 1u);
  EXPECT_TRUE(ask.status().ok());
  EXPECT_EQ(device_.stats().short_transfers, 1u);
  EXPECT_EQ(device_.stats().reading_bytes, 0u);
}

TEST_F(IoCompletion, NoProgressIsAnError) {
  Ask ask;
  device_.End(StartedRead(ask, 2 * kPageBytes), 0);  // the file's end
  EXPECT_EQ(ask.status().code(), StatusCode::kIoError);
  device_.End(StartedRead(ask, 2 * kPageBytes), 4000);  // less than a page
  EXPECT_EQ(ask.status().code(), StatusCode::kIoError);
  device_.End(StartedWrite(ask, 2 * kPageBytes), 0);
  EXPECT_EQ(ask.status().code(), StatusCode::kIoError);
  EXPECT_EQ(ask.ends, 3u);
  EXPECT_NE(ask.status().message().find("short write: 0 of 8192"), std::string::npos)
      << ask.status().ToString();
}

TEST_F(IoCompletion, MoreThanAskedForIsAnError) {
  Ask ask;
  device_.End(StartedRead(ask, kPageBytes), 2 * kPageBytes);
  EXPECT_EQ(ask.status().code(), StatusCode::kIoError);
}

TEST_F(IoCompletion, DripOfShortTransfersEnds) {
  Ask ask;
  auto operation = StartedWrite(ask, (kIoRetriesMax + 2) * kPageBytes);
  for (uint32_t i = 0; i < kIoRetriesMax; ++i) {
    device_.End(operation, kPageBytes);
    operation = Started();
  }
  device_.End(operation, kPageBytes);
  EXPECT_EQ(ask.ends, 1u);
  EXPECT_EQ(ask.status().code(), StatusCode::kIoError);
}

TEST_F(IoCompletion, InterruptionsAreRepeatedButNotForEver) {
  Ask ask;
  auto operation = StartedRead(ask, kPageBytes);
  for (uint32_t i = 0; i < kIoRetriesMax; ++i) {
    device_.End(operation, i % 2 == 0 ? -EAGAIN : -EINTR);
    operation = Started();
  }
  device_.End(operation);
  EXPECT_TRUE(ask.status().ok());
  EXPECT_EQ(device_.stats().retries, kIoRetriesMax);

  operation = StartedRead(ask, kPageBytes);
  for (uint32_t i = 0; i < kIoRetriesMax; ++i) {
    device_.End(operation, -EAGAIN);
    operation = Started();
  }
  device_.End(operation, -EAGAIN);
  EXPECT_EQ(ask.ends, 2u);
  EXPECT_EQ(ask.status().code(), StatusCode::kIoError);
}

TEST_F(IoCompletion, ErrorsSayWhatTheCallerDoesNext) {
  const std::pair<int, StatusCode> cases[] = {
      {ENOSPC, StatusCode::kNoSpace},    {EDQUOT, StatusCode::kNoSpace},
      {EFBIG, StatusCode::kNoSpace},     {EIO, StatusCode::kIoError},
      {EROFS, StatusCode::kIoError},     {ENXIO, StatusCode::kIoError},
      {ECANCELED, StatusCode::kIoError}, {ENOMEM, StatusCode::kIoError},
  };
  Ask ask;
  for (const auto& [error, code] : cases) {
    device_.End(StartedWrite(ask, kPageBytes), -error);
    EXPECT_EQ(ask.status().code(), code) << error;
    EXPECT_EQ(device_.stats().of(IoKind::kWrite).error, ask.status().ToString());
  }
  EXPECT_EQ(device_.stats().of(IoKind::kWrite).errors, std::size(cases));
  EXPECT_EQ(device_.stats().of(IoKind::kWrite).bytes, 0u);
}

TEST_F(IoCompletion, FirstErrorStopsTheRestAndIsTheOneReported) {
  Ask ask;
  PageMemory big(8 * kMiB);
  ASSERT_TRUE(device_.Submit(ask.Write(0, big.data(), 8 * kMiB)).ok());
  device_.Flush();
  const auto started = device_.TakeStarted();
  ASSERT_EQ(started.size(), 4u);
  device_.End(started[0], -ENOSPC);
  device_.End(started[1], -EIO);
  device_.End(started[2]);
  EXPECT_TRUE(device_.TakeStarted().empty());
  EXPECT_EQ(ask.ends, 0u);
  device_.End(started[3]);
  EXPECT_EQ(ask.ends, 1u);
  EXPECT_EQ(ask.status().code(), StatusCode::kNoSpace);
}

TEST_F(IoCompletion, StaleCompletionsAreCountedAndChangeNothing) {
  Ask ask, other;
  const auto first = StartedRead(ask, 2 * kPageBytes);
  device_.End(first, kPageBytes);
  const auto rest = Started();
  device_.End(first, 2 * kPageBytes);  // a second answer to the first trip
  EXPECT_EQ(ask.ends, 0u);
  EXPECT_EQ(device_.stats().stale, 1u);
  device_.End(rest);
  EXPECT_EQ(ask.ends, 1u);

  // The slot serves another request now.
  const auto next = StartedRead(other, kPageBytes);
  device_.End(rest);
  EXPECT_EQ(other.ends, 0u);
  EXPECT_EQ(device_.stats().stale, 2u);
  auto nonsense = next;
  nonsense.tag = 0xFFFF;
  device_.End(nonsense);
  EXPECT_EQ(device_.stats().stale, 3u);
  device_.End(next);
  EXPECT_EQ(other.ends, 1u);
}

TEST_F(IoCompletion, StatisticsSumBytesAndLatency) {
  Ask ask;
  const auto operation = StartedRead(ask, 2 * kPageBytes);
  clock_.Advance(300);
  device_.End(operation);
  const auto again = StartedRead(ask, kPageBytes);
  clock_.Advance(100);
  device_.End(again);
  const IoStats::Kind reads = device_.stats().of(IoKind::kRead);
  EXPECT_EQ(reads.requests, 2u);
  EXPECT_EQ(reads.operations, 2u);
  EXPECT_EQ(reads.bytes, 3 * kPageBytes);
  EXPECT_EQ(reads.latency_ns_sum, 400);
  EXPECT_EQ(reads.latency_ns_max, 300);
  EXPECT_EQ(device_.stats().operations, 0u);
}

TEST_F(IoCompletion, DiscardThatAMediumDoesNotKnowIsFine) {
  Ask ask;
  ASSERT_TRUE(device_.Submit(ask.Discard(0, kMiB)).ok());
  device_.End(Started(), -EOPNOTSUPP);
  EXPECT_TRUE(ask.status().ok());
}

TEST_F(IoCompletion, BufferSlotIsUsedAgainOnlyAfterItsRequestsAndTheSystem) {
  const Result<BufferId> first = device_.RegisterBuffer(at_, kMiB);
  const Result<BufferId> second = device_.RegisterBuffer(at_, kMiB);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(device_.RegisterBuffer(at_, kMiB).status().code(), StatusCode::kBusy);

  Ask ask;
  device_.release_at_once = false;
  ASSERT_TRUE(device_.Submit(ask.Read(0, at_, kPageBytes, IoClass::kDeadline, *first)).ok());
  const auto operation = Started();
  EXPECT_EQ(operation.buffer_slot, *first & 0xFFFF);
  device_.UnregisterBuffer(*first);
  EXPECT_TRUE(device_.released_slots.empty());
  EXPECT_EQ(device_.RegisterBuffer(at_, kMiB).status().code(), StatusCode::kBusy);
  device_.End(operation);
  EXPECT_EQ(device_.released_slots, std::vector<uint32_t>{operation.buffer_slot});
  EXPECT_EQ(device_.RegisterBuffer(at_, kMiB).status().code(), StatusCode::kBusy);
  device_.ReleaseLater(operation.buffer_slot);
  const Result<BufferId> third = device_.RegisterBuffer(at_, kMiB);
  ASSERT_TRUE(third.ok());
  EXPECT_NE(*third, *first);  // the old name is not the new buffer's
  EXPECT_EQ(device_.Submit(ask.Read(0, at_, kPageBytes, IoClass::kDeadline, *first)).code(),
            StatusCode::kInvalid);
}

TEST_F(IoCompletion, RequestsStayInsideTheirBuffer) {
  const Result<BufferId> buffer = device_.RegisterBuffer(at_ + kPageBytes, 2 * kPageBytes);
  ASSERT_TRUE(buffer.ok());
  Ask ask;
  const auto code = [&](uint8_t* into, uint64_t bytes) {
    return device_.Submit(ask.Read(0, into, bytes, IoClass::kDeadline, *buffer)).code();
  };
  EXPECT_EQ(code(at_, kPageBytes), StatusCode::kInvalid);
  EXPECT_EQ(code(at_ + 2 * kPageBytes, 2 * kPageBytes), StatusCode::kInvalid);
  EXPECT_EQ(code(at_ + 3 * kPageBytes, kPageBytes), StatusCode::kInvalid);
  EXPECT_EQ(code(at_ + kPageBytes, 2 * kPageBytes), StatusCode::kOk);
  device_.End(Started());
}

TEST_F(IoCompletion, BufferThatTheSystemRefusesIsPlain) {
  device_.refuse_buffers = true;
  const Result<BufferId> buffer = device_.RegisterBuffer(at_, kMiB);
  ASSERT_TRUE(buffer.ok());
  EXPECT_EQ(device_.stats().plain_buffers, 1u);
  Ask ask;
  ASSERT_TRUE(device_.Submit(ask.Read(0, at_, kPageBytes, IoClass::kDeadline, *buffer)).ok());
  const auto operation = Started();
  EXPECT_EQ(operation.buffer_slot, UINT32_MAX);
  device_.End(operation);
  device_.UnregisterBuffer(*buffer);
  EXPECT_TRUE(device_.released_slots.empty());  // the system never had it
  EXPECT_EQ(device_.stats().buffers, 0u);
}

}  // namespace
}  // namespace terrace
