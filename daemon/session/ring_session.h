#pragma once

// One local client's rings: takes its submissions, runs them on the tenant's ChunkStore, completes
// each exactly once.  Everything in the shared memory is hostile: an entry is copied, then checked,
// and a client that breaks the protocol is cut off, alone.
//
// Threads: belongs to the shard's thread.

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "proto/shm/session_layout.h"
#include "storage/base/fd.h"
#include "storage/base/result.h"
#include "storage/engine/chunk_store.h"
#include "storage/mem/memory_file.h"

namespace terrace {

class RingSession {
 public:
  // Makes the shared memory and the doorbell; joins the store's pin scan.
  static Result<std::unique_ptr<RingSession>> Create(SessionId id, ChunkStore& store,
                                                     uint64_t boot_epoch);
  ~RingSession();

  // Tells the policy of the uses that the client noted.
  void DrainTouches();

  // Takes what was submitted, after the touches noted before it.  True when there was any.
  bool Poll(int64_t now_ns);

  // Looks again at gets and prefetches that wait: something settled, or a deadline may have passed.
  void Recheck(int64_t now_ns);

  // The earliest deadline of what waits; 0 without any.
  int64_t NextDeadline() const;

  // Ends what waits with `status` and tells the client that the session is over.
  void Close(StatusCode status);

  // The client broke the protocol: what it did; empty otherwise.
  const std::string& broken() const { return broken_; }

  // Before the shard sleeps: true when it may (nothing was submitted meanwhile).
  bool AnnounceSleep();
  void AnnounceAwake();

  // Tells the client whether it may still pin.
  void PublishState();

  // Reads the doorbell empty; false when the client's end is gone.
  bool DrainDoorbell();

  const MemoryFile& memory() const { return memory_; }
  // For the event loop, which closes what it waits on.
  UniqueFd DuplicateDoorbell() const { return doorbell_.Duplicate(); }
  // The client's end; given away once.
  UniqueFd TakeClientDoorbell() { return std::move(client_doorbell_); }
  uint64_t requests() const { return requests_; }
  uint64_t touches_dropped() const;

 private:
  struct Waiting {
    shm::SubmissionEntry entry{};
    std::vector<shm::KeyEntry> keys;
    std::vector<uint32_t> pending;  // indexes into keys
  };

  RingSession(SessionId id, ChunkStore& store) : id_(id), store_(store) {}

  void Break(std::string what);
  bool Accept(const shm::SubmissionEntry& entry);
  void Execute(const shm::SubmissionEntry& entry, int64_t now_ns);
  void BeginPut(const shm::SubmissionEntry& entry, int64_t now_ns);
  void EndClaims(const shm::SubmissionEntry& entry, int64_t now_ns);
  // Gets, prefetches, persists: what comes from NVMe or goes there is waited for, what is being
  // put if the caller says so.
  void Fetch(const shm::SubmissionEntry& entry, int64_t now_ns);
  void EachKey(const shm::SubmissionEntry& entry, int64_t now_ns);
  void Cancel(const shm::SubmissionEntry& entry);

  // One key; true when it has to be looked at again.  Writes its result.
  bool FetchKey(const shm::SubmissionEntry& entry, const shm::KeyEntry& key, uint32_t index,
                int64_t now_ns);
  Sought Seek(const shm::SubmissionEntry& entry, const shm::KeyEntry& key, int64_t now_ns);
  void Expire(Waiting& waiting, StatusCode status);
  shm::KeyEntry CopyKey(uint32_t request, uint32_t index) const;
  shm::ResultEntry& ResultOf(uint32_t request, uint32_t index);
  void Complete(const shm::SubmissionEntry& entry, StatusCode status);

  // Constant after construction.
  const SessionId id_;
  ChunkStore& store_;
  MemoryFile memory_;
  shm::SessionMemory* shared_ = nullptr;
  UniqueFd doorbell_;
  UniqueFd client_doorbell_;

  // Owned by the shard's thread.  Counters that the client could write are kept here.
  uint32_t submit_head_ = 0;
  uint32_t complete_tail_ = 0;
  uint32_t touch_head_ = 0;
  std::array<bool, shm::kRequestCount> in_flight_{};
  uint32_t in_flight_count_ = 0;
  std::vector<std::unique_ptr<Waiting>> waiting_;
  uint64_t requests_ = 0;
  bool closed_ = false;
  std::string broken_;
};

}  // namespace terrace
