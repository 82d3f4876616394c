#pragma once

// The daemon's half of one tenant's index: the only writer of the table that clients map
// (proto/shm/index_layout.h).  It knows keys, slots and live words; nothing of segments' contents,
// policy or sessions.
//
// Probing is bounded: a key lives within shm::kProbeSlots of its home, or Insert answers kBusy.
// There are no tombstones; each home's `reach` bounds a lookup and shrinks again on Retire.
//
// The stores that take something from readers (Move, MoveOut, Retire, ClearLive) are seq_cst: after
// them, PinTables::IsPinned sees every pin that a reader may still rely on.
//
// Threads: belongs to one shard; readers in other processes look on through lookup.h.

#include <cstdint>
#include <memory>
#include <vector>

#include "proto/shm/lookup.h"
#include "storage/base/result.h"
#include "storage/mem/memory_file.h"

namespace terrace {

using SlotId = uint32_t;

struct IndexOptions {
  uint64_t slot_count = 0;  // a power of two, shm::kProbeSlots..2^31
  uint64_t seed = 0;
  uint64_t boot_epoch = 0;
  uint64_t segment_bytes = 0;
  uint32_t segment_count = 0;
  uint32_t chunk_bytes_max = 0;
  MemoryFileOptions memory;
};

// Slots for a pool in which every record is as small as it can be (8 KiB), at most 3/4 full: the
// index never has to grow, since the pool never does (docs/decisions.md).
uint64_t SlotCountFor(uint64_t pool_bytes);

class Index {
 public:
  // kInvalid for a slot count out of bounds; kNoSpace when the machine cannot give the memory.
  static Result<std::unique_ptr<Index>> Create(const IndexOptions& options);

  const shm::IndexView& view() const { return view_; }
  const MemoryFile& memory() const { return memory_; }
  uint64_t Hash(const shm::ChunkKey& key, uint32_t namespace_id) const;

  // The slot of a key in any state, kNotFound without one.
  Result<SlotId> Find(const shm::ChunkKey& key, uint32_t namespace_id, uint64_t hash) const;

  // A new slot in state filling.  kBusy: no free slot within reach of the home.
  // REQUIRES: the key has no slot.
  Result<SlotId> Insert(const shm::ChunkKey& key, uint32_t namespace_id, uint64_t hash,
                        const shm::Location& location, uint32_t length);

  // The same for a chunk that is ready, but not in DRAM.
  Result<SlotId> InsertElsewhere(const shm::ChunkKey& key, uint32_t namespace_id, uint64_t hash,
                                 shm::SlotTier tier, uint32_t length);

  void Publish(SlotId slot);                              // filling -> ready
  void Move(SlotId slot, const shm::Location& location);  // ready, here in DRAM; same bytes
  void MoveOut(SlotId slot, shm::SlotTier tier);          // ready, no longer in DRAM
  void Retire(SlotId slot);                               // filling or ready -> absent

  struct Entry {
    shm::ChunkKey key;
    uint32_t namespace_id = 0;
    shm::Location location;
    uint32_t length = 0;
    shm::SlotState state = shm::SlotState::kAbsent;
    shm::SlotTier tier = shm::SlotTier::kDram;
    uint64_t version = 0;
  };
  Entry Read(SlotId slot) const;

  uint64_t used() const { return used_; }

  // Live words.  kBusy: all in use.  A cleared word may be given to another namespace: ids are
  // never used again, so who still holds the old one compares unequal.
  // REQUIRES: namespace_id != 0.
  Result<uint32_t> AllocateLive(uint32_t namespace_id);
  void ClearLive(uint32_t live_index);

  // What clients are told of the memfd in a place; generation 0: none.
  void SetSegment(uint32_t segment, uint64_t generation, uint64_t bytes);

 private:
  Index() = default;

  Result<SlotId> InsertAs(const shm::ChunkKey& key, uint32_t namespace_id, uint64_t hash,
                          uint64_t location_word, uint32_t length, shm::SlotAttributes own);
  void MoveTo(SlotId slot, uint64_t location_word, shm::SlotTier tier);
  shm::Slot& slot(SlotId id);
  shm::IndexHeader& header();

  // Constant after construction.
  MemoryFile memory_;
  shm::IndexView view_;
  // Owned by the shard's thread.
  std::vector<uint64_t> displaced_;  // by home: bit i says that home + i holds a key of this home
  uint64_t used_ = 0;
};

}  // namespace terrace
