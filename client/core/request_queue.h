#pragma once

// The client's end of a session's rings: submissions of many threads, completions taken by whoever
// waits.  A block is free again as soon as its completion was taken: results are copied out.
//
// A caller waits to its own deadline and then abandons the request; whoever takes the completion
// later hands it to the session, which lets go of what it gave (pins, claims).
//
// Threads: safe from any thread.

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "proto/shm/session_layout.h"
#include "storage/base/result.h"

namespace terrace {

// A request in flight, and its answer.
struct PendingRequest {
  // Constant after the submission.
  shm::Op op{};
  uint64_t tag = 0;
  std::vector<uint32_t> pins;  // kGet: the pin words that it names
  uint32_t block = 0;          // of the session's

  // Under the queue's lock until `done` was seen under it.
  bool done = false;
  bool abandoned = false;
  StatusCode status = StatusCode::kOk;
  std::vector<shm::ResultEntry> results;
};

class RequestQueue {
 public:
  // One block fewer than there are: the last is kept back for cancels.
  static constexpr uint32_t kInFlightMax = shm::kRequestCount - 1;

  // `dead`: the session's; once it is set nothing is submitted and every wait ends.  `orphaned`
  // gets abandoned requests after their completion, outside the lock.
  // All three must outlive the queue.
  RequestQueue(shm::SessionMemory& memory, int doorbell, const std::atomic<bool>& dead,
               std::function<void(PendingRequest&)> orphaned);

  struct Submission {
    shm::Op op{};
    uint16_t flags = 0;
    uint32_t namespace_id = 0;
    int64_t deadline_ns = 0;  // the daemon's
    uint64_t argument = 0;
    std::span<const shm::KeyEntry> keys;
  };

  // Waits until fewer than kInFlightMax are in flight or `wait_until_ns`; 0: does not wait.  kBusy
  // when none came free, kUnavailable when the session is dead.
  // REQUIRES: keys.size() <= kBatchKeysMax; op is not kCancel.
  Result<std::shared_ptr<PendingRequest>> Submit(const Submission& submission,
                                                 int64_t wait_until_ns);

  // Waits for the answer: kOk when it is there, whatever it says, or kDeadline or kUnavailable,
  // after which the request is abandoned and must not be looked at again.  Of a dead session's
  // requests `orphaned` is told at once: their results say kUnavailable.
  StatusCode Wait(PendingRequest& request, int64_t until_ns);

  // Nobody will ask for the answer.
  void Abandon(PendingRequest& request);

  // Abandons the request, if that was not done, and asks the daemon to end it early.  Neither waits
  // nor fails: while another cancel has the last block, this one is sent with the next completion
  // that anybody takes.
  void Cancel(PendingRequest& request);

  // Takes completions; for the library's thread.  Answers whether abandoned requests are still in
  // flight; none of a dead session's are.
  bool Housekeep();

  // Ends every wait.  REQUIRES: `dead` is set.
  void WakeAll();

 private:
  // Takes the request out of the flight of a dead session.
  void Forget(const PendingRequest& request);
  // Takes what has completed.  `orphans` get the abandoned.
  void Drain(std::vector<std::shared_ptr<PendingRequest>>* orphans);
  void LetGo(std::vector<std::shared_ptr<PendingRequest>>& orphans);
  // REQUIRES: a free block.
  void Push(const Submission& submission, std::shared_ptr<PendingRequest> request);
  void PushCancels();
  void RingDoorbell();
  // Until complete_tail is not `seen`, or `until_ns`, or death: spins a little, then sleeps until a
  // request with a bit of `wake_bits` completes.
  void AwaitTail(uint32_t seen, uint32_t wake_bits, int64_t until_ns);
  bool SpinForTail(uint32_t seen, int64_t until_ns) const;
  void SleepForTail(uint32_t seen, uint32_t wake_bits, int64_t until_ns);

  // Constant after construction.
  shm::SessionMemory& memory_;
  const int doorbell_;
  const std::atomic<bool>& dead_;
  const std::function<void(PendingRequest&)> orphaned_;
  const bool may_spin_;

  std::atomic<int64_t> spin_ns_;      // adapts to how long answers take
  std::atomic<uint32_t> waiting_{0};  // threads in or near a futex wait

  std::mutex mutex_;
  // Under the lock.
  uint32_t submit_tail_ = 0;
  uint32_t complete_head_ = 0;
  uint64_t next_tag_ = 1;
  std::array<std::shared_ptr<PendingRequest>, shm::kRequestCount> in_flight_;  // by block
  std::vector<uint32_t> free_blocks_;
  std::vector<uint64_t> cancels_;  // tags of requests to end, not yet sent; at most kInFlightMax
};

}  // namespace terrace
