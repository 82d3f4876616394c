#include "client/core/request_queue.h"

#include <gtest/gtest.h>
#include <linux/futex.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <optional>
#include <thread>

#include "storage/base/clock.h"

namespace terrace {
namespace {

constexpr int64_t kLong = 20 * kNsPerSecond;

// The daemon's end of the rings, by hand.
class RequestQueueTest : public testing::Test {
 protected:
  RequestQueueTest() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    client_end_ = ends[0];
    daemon_end_ = ends[1];
    queue_.emplace(*memory_, client_end_, dead_, [this](PendingRequest& request) {
      ++orphans_;
      orphan_status_ = static_cast<StatusCode>(request.results.front().status);
    });
  }
  ~RequestQueueTest() override {
    close(client_end_);
    close(daemon_end_);
  }

  std::shared_ptr<PendingRequest> Submit() {
    const shm::KeyEntry key{};
    Result<std::shared_ptr<PendingRequest>> sent =
        queue_->Submit({.op = shm::Op::kGet, .keys = std::span(&key, 1)}, 0);
    EXPECT_TRUE(sent.ok());
    return *std::move(sent);
  }

  // Completes the oldest submission that was not, key 0 with `status`.
  void Complete(StatusCode status) {
    ASSERT_NE(memory_->submit_tail.load(), taken_);
    const shm::SubmissionEntry entry = memory_->submissions[taken_++ % shm::kRequestCount];
    memory_->requests[entry.request].results[0].status = static_cast<uint8_t>(status);
    shm::CompletionEntry done{};
    done.request = entry.request;
    done.tag = entry.tag;
    const uint32_t tail = memory_->complete_tail.load();
    memory_->completions[tail % shm::kRequestCount] = done;
    memory_->complete_tail.store(tail + 1);
    if (memory_->client_waiting.load() != 0) {
      syscall(SYS_futex, &memory_->complete_tail, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
    }
  }

  bool DoorbellRang() {
    char byte = 0;
    return recv(daemon_end_, &byte, 1, MSG_DONTWAIT) == 1;
  }

  std::unique_ptr<shm::SessionMemory> memory_ = std::make_unique<shm::SessionMemory>();
  std::atomic<bool> dead_{false};
  std::optional<RequestQueue> queue_;
  int client_end_ = -1, daemon_end_ = -1;
  uint32_t taken_ = 0;
  int orphans_ = 0;
  StatusCode orphan_status_ = StatusCode::kOk;
};

TEST_F(RequestQueueTest, AnswersEachRequestWithItsOwnResults) {
  const auto one = Submit(), two = Submit();
  Complete(StatusCode::kExists);
  Complete(StatusCode::kBusy);
  EXPECT_EQ(queue_->Wait(*two, MonotonicNs() + kLong), StatusCode::kOk);
  EXPECT_EQ(queue_->Wait(*one, MonotonicNs() + kLong), StatusCode::kOk);
  EXPECT_EQ(one->results[0].status, static_cast<uint8_t>(StatusCode::kExists));
  EXPECT_EQ(two->results[0].status, static_cast<uint8_t>(StatusCode::kBusy));
  EXPECT_EQ(memory_->complete_head.load(), 2u);
}

TEST_F(RequestQueueTest, RingsOnlyForADaemonThatSleeps) {
  Submit();
  EXPECT_FALSE(DoorbellRang());
  memory_->daemon_sleeping.store(1);
  Submit();
  EXPECT_TRUE(DoorbellRang());
}

TEST_F(RequestQueueTest, ASleepingWaiterIsWoken) {
  const auto request = Submit();
  std::thread daemon([this] {
    while (memory_->client_waiting.load() == 0) std::this_thread::yield();
    Complete(StatusCode::kOk);
  });
  EXPECT_EQ(queue_->Wait(*request, MonotonicNs() + kLong), StatusCode::kOk);
  daemon.join();
  EXPECT_EQ(memory_->client_waiting.load(), 0u);
}

TEST_F(RequestQueueTest, AnAbandonedRequestIsOrphanedOnceItCompletes) {
  const auto request = Submit();
  EXPECT_EQ(queue_->Wait(*request, MonotonicNs() + kNsPerMs), StatusCode::kDeadline);
  EXPECT_TRUE(queue_->Housekeep());
  EXPECT_EQ(orphans_, 0);
  Complete(StatusCode::kExists);
  EXPECT_FALSE(queue_->Housekeep());
  EXPECT_EQ(orphans_, 1);
  EXPECT_EQ(orphan_status_, StatusCode::kExists);
}

TEST_F(RequestQueueTest, TheSixtyFourthWaitsForABlock) {
  std::vector<std::shared_ptr<PendingRequest>> flying;
  for (uint32_t i = 0; i < RequestQueue::kInFlightMax; ++i) flying.push_back(Submit());
  const shm::KeyEntry key{};
  const RequestQueue::Submission more{.op = shm::Op::kGet, .keys = std::span(&key, 1)};
  EXPECT_EQ(queue_->Submit(more, 0).status().code(), StatusCode::kBusy);
  std::thread daemon([this] {
    while (memory_->client_waiting.load() == 0) std::this_thread::yield();
    Complete(StatusCode::kOk);
  });
  EXPECT_TRUE(queue_->Submit(more, MonotonicNs() + kLong).ok());
  daemon.join();
}

TEST_F(RequestQueueTest, DeathEndsEveryWaitAndLetsGo) {
  const auto waited = Submit(), abandoned = Submit();
  std::thread death([this] {
    while (memory_->client_waiting.load() == 0) std::this_thread::yield();
    dead_.store(true);
    queue_->WakeAll();
  });
  EXPECT_EQ(queue_->Wait(*waited, MonotonicNs() + kLong), StatusCode::kUnavailable);
  death.join();
  EXPECT_EQ(orphans_, 1);
  queue_->Abandon(*abandoned);
  EXPECT_EQ(orphans_, 2);
  EXPECT_EQ(orphan_status_, StatusCode::kUnavailable);
  const shm::KeyEntry key{};
  EXPECT_EQ(queue_->Submit({.op = shm::Op::kGet, .keys = std::span(&key, 1)}, 0).status().code(),
            StatusCode::kUnavailable);
}

}  // namespace
}  // namespace terrace
