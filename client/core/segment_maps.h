#pragma once

// A session's mappings of its tenant's segments: where a location lies in this process.
//
// A place's mapping is superseded when a fresh memfd takes the place.  The old one is kept until no
// pin word of the session names that memfd, so bytes under a pin are never unmapped.  The same
// store-then-load pattern as for pins decides: a reader stores its pin word, then loads the place's
// generation; Sweep runs after the generation was changed and loads the pin words; all seq_cst.
// Writers hold their mapping by shared_ptr instead.
//
// Threads: Find is lock-free, from any thread; the rest takes a lock.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "proto/shm/index_layout.h"
#include "storage/base/result.h"
#include "storage/mem/mapping.h"

namespace terrace {

// A memfd, as the control plane names it.
struct KnownSegment {
  uint32_t segment = 0;
  uint32_t writable = 0;
  uint64_t generation = 0;
};
static_assert(sizeof(KnownSegment) == 16, "its bytes are the `known` of Session.segments");

class SegmentMaps {
 public:
  SegmentMaps(uint32_t segment_count, uint64_t segment_bytes);

  // The record's first byte, or null when that memfd is not mapped, or the record does not lie
  // within it.  REQUIRES: a pin word of the session names the location's memfd.
  const std::byte* Find(const shm::Location& location, uint32_t payload_bytes) const;

  // The same for writing; the mapping is held by `hold`.  Null: not (yet) mapped writable.
  std::byte* FindWritable(const shm::Location& location, uint32_t payload_bytes,
                          std::shared_ptr<Mapping>* hold) const;

  // Waits until the memfd is mapped (writable): false at the deadline or once closed.
  bool Await(const shm::Location& location, bool writable, int64_t deadline_ns) const;

  // Maps the memfd behind `fd`, which stays the caller's.  kInvalid for a place or a size that the
  // index does not have.
  Status Map(const KnownSegment& segment, uint64_t bytes, int fd);

  // What is mapped, for the daemon: a writable mapping serves readers too.
  std::vector<KnownSegment> Known() const;

  // Unmaps superseded mappings that no word of `pins` names.  Answers how many are left.
  size_t Sweep(std::span<const std::atomic<uint64_t>> pins);

  // Wakes all waits, for good.
  void Close();

  // Unmaps everything.  REQUIRES: nobody reads, and Find is not called any more.
  void Clear();

 private:
  struct Place {
    // What Find reads.  `base` is stored between two stores of `generation` (0, then the new one).
    std::atomic<uint64_t> generation{0};
    std::atomic<const uint8_t*> base{nullptr};
    // Under the lock.
    Mapping read_only;
    std::shared_ptr<Mapping> writable;
  };
  struct Superseded {
    uint64_t pin_word = 0;
    Mapping read_only;
    std::shared_ptr<Mapping> writable;
  };

  bool Within(const shm::Location& location, uint32_t payload_bytes) const;
  void Supersede(Place& place, uint32_t segment);

  // Constant after construction.
  const uint64_t segment_bytes_;

  mutable std::mutex mutex_;
  mutable std::condition_variable mapped_;
  std::vector<Place> places_;  // constant in size
  std::vector<Superseded> superseded_;
  bool closed_ = false;
};

}  // namespace terrace
