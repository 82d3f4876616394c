#include "client/core/request_queue.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <ctime>

#include "proto/shm/lookup.h"
#include "storage/base/check.h"
#include "storage/base/clock.h"

namespace terrace {
namespace {

// An answer of a polling daemon takes some microseconds; a wake-up costs 40 us on some machines.
constexpr int64_t kSpinNsMin = 2 * kNsPerUs;
constexpr int64_t kSpinNsMax = 50 * kNsPerUs;
constexpr int64_t kSpinNsFirst = 20 * kNsPerUs;

bool MoreThanOneCpu() {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  return sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) > 1;
}

}  // namespace

RequestQueue::RequestQueue(shm::SessionMemory& memory, int doorbell, const std::atomic<bool>& dead,
                           std::function<void(PendingRequest&)> orphaned)
    : memory_(memory),
      doorbell_(doorbell),
      dead_(dead),
      orphaned_(std::move(orphaned)),
      may_spin_(MoreThanOneCpu()),
      spin_ns_(kSpinNsFirst) {
  for (uint32_t block = shm::kRequestCount; block > 0; --block) free_blocks_.push_back(block - 1);
}

Result<std::shared_ptr<PendingRequest>> RequestQueue::Submit(const Submission& submission,
                                                             int64_t wait_until_ns) {
  static_assert(kInFlightMax == 63);  // named in the message below
  TERRACE_CHECK(submission.keys.size() <= shm::kBatchKeysMax);
  auto request = std::make_shared<PendingRequest>();
  request->op = submission.op;
  shm::ResultEntry unanswered{};
  unanswered.status = static_cast<uint8_t>(StatusCode::kUnavailable);
  request->results.resize(submission.keys.size(), unanswered);
  if (submission.op == shm::Op::kGet) {
    for (const shm::KeyEntry& key : submission.keys) request->pins.push_back(key.pin);
  }
  for (;;) {
    std::vector<std::shared_ptr<PendingRequest>> orphans;
    uint32_t seen = 0;
    bool pushed = false;
    {
      const std::lock_guard lock(mutex_);
      seen = memory_.complete_tail.load(std::memory_order_acquire);
      Drain(&orphans);
      if (free_blocks_.size() > 1 && !dead_.load(std::memory_order_acquire)) {
        Push(submission, request);
        pushed = true;
      }
    }
    LetGo(orphans);
    if (pushed) break;
    if (dead_.load(std::memory_order_acquire)) return Status(StatusCode::kUnavailable);
    if (MonotonicNs() >= wait_until_ns) {
      return Status(StatusCode::kBusy, "all 63 requests of the session are in flight");
    }
    AwaitTail(seen, FUTEX_BITSET_MATCH_ANY, wait_until_ns);
  }
  RingDoorbell();
  return request;
}

void RequestQueue::Push(const Submission& submission, std::shared_ptr<PendingRequest> request) {
  const uint32_t block = free_blocks_.back();
  free_blocks_.pop_back();
  request->block = block;
  request->tag = next_tag_++;
  std::copy(submission.keys.begin(), submission.keys.end(), memory_.requests[block].keys);
  shm::SubmissionEntry entry{};
  entry.op = static_cast<uint8_t>(submission.op);
  entry.flags = submission.flags;
  entry.request = block;
  entry.namespace_id = submission.namespace_id;
  entry.key_count = static_cast<uint32_t>(submission.keys.size());
  entry.deadline_ns = submission.deadline_ns;
  entry.tag = request->tag;
  entry.argument = submission.argument;
  in_flight_[block] = std::move(request);
  memory_.submissions[submit_tail_ % shm::kRequestCount] = entry;
  // seq_cst against daemon_sleeping, which RingDoorbell loads.
  memory_.submit_tail.store(++submit_tail_, std::memory_order_seq_cst);
}

void RequestQueue::PushCancels() {
  bool pushed = false;
  while (!cancels_.empty() && !free_blocks_.empty() && !dead_.load(std::memory_order_acquire)) {
    auto request = std::make_shared<PendingRequest>();
    request->op = shm::Op::kCancel;
    request->abandoned = true;
    Push({.op = shm::Op::kCancel, .argument = cancels_.back(), .keys = {}}, std::move(request));
    cancels_.pop_back();
    pushed = true;
  }
  if (pushed) RingDoorbell();
}

void RequestQueue::RingDoorbell() {
  if (memory_.daemon_sleeping.load(std::memory_order_seq_cst) == 0) return;
  // A full socket already holds a byte that wakes; a broken one is the connection's to notice.
  const char byte = 0;
  [[maybe_unused]] const ssize_t sent = send(doorbell_, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void RequestQueue::Drain(std::vector<std::shared_ptr<PendingRequest>>* orphans) {
  const uint32_t tail = memory_.complete_tail.load(std::memory_order_acquire);
  while (complete_head_ != tail) {
    const shm::CompletionEntry done = memory_.completions[complete_head_ % shm::kRequestCount];
    ++complete_head_;
    if (done.request >= shm::kRequestCount || in_flight_[done.request] == nullptr) continue;
    const std::shared_ptr<PendingRequest> request = std::move(in_flight_[done.request]);
    in_flight_[done.request] = nullptr;
    const shm::ResultEntry* const results = memory_.requests[done.request].results;
    std::copy_n(results, request->results.size(), request->results.begin());
    request->status = static_cast<StatusCode>(done.status);
    request->done = true;
    free_blocks_.push_back(done.request);
    if (request->abandoned && request->op != shm::Op::kCancel) orphans->push_back(request);
  }
  memory_.complete_head.store(complete_head_, std::memory_order_seq_cst);
  if (!cancels_.empty()) PushCancels();
}

void RequestQueue::LetGo(std::vector<std::shared_ptr<PendingRequest>>& orphans) {
  for (const auto& orphan : orphans) orphaned_(*orphan);
}

StatusCode RequestQueue::Wait(PendingRequest& request, int64_t until_ns) {
  for (;;) {
    std::vector<std::shared_ptr<PendingRequest>> orphans;
    uint32_t seen = 0;
    StatusCode ended = StatusCode::kOk;
    bool done = false;
    {
      const std::lock_guard lock(mutex_);
      seen = memory_.complete_tail.load(std::memory_order_acquire);
      Drain(&orphans);
      done = request.done;
      if (!done && dead_.load(std::memory_order_acquire)) ended = StatusCode::kUnavailable;
      if (!done && ended == StatusCode::kOk && MonotonicNs() >= until_ns) {
        ended = StatusCode::kDeadline;
      }
      if (ended != StatusCode::kOk) request.abandoned = true;
      if (ended == StatusCode::kUnavailable) Forget(request);
    }
    LetGo(orphans);
    if (ended == StatusCode::kUnavailable) orphaned_(request);
    if (done) return StatusCode::kOk;
    if (ended != StatusCode::kOk) return ended;
    AwaitTail(seen, shm::WakeBit(request.block), until_ns);
  }
}

void RequestQueue::Abandon(PendingRequest& request) {
  {
    const std::lock_guard lock(mutex_);
    request.abandoned = true;
    if (!request.done && !dead_.load(std::memory_order_acquire)) return;
    if (!request.done) Forget(request);
  }
  orphaned_(request);
}

void RequestQueue::Cancel(PendingRequest& request) {
  {
    const std::lock_guard lock(mutex_);
    if (!request.done) {
      cancels_.push_back(request.tag);
      PushCancels();
    }
    if (request.abandoned) return;
  }
  Abandon(request);
}

void RequestQueue::Forget(const PendingRequest& request) {
  for (auto& flying : in_flight_) {
    if (flying.get() == &request) flying = nullptr;
  }
}

bool RequestQueue::Housekeep() {
  std::vector<std::shared_ptr<PendingRequest>> orphans;
  bool left = false;
  {
    const std::lock_guard lock(mutex_);
    Drain(&orphans);
    for (auto& request : in_flight_) {
      if (request == nullptr || !request->abandoned) continue;
      if (dead_.load(std::memory_order_acquire)) {
        if (request->op != shm::Op::kCancel) orphans.push_back(std::move(request));
        request = nullptr;
      } else {
        left = true;
      }
    }
  }
  LetGo(orphans);
  return left;
}

void RequestQueue::AwaitTail(uint32_t seen, uint32_t wake_bits, int64_t until_ns) {
  const int64_t began_ns = MonotonicNs();
  const int64_t budget_ns = spin_ns_.load(std::memory_order_relaxed);
  if (!may_spin_ || !SpinForTail(seen, std::min(began_ns + budget_ns, until_ns))) {
    SleepForTail(seen, wake_bits, until_ns);
  }
  // By what the answer took, not by whether the spin saw it: a spin once too short would stay so.
  const bool worth_it = MonotonicNs() - began_ns <= kSpinNsMax;
  spin_ns_.store(std::clamp(worth_it ? budget_ns * 2 : budget_ns / 2, kSpinNsMin, kSpinNsMax),
                 std::memory_order_relaxed);
}

bool RequestQueue::SpinForTail(uint32_t seen, int64_t until_ns) const {
  do {
    for (int pauses = 0; pauses < 16; ++pauses) shm::SpinPause();
    if (memory_.complete_tail.load(std::memory_order_acquire) != seen) return true;
  } while (MonotonicNs() < until_ns);
  return false;
}

void RequestQueue::SleepForTail(uint32_t seen, uint32_t wake_bits, int64_t until_ns) {
  waiting_.fetch_add(1, std::memory_order_seq_cst);
  // seq_cst against complete_tail: either we see the new tail, or the daemon sees that we wait.
  memory_.client_waiting.fetch_add(1, std::memory_order_seq_cst);
  if (memory_.complete_tail.load(std::memory_order_seq_cst) == seen && until_ns > 0 &&
      !dead_.load(std::memory_order_seq_cst)) {
    // This operation's timeout is a time, of CLOCK_MONOTONIC.
    const timespec until{.tv_sec = until_ns / kNsPerSecond, .tv_nsec = until_ns % kNsPerSecond};
    syscall(SYS_futex, &memory_.complete_tail, FUTEX_WAIT_BITSET, seen, &until, nullptr, wake_bits);
  }
  memory_.client_waiting.fetch_sub(1, std::memory_order_seq_cst);
  waiting_.fetch_sub(1, std::memory_order_seq_cst);
}

void RequestQueue::WakeAll() {
  // A thread may have looked at `dead` just before it was set and be on its way into the wait,
  // which no change of the word would stop: wake until none is left.  Each leaves on its own after
  // one.
  while (waiting_.load(std::memory_order_seq_cst) != 0) {
    syscall(SYS_futex, &memory_.complete_tail, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
    sched_yield();
  }
}

}  // namespace terrace
