// Readers pin and read while the one writer moves, retires and rewrites: the real index, the real
// pin tables, and records in plain memory, so that ThreadSanitizer reports a rewrite that a reader
// could still see, whether or not the bytes come out wrong.

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "storage/index/index.h"
#include "storage/index/pin_tables.h"

namespace terrace {
namespace {

using shm::ChunkKey;
using shm::Look;

constexpr uint32_t kSegments = 8;
constexpr uint32_t kRecords = 4;  // a segment
constexpr uint32_t kWords = 64;   // a record
constexpr uint32_t kKeys = 24;
constexpr uint32_t kReaders = 3;
constexpr uint32_t kPins = 4;  // a reader
constexpr uint64_t kGeneration = 1;

ChunkKey KeyOf(uint32_t number) {
  const std::string text = "key-" + std::to_string(number);
  return ChunkKey::FromBytes(text.data(), text.size(), 0);
}

struct Counts {
  uint64_t hits = 0;
  uint64_t misses = 0;
  uint64_t stale = 0;
  uint64_t wrong = 0;
};

class Arena {
 public:
  Arena() {
    IndexOptions options;
    options.slot_count = 64;
    options.segment_count = kSegments;
    options.memory.best = PageRung::kSmall;
    index_ = *Index::Create(options);
    ns_ = {.id = 1, .live_index = *index_->AllocateLive(1)};
    for (uint32_t reader = 0; reader < kReaders; ++reader) {
      tables_.Add(reader, pins_[reader].data(), kPins);
    }
    for (uint32_t number = 0; number < kKeys; ++number) {
      keys_.push_back(KeyOf(number));
      hashes_.push_back(index_->Hash(keys_.back(), 1));
      slots_.push_back(kNone);
    }
    owner_.fill(kNone);
  }

  // -- The writer ----------------------------------------------------------------------------
  void Write(uint64_t seed, int steps, std::chrono::steady_clock::time_point until) {
    std::mt19937_64 random(seed);
    // Further steps where the readers had no CPU yet: the test needs pins that hold something back.
    for (int step = 0; step < steps || held_back_ == 0; ++step) {
      if (std::chrono::steady_clock::now() >= until) break;
      const auto key = static_cast<uint32_t>(random() % kKeys);
      switch (random() % 4) {
        case 0: Retire(key); break;
        case 1: MoveAway(key); break;
        default: Put(key); break;
      }
      // At once where something just left, when the stores may still wait in a store buffer.
      Reclaim(left_);
      Reclaim(static_cast<uint32_t>(random() % kSegments));
      if (step % 64 == 63) Bump();
    }
    done_.store(true, std::memory_order_release);
  }

  // -- A reader ------------------------------------------------------------------------------
  Counts Read(uint32_t reader, uint64_t seed) {
    std::mt19937_64 random(seed);
    Counts counts;
    while (!done_.load(std::memory_order_acquire)) {
      const auto key = static_cast<uint32_t>(random() % kKeys);
      std::atomic<uint64_t>* pin = &pins_[reader][random() % kPins];
      const uint64_t packed = namespace_.load(std::memory_order_acquire);
      const shm::NamespaceRef ns{.id = static_cast<uint32_t>(packed),
                                 .live_index = static_cast<uint32_t>(packed >> 32)};
      shm::Found found;
      const uint64_t hash = shm::KeyHash(keys_[key], ns.id, index_->view().seed);
      const Look look = shm::FindAndPin(index_->view(), keys_[key], ns, hash, pin, &found);
      if (look == Look::kStale) ++counts.stale;
      if (look != Look::kReady) {
        ++counts.misses;
        continue;
      }
      ++counts.hits;
      if (!Unchanged(key, found.location)) ++counts.wrong;
      shm::Unpin(pin);
    }
    return counts;
  }

  uint64_t rewrites() const { return rewrites_; }
  uint64_t held_back() const { return held_back_; }

 private:
  static constexpr uint32_t kNone = ~0u;

  static uint32_t PlaceOf(const shm::Location& at) {
    return at.segment * kRecords + static_cast<uint32_t>(at.offset / 4096);
  }
  static shm::Location LocationOf(uint32_t place) {
    return {.segment = place / kRecords,
            .generation = kGeneration,
            .offset = uint64_t{place % kRecords} * 4096};
  }

  // Every word of a record is {key, number of the write}.  Read forwards, then backwards: the
  // words that were read first are those looked at last.
  bool Unchanged(uint32_t key, const shm::Location& at) const {
    const std::array<uint64_t, kWords>& record = records_[PlaceOf(at)];
    const uint64_t expected = record[0];
    if (expected >> 32 != key) return false;
    for (uint32_t word = 1; word < kWords; ++word) {
      if (record[word] != expected) return false;
    }
    for (uint32_t word = kWords; word-- > 0;) {
      if (record[word] != expected) return false;
    }
    return true;
  }

  // A place that holds nothing since its segment was last found unpinned.
  uint32_t TakeFree() {
    for (uint32_t place = 0; place < owner_.size(); ++place) {
      if (owner_[place] == kNone && !dirty_[place]) return place;
    }
    return kNone;
  }

  void Put(uint32_t key) {
    if (slots_[key] != kNone) return;
    const uint32_t place = TakeFree();
    if (place == kNone) return;
    const Result<SlotId> slot =
        index_->Insert(keys_[key], ns_.id, hashes_[key], LocationOf(place), kWords * 8);
    if (!slot.ok()) return;
    records_[place].fill((uint64_t{key} << 32) | ++writes_);
    index_->Publish(*slot);
    slots_[key] = *slot;
    owner_[place] = key;
  }

  void MoveAway(uint32_t key) {
    if (slots_[key] == kNone) return;
    const uint32_t to = TakeFree();
    if (to == kNone) return;
    const uint32_t from = PlaceOf(index_->Read(slots_[key]).location);
    records_[to] = records_[from];
    index_->Move(slots_[key], LocationOf(to));
    Leave(from);
    owner_[to] = key;
  }

  void Retire(uint32_t key) {
    if (slots_[key] == kNone) return;
    const uint32_t place = PlaceOf(index_->Read(slots_[key]).location);
    index_->Retire(slots_[key]);
    slots_[key] = kNone;
    Leave(place);
  }

  void Leave(uint32_t place) {
    owner_[place] = kNone;
    dirty_[place] = true;
    left_ = place / kRecords;
  }

  // What left this segment may be written over once nobody pins the segment.
  void Reclaim(uint32_t segment) {
    const uint32_t first = segment * kRecords;
    bool any = false;
    for (uint32_t place = first; place < first + kRecords; ++place) any |= dirty_[place];
    if (!any) return;
    if (tables_.IsPinned(segment, kGeneration)) {
      ++held_back_;
      return;
    }
    for (uint32_t place = first; place < first + kRecords; ++place) {
      if (!dirty_[place]) continue;
      dirty_[place] = false;
      ++rewrites_;
      records_[place].fill(~uint64_t{0});
    }
  }

  // The old epoch's records are written over without a look at the slots, which are swept later:
  // the cleared live word and the scan alone protect the readers.
  void Bump() {
    index_->ClearLive(ns_.live_index);
    const uint32_t next = ns_.id + 1;
    for (uint32_t place = 0; place < owner_.size(); ++place) {
      if (owner_[place] != kNone) Leave(place);
    }
    for (uint32_t segment = 0; segment < kSegments; ++segment) Reclaim(segment);
    for (uint32_t key = 0; key < kKeys; ++key) {
      if (slots_[key] != kNone) index_->Retire(slots_[key]);
      slots_[key] = kNone;
      hashes_[key] = index_->Hash(keys_[key], next);
    }
    ns_ = {.id = next, .live_index = *index_->AllocateLive(next)};
    namespace_.store(ns_.id | (uint64_t{ns_.live_index} << 32), std::memory_order_release);
  }

  // Constant after construction.
  std::unique_ptr<Index> index_;
  std::vector<ChunkKey> keys_;
  // Shared.
  std::array<std::array<std::atomic<uint64_t>, kPins>, kReaders> pins_{};
  std::array<std::array<uint64_t, kWords>, kSegments * kRecords> records_{};
  std::atomic<uint64_t> namespace_{1};
  std::atomic<bool> done_{false};
  // The writer's.
  PinTables tables_;
  shm::NamespaceRef ns_;
  std::vector<uint64_t> hashes_;
  std::vector<uint32_t> slots_;
  std::array<uint32_t, kSegments * kRecords> owner_{};
  std::array<bool, kSegments * kRecords> dirty_{};
  uint32_t left_ = 0;  // the segment that something left last
  uint64_t writes_ = 0;
  uint64_t rewrites_ = 0;
  uint64_t held_back_ = 0;
};

TEST(IndexRace, BytesUnderAPinNeverChange) {
  const uint64_t seed = std::random_device{}();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  const auto arena = std::make_unique<Arena>();
  std::array<Counts, kReaders> counts{};
  std::vector<std::thread> readers;
  for (uint32_t reader = 0; reader < kReaders; ++reader) {
    readers.emplace_back([&, reader] { counts[reader] = arena->Read(reader, seed + 1 + reader); });
  }
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(4);
  arena->Write(seed, 1'000'000, until);
  for (std::thread& reader : readers) reader.join();

  Counts all;
  for (const Counts& one : counts) {
    all.hits += one.hits;
    all.misses += one.misses;
    all.stale += one.stale;
    all.wrong += one.wrong;
  }
  std::printf("hits %llu, misses %llu, of them stale %llu, rewrites %llu, held back %llu\n",
              static_cast<unsigned long long>(all.hits),
              static_cast<unsigned long long>(all.misses),
              static_cast<unsigned long long>(all.stale),
              static_cast<unsigned long long>(arena->rewrites()),
              static_cast<unsigned long long>(arena->held_back()));
  EXPECT_EQ(all.wrong, 0u);
  EXPECT_GT(all.hits, 0u);
  EXPECT_GT(arena->rewrites(), 0u);
  EXPECT_GT(arena->held_back(), 0u) << "no pin ever held a segment back: nothing was tested";
}

}  // namespace
}  // namespace terrace
