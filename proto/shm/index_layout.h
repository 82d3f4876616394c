#pragma once

// The tenant index as it lies in shared memory: a header, then slots of 64 bytes.  The daemon
// writes it; clients map it read-only and look up without a system call (lookup.h).  Drawn in
// docs/format.md; pinned by a golden test.
//
// Every word that changes while clients read is an atomic.  A slot is a seqlock: the writer makes
// its version odd, stores the words, makes it even again; versions only grow.  Loads of the words
// are acquire and stores release, so that no fence is needed (ThreadSanitizer cannot see fences).
// The stores and loads that decide between a pin and a retirement are seq_cst; see lookup.h.
//
// Threads: one writer (the shard), any number of readers in any process.

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace terrace::shm {

inline constexpr uint64_t kIndexMagic = 0x3158444952524554;  // "TERRIDX1"
inline constexpr uint32_t kIndexLayoutVersion = 1;
inline constexpr uint32_t kLiveWordCount = 1024;
inline constexpr uint32_t kSegmentCountMax = 4096;
inline constexpr uint32_t kProbeSlots = 64;  // a key lives within so many slots of its home
inline constexpr uint64_t kIndexHeaderBytes = 128 * 1024;

static_assert(std::atomic<uint64_t>::is_always_lock_free);
static_assert(std::atomic<uint32_t>::is_always_lock_free);
static_assert(std::endian::native == std::endian::little, "the layouts are little-endian");

// Where a record lies.  The generation counts memfds, not reuses: a mapping is used only while its
// generation equals the location's.  Generations start at 1, so a location is never 0.
struct Location {
  static constexpr uint64_t kOffsetUnitBytes = 4096;
  static constexpr uint64_t kGenerationMax = (uint64_t{1} << 34) - 1;

  uint32_t segment = 0;     // 12 bits
  uint64_t generation = 0;  // 34 bits
  uint64_t offset = 0;      // bytes from the segment's start, a multiple of 4 KiB; 18 bits of units

  constexpr uint64_t Pack() const {
    return (uint64_t{segment} << 52) | (generation << 18) | (offset / kOffsetUnitBytes);
  }
  static constexpr Location Unpack(uint64_t word) {
    return Location{.segment = static_cast<uint32_t>(word >> 52),
                    .generation = (word >> 18) & kGenerationMax,
                    .offset = (word & ((uint64_t{1} << 18) - 1)) * kOffsetUnitBytes};
  }
  friend bool operator==(const Location&, const Location&) = default;
};

// A hazard word: the memfd that must not be rewritten.  0 pins nothing.
constexpr uint64_t PinWord(uint32_t segment, uint64_t generation) {
  return (generation << 12) | segment;
}
constexpr uint64_t PinWord(const Location& at) { return PinWord(at.segment, at.generation); }

// absent --BeginPut--> filling --Commit--> ready --Retire--> absent
enum class SlotState : uint8_t { kAbsent = 0, kFilling = 1, kReady = 2 };
// The nearest tier that holds a ready chunk.  Only in DRAM there is a location for clients; what is
// elsewhere has location 0, and the daemon brings it back.
enum class SlotTier : uint8_t { kDram = 0, kNvme = 1 };

// The eighth word of a slot.  `reach` is of the *home*, not of the key in the slot: how many slots
// from here on may hold a key whose home this is.  It bounds a miss to what was ever displaced,
// mostly one cache line, and changes without the slot's version: a reader that meets an old value
// misses a key that is just being put.
struct SlotAttributes {
  uint16_t part = 0;
  uint8_t key_length = 0;
  SlotState state = SlotState::kAbsent;
  SlotTier tier = SlotTier::kDram;
  uint8_t reach = 0;  // 0..kProbeSlots

  constexpr uint64_t Pack() const {
    return uint64_t{part} | (uint64_t{key_length} << 16) |
           ((uint64_t{static_cast<uint8_t>(state)} | (uint64_t{static_cast<uint8_t>(tier)} << 4))
            << 24) |
           (uint64_t{reach} << 32);
  }
  static constexpr SlotAttributes Unpack(uint64_t word) {
    return SlotAttributes{.part = static_cast<uint16_t>(word),
                          .key_length = static_cast<uint8_t>(word >> 16),
                          .state = static_cast<SlotState>((word >> 24) & 0xf),
                          .tier = static_cast<SlotTier>((word >> 28) & 0xf),
                          .reach = static_cast<uint8_t>(word >> 32)};
  }
};

struct alignas(64) Slot {
  std::atomic<uint64_t> version;  // even: stable, odd: being written, 0: never used
  std::atomic<uint64_t> key[4];
  std::atomic<uint64_t> location;          // Location::Pack(); 0 unless in DRAM
  std::atomic<uint64_t> length_namespace;  // payload bytes | namespace id << 32
  std::atomic<uint64_t> attributes;        // SlotAttributes::Pack()
};
static_assert(sizeof(Slot) == 64);
static_assert(offsetof(Slot, key) == 8);
static_assert(offsetof(Slot, location) == 40);
static_assert(offsetof(Slot, length_namespace) == 48);
static_assert(offsetof(Slot, attributes) == 56);

constexpr uint64_t PackLengthNamespace(uint32_t length, uint32_t namespace_id) {
  return uint64_t{length} | (uint64_t{namespace_id} << 32);
}

// What a client needs to know of a segment before it trusts a mapping of it.  Two words that
// change one after the other: a hint of what to map, checked against the descriptor itself.
struct SegmentEntry {
  std::atomic<uint64_t> generation;  // of the memfd in this place; 0: no segment
  std::atomic<uint64_t> bytes;
};
static_assert(sizeof(SegmentEntry) == 16);

struct IndexHeader {
  uint64_t magic;           // kIndexMagic
  uint32_t layout_version;  // kIndexLayoutVersion
  uint32_t shard_count;     // 1
  uint64_t slot_count;      // a power of two, at least kProbeSlots
  uint64_t seed;            // the tenant's, of KeyHash; known to every client of the tenant
  uint64_t boot_epoch;      // of the daemon that made this table; new at every start
  uint64_t table_bytes;     // header and slots
  uint64_t segment_bytes;
  uint32_t segment_count;  // places in `segments` that may ever be used, <= kSegmentCountMax
  uint32_t chunk_bytes_max;
  uint8_t reserved[4032];
  // Namespace ids in use: a namespace is live while the word it was given holds its id.  0: free.
  std::atomic<uint64_t> live[kLiveWordCount];
  SegmentEntry segments[kSegmentCountMax];
};
static_assert(offsetof(IndexHeader, slot_count) == 16);
static_assert(offsetof(IndexHeader, segment_count) == 56);
static_assert(offsetof(IndexHeader, live) == 4096);
static_assert(offsetof(IndexHeader, segments) == 4096 + 8 * kLiveWordCount);
static_assert(sizeof(IndexHeader) <= kIndexHeaderBytes);

constexpr uint64_t IndexBytes(uint64_t slot_count) {
  return kIndexHeaderBytes + slot_count * sizeof(Slot);
}

}  // namespace terrace::shm
