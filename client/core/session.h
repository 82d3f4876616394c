#pragma once

// One attachment to a daemon: its index, its segments and the session's own memory, as mapped here.
//
// A session dies with its connection, and never comes back; a new connection makes a new one.  What
// it has mapped stays until nobody uses it: a hit holds its pin's number, everything else a Use.
// Each is taken before `dead` is looked at, and MarkDead sets `dead` before it looks for them (all
// seq_cst), so either the user sees that the session is dead, or its memory stays.
//
// In a forked child nothing here may be touched: owners leak their reference (Pin, PutTicket).
//
// Threads: safe from any thread.

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "client/core/client.h"
#include "client/core/pin_allocator.h"
#include "client/core/request_queue.h"
#include "client/core/segment_maps.h"
#include "client/core/touch_ring.h"
#include "proto/shm/lookup.h"
#include "storage/base/fd.h"
#include "storage/mem/mapping.h"

namespace terrace {

// The daemon completes a request by its deadline; its answer may still be on its way.
inline constexpr int64_t kAnswerSlackNs = 10'000'000;
// Deadline of requests that have none of their own (remove, lease, abort) and of control calls.
inline constexpr int64_t kCallTimeoutNs = 5'000'000'000;

// A record under a pin.
struct Hit {
  uint32_t pin = 0;
  const std::byte* record = nullptr;  // its header
  uint32_t payload_bytes = 0;
  uint64_t touch = 0;
};

enum class Outcome : uint8_t {
  kHit,
  kAbsent,
  kFilling,
  kAsk,  // only the daemon can tell: the slot is being written, or its segment is not mapped yet
  kStale,
  kBusy,  // no pin to be had
  kUnavailable,
};

class Session {
 public:
  struct Parts {
    Mapping index;   // read-only
    Mapping memory;  // writable
    UniqueFd doorbell;
    uint64_t boot_epoch = 0;
  };

  // `housekeeping` asks the library's thread to call Housekeep soon; it outlives the session's
  // death.  kInvalid names what is wrong with the memory.
  static Result<std::shared_ptr<Session>> Create(Parts parts, std::function<void()> housekeeping);
  ~Session();

  // Keeps the mappings while it lives.
  class Use {
   public:
    explicit Use(Session& session);
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
    ~Use();
    bool ok() const { return ok_; }  // false: the session is dead

   private:
    Session& session_;
    bool ok_;
  };

  uint64_t Hash(const shm::ChunkKey& key, uint32_t namespace_id) const {
    return shm::KeyHash(key, namespace_id, index_view_.seed);
  }

  // Asks the caches for the slot of a key with this hash.
  void Prefetch(uint64_t hash) const { shm::PrefetchHome(index_view_, hash); }

  // Looks up and pins.  kHit: `hit` is set, and its pin is the caller's until Unpin.
  Outcome FindAndPin(const shm::ChunkKey& key, shm::NamespaceRef ns, uint64_t hash, Hit* hit);
  void Unpin(uint32_t pin);

  // Makes a hit the caller's Pin.
  static void Give(const std::shared_ptr<Session>& session, const Hit& hit,
                   const shm::ChunkKey& key, uint32_t namespace_id, Pin* pin);

  // REQUIRES, of all below: a Use that is ok.
  const shm::IndexView& index() const { return index_view_; }
  TouchRing& touches() { return touches_; }
  SegmentMaps& maps() { return maps_; }
  RequestQueue& queue() { return queue_; }
  PinAllocator& pins() { return pins_; }

  // What the daemon pinned for `pin`: waits for its mapping until the deadline.  kOk, or kDeadline
  // or kUnavailable after letting go.
  StatusCode Adopt(const shm::ResultEntry& result, uint32_t pin, int64_t deadline_ns, Hit* hit);

  // Submits and waits; `results` get one entry a key when the answer is kOk.  After any other one
  // the pins of a kGet are no longer the caller's.
  StatusCode Call(const RequestQueue::Submission& submission, int64_t until_ns,
                  std::vector<shm::ResultEntry>* results);
  // Nobody waits for it any more: the library lets go of what it gives.
  void Abandon(PendingRequest& request);
  // Asks for the removal of what was found damaged and does not wait; while all requests are in
  // flight it asks nothing.
  void RemoveDamaged(std::span<const shm::KeyEntry> keys, uint32_t namespace_id);
  // Gives claims back, now or as soon as a request is free.
  void AbortClaims(std::span<const uint64_t> claims);

  // -- The library's thread ---------------------------------------------------------------------
  void MarkDead();
  bool dead() const { return dead_.load(std::memory_order_acquire); }
  // Takes the completions of those who gave up, gives back their claims, unmaps what is superseded.
  // Answers in how many ns it wants to be called again; 0: no need.
  int64_t Housekeep();

 private:
  Session(Parts parts, std::function<void()> housekeeping);

  void Orphaned(PendingRequest& request);
  bool SubmitAborts();
  void ReleaseWhenIdle();
  shm::SessionMemory& memory() const { return *memory_view_; }

  // Constant after construction.
  shm::IndexView index_view_;
  shm::SessionMemory* memory_view_ = nullptr;
  const std::function<void()> housekeeping_;

  std::atomic<bool> dead_{false};
  std::atomic<uint32_t> users_{0};

  PinAllocator pins_;
  SegmentMaps maps_;
  TouchRing touches_;
  RequestQueue queue_;

  std::mutex mutex_;
  // Under the lock.
  std::vector<uint64_t> claims_to_abort_;
  bool released_ = false;
  Parts parts_;
};

}  // namespace terrace
