#pragma once

// The last events of a tenant's chunks, in memory: a ring of departures and a smaller one of
// refusals, which are many just when departures matter.  Full rings overwrite their oldest.
//
// Threads: belongs to one shard.  A note costs two cache misses, an answer one for each event of
// the same key.

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "storage/engine/chunk_event.h"

namespace terrace {

inline constexpr uint32_t kDeparturesKept = 64 * 1024;  // 4 MiB, taken as they come
inline constexpr uint32_t kRefusalsKept = 16 * 1024;
// A key that is refused again and again is told of once a second.
inline constexpr int64_t kRefusalRepeatMs = 1000;

// Names a namespace by its label: ids end with their epochs, and begin anew where nothing is kept.
// Two labels may share a tag, one pair in 2^32; what is said of a chunk may then be the other's.
uint32_t LabelTag(std::string_view label);

// One of the rings.  Events of one key are chained, the newest first.
class EventRing {
 public:
  // REQUIRES: a power of two.
  explicit EventRing(uint32_t capacity) : heads_(capacity, 0), capacity_(capacity) {
    events_.reserve(capacity);
  }

  // `hash` is of the key alone.
  void Add(const ChunkEvent& event, uint64_t hash);
  // The newest of the key under this label, or nothing.
  std::optional<ChunkEvent> Find(const shm::ChunkKey& key, uint32_t label_tag, uint64_t hash) const;
  // When the oldest that is kept happened, once older ones were overwritten.
  std::optional<int64_t> overwritten_until_ms() const;

 private:
  struct Entry {  // a ChunkEvent without its padding: one cache line
    std::array<uint64_t, 4> key_words;
    uint16_t key_part;
    uint8_t key_length;
    ChunkCause cause;
    uint32_t label_tag;
    uint32_t namespace_id;
    uint32_t payload_bytes;
    int64_t wall_ms;
    uint32_t back;  // how many events before this one the chain goes on; 0: it ends
  };
  static_assert(sizeof(Entry) == 64);
  static Entry Pack(const ChunkEvent& event, uint32_t back);
  static ChunkEvent Unpack(const Entry& entry);

  std::vector<Entry> events_;
  std::vector<uint64_t> heads_;  // by hash: number of the newest, from 1; 0: none
  const uint32_t capacity_;
  uint64_t count_ = 0;  // that ever came
};

class ChunkHistory {
 public:
  ChunkHistory() : departures_(kDeparturesKept), refusals_(kRefusalsKept) {}

  // False: it repeats a refusal that was noted less than kRefusalRepeatMs ago, and goes on as that.
  bool Note(const ChunkEvent& event, uint64_t hash);
  // The newest event of the key.
  std::optional<ChunkEvent> Last(const shm::ChunkKey& key, uint32_t label_tag, uint64_t hash) const;

  void Begin(int64_t wall_ms) { begin_ms_ = wall_ms; }
  int64_t begin_ms() const { return begin_ms_; }
  // Departures since then are all kept.
  int64_t since_ms() const { return departures_.overwritten_until_ms().value_or(begin_ms_); }

 private:
  EventRing departures_, refusals_;
  int64_t begin_ms_ = 0;
};

}  // namespace terrace
