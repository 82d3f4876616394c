#include "client/core/segment_maps.h"

#include <algorithm>
#include <chrono>

#include "proto/shm/record_layout.h"
#include "storage/base/clock.h"

namespace terrace {

SegmentMaps::SegmentMaps(uint32_t segment_count, uint64_t segment_bytes)
    : segment_bytes_(segment_bytes), places_(segment_count) {}

bool SegmentMaps::Within(const shm::Location& location, uint32_t payload_bytes) const {
  const uint64_t record_bytes = shm::RecordBytes(payload_bytes);
  return location.segment < places_.size() && record_bytes <= segment_bytes_ &&
         location.offset <= segment_bytes_ - record_bytes;
}

const std::byte* SegmentMaps::Find(const shm::Location& location, uint32_t payload_bytes) const {
  if (!Within(location, payload_bytes)) return nullptr;
  const Place& place = places_[location.segment];
  if (place.generation.load(std::memory_order_seq_cst) != location.generation) return nullptr;
  const uint8_t* const base = place.base.load(std::memory_order_acquire);
  // A base of a later generation brings the 0 along that was stored before it.
  if (place.generation.load(std::memory_order_acquire) != location.generation) return nullptr;
  return reinterpret_cast<const std::byte*>(base + location.offset);
}

std::byte* SegmentMaps::FindWritable(const shm::Location& location, uint32_t payload_bytes,
                                     std::shared_ptr<Mapping>* hold) const {
  if (!Within(location, payload_bytes)) return nullptr;
  const std::lock_guard lock(mutex_);
  const Place& place = places_[location.segment];
  if (place.generation.load(std::memory_order_relaxed) != location.generation) return nullptr;
  if (place.writable == nullptr) return nullptr;
  *hold = place.writable;
  return reinterpret_cast<std::byte*>(place.writable->writable_data() + location.offset);
}

bool SegmentMaps::Await(const shm::Location& location, bool writable, int64_t deadline_ns) const {
  if (location.segment >= places_.size()) return false;
  const Place& place = places_[location.segment];
  std::unique_lock lock(mutex_);
  for (;;) {
    if (closed_) return false;
    if (place.generation.load(std::memory_order_relaxed) == location.generation &&
        (!writable || place.writable != nullptr)) {
      return true;
    }
    const int64_t left_ns = deadline_ns - MonotonicNs();
    if (left_ns <= 0) return false;
    mapped_.wait_for(lock, std::chrono::nanoseconds(left_ns));
  }
}

Status SegmentMaps::Map(const KnownSegment& segment, uint64_t bytes, int fd) {
  if (segment.segment >= places_.size() || bytes != segment_bytes_ || segment.generation == 0) {
    return Status(StatusCode::kInvalid, "segment " + std::to_string(segment.segment) + " of " +
                                            std::to_string(bytes) + " bytes is not of the index");
  }
  // Outside the lock: mapping may take long, and only the library's thread maps.
  Result<Mapping> mapping =
      segment.writable != 0 ? Mapping::MapReadWrite(fd, bytes) : Mapping::MapReadOnly(fd, bytes);
  if (!mapping.ok()) return mapping.status();

  const std::lock_guard lock(mutex_);
  Place& place = places_[segment.segment];
  if (place.generation.load(std::memory_order_relaxed) != segment.generation) {
    Supersede(place, segment.segment);
  }
  const uint8_t* const base = mapping->data();
  if (segment.writable != 0) {
    if (place.writable == nullptr) place.writable = std::make_shared<Mapping>(*std::move(mapping));
  } else if (!place.read_only.valid()) {
    place.read_only = *std::move(mapping);
  }
  if (place.generation.load(std::memory_order_relaxed) == 0) {
    place.base.store(base, std::memory_order_release);
    place.generation.store(segment.generation, std::memory_order_seq_cst);
  }
  mapped_.notify_all();
  return Status::Ok();
}

void SegmentMaps::Supersede(Place& place, uint32_t segment) {
  const uint64_t old = place.generation.load(std::memory_order_relaxed);
  place.generation.store(0, std::memory_order_seq_cst);
  if (old == 0) return;
  superseded_.push_back({.pin_word = shm::PinWord(segment, old),
                         .read_only = std::move(place.read_only),
                         .writable = std::move(place.writable)});
  place.writable = nullptr;
}

std::vector<KnownSegment> SegmentMaps::Known() const {
  const std::lock_guard lock(mutex_);
  std::vector<KnownSegment> known;
  for (uint32_t segment = 0; segment < places_.size(); ++segment) {
    const uint64_t generation = places_[segment].generation.load(std::memory_order_relaxed);
    if (generation == 0) continue;
    known.push_back({.segment = segment, .writable = 0, .generation = generation});
    if (places_[segment].writable == nullptr) continue;
    known.push_back({.segment = segment, .writable = 1, .generation = generation});
  }
  return known;
}

size_t SegmentMaps::Sweep(std::span<const std::atomic<uint64_t>> pins) {
  const std::lock_guard lock(mutex_);
  if (superseded_.empty()) return 0;
  std::vector<uint64_t> words;
  for (const std::atomic<uint64_t>& pin : pins) {
    const uint64_t word = pin.load(std::memory_order_seq_cst);
    if (word != 0) words.push_back(word);
  }
  std::sort(words.begin(), words.end());
  std::erase_if(superseded_, [&words](const Superseded& old) {
    return !std::binary_search(words.begin(), words.end(), old.pin_word);
  });
  return superseded_.size();
}

void SegmentMaps::Close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  mapped_.notify_all();
}

void SegmentMaps::Clear() {
  const std::lock_guard lock(mutex_);
  for (Place& place : places_) {
    place.generation.store(0, std::memory_order_seq_cst);
    place.base.store(nullptr, std::memory_order_relaxed);
    place.read_only.Reset();
    place.writable = nullptr;
  }
  superseded_.clear();
}

}  // namespace terrace
