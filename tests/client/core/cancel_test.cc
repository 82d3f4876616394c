#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <map>
#include <optional>

#include "client/core/request_queue.h"
#include "storage/base/clock.h"

namespace terrace {
namespace {

// The daemon's end of the rings, by hand: gets wait until they are ended.
class CancelTest : public testing::Test {
 protected:
  CancelTest() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    client_end_ = ends[0];
    daemon_end_ = ends[1];
    queue_.emplace(*memory_, client_end_, dead_, [this](PendingRequest& request) {
      EXPECT_EQ(request.op, shm::Op::kGet);
      orphan_tags_.push_back(request.tag);
    });
  }
  ~CancelTest() override {
    close(client_end_);
    close(daemon_end_);
  }

  Result<std::shared_ptr<PendingRequest>> TrySubmit() {
    const shm::KeyEntry key{};
    return queue_->Submit({.op = shm::Op::kGet, .keys = std::span(&key, 1)}, 0);
  }

  std::vector<std::shared_ptr<PendingRequest>> Fill() {
    std::vector<std::shared_ptr<PendingRequest>> flying;
    for (uint32_t i = 0; i < RequestQueue::kInFlightMax; ++i) flying.push_back(*TrySubmit());
    EXPECT_EQ(TrySubmit().status().code(), StatusCode::kBusy);
    return flying;
  }

  void Complete(const shm::SubmissionEntry& entry, StatusCode status) {
    shm::CompletionEntry done{};
    done.request = entry.request;
    done.status = static_cast<uint8_t>(status);
    done.tag = entry.tag;
    const uint32_t tail = memory_->complete_tail.load();
    memory_->completions[tail % shm::kRequestCount] = done;
    memory_->complete_tail.store(tail + 1);
  }

  // Takes what was submitted, as a shard does; answers how many cancels there were.
  int Serve() {
    int cancels = 0;
    for (; taken_ != memory_->submit_tail.load(); ++taken_) {
      const shm::SubmissionEntry entry = memory_->submissions[taken_ % shm::kRequestCount];
      if (static_cast<shm::Op>(entry.op) != shm::Op::kCancel) {
        waiting_[entry.tag] = entry;
        continue;
      }
      ++cancels;
      const auto target = waiting_.find(entry.argument);
      if (target != waiting_.end()) {
        Complete(target->second, StatusCode::kCancelled);
        waiting_.erase(target);
      }
      Complete(entry, StatusCode::kOk);
    }
    return cancels;
  }

  std::unique_ptr<shm::SessionMemory> memory_ = std::make_unique<shm::SessionMemory>();
  std::atomic<bool> dead_{false};
  std::optional<RequestQueue> queue_;
  int client_end_ = -1, daemon_end_ = -1;
  uint32_t taken_ = 0;
  std::map<uint64_t, shm::SubmissionEntry> waiting_;  // by tag
  std::vector<uint64_t> orphan_tags_;
};

TEST_F(CancelTest, AFullQueueHasRoomForACancel) {
  const auto flying = Fill();
  memory_->daemon_sleeping.store(1);
  queue_->Cancel(*flying[5]);
  char byte = 0;
  EXPECT_EQ(recv(daemon_end_, &byte, 1, MSG_DONTWAIT), 1);
  EXPECT_EQ(Serve(), 1);
  EXPECT_EQ(waiting_.size(), RequestQueue::kInFlightMax - 1);
  EXPECT_EQ(waiting_.count(flying[5]->tag), 0u);
  queue_->Housekeep();
  EXPECT_EQ(orphan_tags_, std::vector<uint64_t>{flying[5]->tag});
  // Its block is free again, and the one kept back is kept back again.
  EXPECT_TRUE(TrySubmit().ok());
  EXPECT_EQ(TrySubmit().status().code(), StatusCode::kBusy);
}

TEST_F(CancelTest, ManyCancelsFollowOneAnother) {
  const auto flying = Fill();
  for (const auto& request : flying) queue_->Cancel(*request);
  int cancels = 0;
  for (uint32_t round = 0; round < RequestQueue::kInFlightMax && !waiting_.empty(); ++round) {
    cancels += Serve();
    queue_->Housekeep();
  }
  while (const int more = Serve()) {
    cancels += more;
    queue_->Housekeep();
  }
  EXPECT_TRUE(waiting_.empty());
  EXPECT_EQ(cancels, static_cast<int>(RequestQueue::kInFlightMax));
  EXPECT_EQ(orphan_tags_.size(), RequestQueue::kInFlightMax);
  EXPECT_FALSE(queue_->Housekeep());
  EXPECT_EQ(Fill().size(), RequestQueue::kInFlightMax);
}

TEST_F(CancelTest, ACancelOfWhatAWaitGaveUpIsOrphanedOnce) {
  const auto request = *TrySubmit();
  EXPECT_EQ(queue_->Wait(*request, MonotonicNs()), StatusCode::kDeadline);
  queue_->Cancel(*request);
  EXPECT_EQ(Serve(), 1);
  EXPECT_FALSE(queue_->Housekeep());
  EXPECT_EQ(orphan_tags_, std::vector<uint64_t>{request->tag});
}

TEST_F(CancelTest, ACancelOfWhatIsDoneSendsNothing) {
  const auto request = *TrySubmit();
  Serve();
  Complete(waiting_.at(request->tag), StatusCode::kOk);
  EXPECT_EQ(queue_->Wait(*request, MonotonicNs()), StatusCode::kOk);
  queue_->Cancel(*request);
  EXPECT_EQ(Serve(), 0);
  EXPECT_EQ(orphan_tags_, std::vector<uint64_t>{request->tag});
}

TEST_F(CancelTest, OfADeadSessionItOnlyLetsGo) {
  const auto request = *TrySubmit(), cancelled = *TrySubmit();
  queue_->Cancel(*cancelled);
  dead_.store(true);
  queue_->Cancel(*request);
  EXPECT_FALSE(queue_->Housekeep());
  EXPECT_EQ(orphan_tags_, (std::vector<uint64_t>{request->tag, cancelled->tag}));
}

}  // namespace
}  // namespace terrace
