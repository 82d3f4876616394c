#pragma once

// The reader's half of the index: find a key, and pin what was found, without the daemon.
//
// A pin is a hazard word: the reader stores {segment, generation} in its own pin table, then looks
// at the slot's version and at the namespace's live word again.  The daemon, to retire, changes the
// version (or clears the live word), then reads every pin word.  All four are seq_cst, so in the
// single total order either the reader sees the change and lets go, or the daemon sees the pin and
// keeps the bytes.  With anything weaker both may miss each other: a store may wait in the store
// buffer while the later load is answered (tests/proto/pin_model_test.cc shows the run).
//
// Threads: any number of readers; each pin word has one user at a time.

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "proto/shm/chunk_key.h"
#include "proto/shm/index_layout.h"
#include "proto/shm/key_hash.h"

namespace terrace::shm {

// A mapped index whose header was checked (CheckIndexHeader).
struct IndexView {
  const IndexHeader* header = nullptr;
  const Slot* slots = nullptr;
  uint64_t mask = 0;
  uint64_t seed = 0;
};

// A namespace as readers know it: its id and the live word that holds it until an epoch bump.
struct NamespaceRef {
  uint32_t id = 0;  // ids begin at 1, so a cleared word equals none
  uint32_t live_index = 0;
};

enum class Look : uint8_t {
  kReady,      // in DRAM
  kElsewhere,  // ready, but to be fetched by the daemon first
  kFilling,
  kAbsent,
  kContended,  // a slot stayed mid-write for the whole spin: ask the daemon, or call it a miss
  kStale,      // the namespace's epoch has ended
};

struct Found {
  Location location;
  uint32_t length = 0;  // payload bytes
  uint32_t slot = 0;    // with `version`: the word for the touch ring
  uint64_t version = 0;
};

// 3 us: longer than any write of a slot by a running writer; the writer may be dead.
inline constexpr int kSpinPauses = 200;

inline void SpinPause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  asm volatile("yield");
#endif
}

inline bool IsLive(const IndexView& index, NamespaceRef ns, std::memory_order order) {
  return index.header->live[ns.live_index % kLiveWordCount].load(order) == ns.id;
}

inline void PrefetchHome(const IndexView& index, uint64_t hash) {
  __builtin_prefetch(&index.slots[hash & index.mask]);
}

// One slot against one key.  kAbsent: another key or none.
inline Look ReadSlot(const Slot& slot, const ChunkKey& key, uint32_t namespace_id, Found* found) {
  for (int spins = 0; spins < kSpinPauses; ++spins) {
    const uint64_t version = slot.version.load(std::memory_order_acquire);
    if (version & 1) {
      SpinPause();
      continue;
    }
    // A torn read can only say "another key" of a key that is being put or removed this moment:
    // moving a record changes its location and tier alone.  So a mismatch needs no second look.
    for (size_t word = 0; word < key.words.size(); ++word) {
      if (slot.key[word].load(std::memory_order_acquire) != key.words[word]) return Look::kAbsent;
    }
    const uint64_t attributes_word = slot.attributes.load(std::memory_order_acquire);
    const uint64_t length_namespace = slot.length_namespace.load(std::memory_order_acquire);
    const uint64_t location = slot.location.load(std::memory_order_acquire);
    const SlotAttributes attributes = SlotAttributes::Unpack(attributes_word);
    if (attributes.part != key.part || attributes.key_length != key.length ||
        length_namespace >> 32 != namespace_id || attributes.state == SlotState::kAbsent) {
      return Look::kAbsent;
    }
    // Relaxed suffices.  The loads above are acquire, so this one cannot move before them; and a
    // word of a later write, stored with release after that write's odd version, brings it along.
    if (slot.version.load(std::memory_order_relaxed) != version) continue;
    found->location = Location::Unpack(location);
    found->length = static_cast<uint32_t>(length_namespace);
    found->version = version;
    if (attributes.state != SlotState::kReady) return Look::kFilling;
    return attributes.tier == SlotTier::kDram ? Look::kReady : Look::kElsewhere;
  }
  return Look::kContended;
}

// The key's state now; nothing is held.  `hash` is KeyHash(key, ns.id, index.seed).  Does not look
// at the live word.  `found` is set for kReady, kElsewhere (without a location) and kFilling (only
// slot and version).
inline Look Find(const IndexView& index, const ChunkKey& key, uint32_t namespace_id, uint64_t hash,
                 Found* found) {
  const uint64_t home = hash & index.mask;
  const uint64_t reach =
      SlotAttributes::Unpack(index.slots[home].attributes.load(std::memory_order_acquire)).reach;
  Look worst = Look::kAbsent;
  for (uint64_t step = 0; step < reach && step < kProbeSlots; ++step) {
    const uint64_t at = (home + step) & index.mask;
    const Look look = ReadSlot(index.slots[at], key, namespace_id, found);
    if (look == Look::kContended) worst = look;
    if (look == Look::kAbsent || look == Look::kContended) continue;
    found->slot = static_cast<uint32_t>(at);
    return look;
  }
  return worst;
}

// Find, and for kReady pin: after it the record's bytes stay what they are until `pin` is cleared
// with Unpin.  `pin` must be 0 before, and is 0 after every other answer.
inline Look FindAndPin(const IndexView& index, const ChunkKey& key, NamespaceRef ns, uint64_t hash,
                       std::atomic<uint64_t>* pin, Found* found) {
  for (int tries = 0; tries < kSpinPauses; ++tries) {
    const Look look = Find(index, key, ns.id, hash, found);
    if (look != Look::kReady) {
      if (look == Look::kAbsent || IsLive(index, ns, std::memory_order_acquire)) return look;
      return Look::kStale;
    }
    // Store, then load, of different words: only seq_cst keeps the two in this order.  Both loads
    // come after the store; which of them comes first does not matter.
    pin->store(PinWord(found->location), std::memory_order_seq_cst);
    const bool same =
        index.slots[found->slot].version.load(std::memory_order_seq_cst) == found->version;
    const bool live = IsLive(index, ns, std::memory_order_seq_cst);
    if (same && live) return Look::kReady;
    pin->store(0, std::memory_order_release);  // no byte was read under it: any order would do
    if (!live) return Look::kStale;
  }
  return Look::kContended;
}

// The reader's last loads of the bytes happen before the daemon sees the word cleared.
inline void Unpin(std::atomic<uint64_t>* pin) { pin->store(0, std::memory_order_release); }

// Null when a mapping of `mapped_bytes` holds an index that this code can read; else what differs.
inline const char* CheckIndexHeader(const IndexHeader& header, uint64_t mapped_bytes) {
  if (mapped_bytes < kIndexHeaderBytes) return "the index is shorter than its header";
  if (header.magic != kIndexMagic) return "not a Terrace index";
  if (header.layout_version != kIndexLayoutVersion) return "the index has another layout version";
  if (header.slot_count < kProbeSlots || (header.slot_count & (header.slot_count - 1)) != 0 ||
      header.slot_count > (uint64_t{1} << 31)) {
    return "the index's slot count is not a power of two within bounds";
  }
  if (header.shard_count != 1) return "the index has more shards than this library knows";
  if (header.segment_count > kSegmentCountMax) return "the index names too many segments";
  if (IndexBytes(header.slot_count) > mapped_bytes) return "the index is shorter than its slots";
  return nullptr;
}

inline IndexView ViewIndex(const void* mapped) {
  const auto* header = static_cast<const IndexHeader*>(mapped);
  return IndexView{
      .header = header,
      .slots = reinterpret_cast<const Slot*>(static_cast<const char*>(mapped) + kIndexHeaderBytes),
      .mask = header->slot_count - 1,
      .seed = header->seed};
}

}  // namespace terrace::shm
