#include "storage/engine/chunk_history.h"

#include <algorithm>

#include "proto/shm/record_layout.h"
#include "storage/record/copy_hash.h"

namespace terrace {
namespace {

// One key's events may fill the ring, and keys of one bucket are chained with it.
constexpr uint32_t kStepsMax = 1024;

}  // namespace

uint32_t LabelTag(std::string_view label) {
  if (label.empty()) return 0;
  // A longer one is no namespace's, but may be asked for.
  uint64_t hash = 0;
  HashLeaves(label.data(), std::min<size_t>(label.size(), shm::kLeafBytes), &hash);
  return static_cast<uint32_t>(hash);
}

EventRing::Entry EventRing::Pack(const ChunkEvent& event, uint32_t back) {
  return {.key_words = event.key.words,
          .key_part = event.key.part,
          .key_length = event.key.length,
          .cause = event.cause,
          .label_tag = event.label_tag,
          .namespace_id = event.namespace_id,
          .payload_bytes = event.payload_bytes,
          .wall_ms = event.wall_ms,
          .back = back};
}

ChunkEvent EventRing::Unpack(const Entry& entry) {
  return {.key = {.words = entry.key_words, .part = entry.key_part, .length = entry.key_length},
          .label_tag = entry.label_tag,
          .namespace_id = entry.namespace_id,
          .payload_bytes = entry.payload_bytes,
          .cause = entry.cause,
          .wall_ms = entry.wall_ms};
}

void EventRing::Add(const ChunkEvent& event, uint64_t hash) {
  const uint64_t number = ++count_;
  uint64_t& head = heads_[hash % capacity_];
  const bool kept = head != 0 && number - head < capacity_;
  const Entry entry = Pack(event, kept ? static_cast<uint32_t>(number - head) : 0);
  head = number;
  const uint64_t at = (number - 1) % capacity_;
  if (at == events_.size()) {
    events_.push_back(entry);
  } else {
    events_[at] = entry;
  }
}

std::optional<ChunkEvent> EventRing::Find(const shm::ChunkKey& key, uint32_t label_tag,
                                          uint64_t hash) const {
  uint64_t number = heads_[hash % capacity_];
  for (uint32_t steps = 0; number != 0 && steps < kStepsMax; ++steps) {
    if (count_ - number >= capacity_) return std::nullopt;
    const Entry& entry = events_[(number - 1) % capacity_];
    if (entry.label_tag == label_tag && entry.key_words == key.words &&
        entry.key_part == key.part && entry.key_length == key.length) {
      return Unpack(entry);
    }
    if (entry.back == 0) return std::nullopt;
    number -= entry.back;
  }
  return std::nullopt;
}

std::optional<int64_t> EventRing::overwritten_until_ms() const {
  if (count_ <= capacity_) return std::nullopt;
  return events_[count_ % capacity_].wall_ms;
}

bool ChunkHistory::Note(const ChunkEvent& event, uint64_t hash) {
  if (!IsRefusal(event.cause)) {
    departures_.Add(event, hash);
    return true;
  }
  const std::optional<ChunkEvent> last = refusals_.Find(event.key, event.label_tag, hash);
  if (last && last->cause == event.cause && event.wall_ms - last->wall_ms < kRefusalRepeatMs) {
    // Unless it was there in between, and left.
    const std::optional<ChunkEvent> left = departures_.Find(event.key, event.label_tag, hash);
    if (!left || left->wall_ms < last->wall_ms) return false;
  }
  refusals_.Add(event, hash);
  return true;
}

std::optional<ChunkEvent> ChunkHistory::Last(const shm::ChunkKey& key, uint32_t label_tag,
                                             uint64_t hash) const {
  const std::optional<ChunkEvent> left = departures_.Find(key, label_tag, hash);
  const std::optional<ChunkEvent> refused = refusals_.Find(key, label_tag, hash);
  if (refused && (!left || refused->wall_ms >= left->wall_ms)) return refused;
  return left;
}

}  // namespace terrace
