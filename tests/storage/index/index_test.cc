#include "storage/index/index.h"

#include <cstdio>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace terrace {
namespace {

using shm::ChunkKey;
using shm::Look;
using shm::SlotState;

constexpr uint32_t kNamespaceId = 7;

std::unique_ptr<Index> MakeIndex(uint64_t slot_count) {
  IndexOptions options;
  options.slot_count = slot_count;
  options.seed = 0x5eed;
  options.boot_epoch = 42;
  options.segment_bytes = 2 << 20;
  options.segment_count = 8;
  options.chunk_bytes_max = 1 << 20;
  options.memory.best = PageRung::kSmall;
  Result<std::unique_ptr<Index>> index = Index::Create(options);
  TERRACE_CHECK(index.ok());
  return *std::move(index);
}

ChunkKey Key(const std::string& text, uint16_t part = 0) {
  return ChunkKey::FromBytes(text.data(), text.size(), part);
}

shm::Location At(uint64_t number) {
  return shm::Location{.segment = static_cast<uint32_t>(number % 8),
                       .generation = 1 + number / 8,
                       .offset = (number % 64) * 4096};
}

// Inserts at a home of the test's choice: the hash is the caller's word.
Result<SlotId> InsertAt(Index* index, uint64_t home, const ChunkKey& key) {
  return index->Insert(key, kNamespaceId, home, At(1), 4096);
}

// Keys whose real home is `home`, which is where Retire looks for it again.
std::vector<ChunkKey> KeysOfHome(const Index& index, uint64_t home, size_t count) {
  std::vector<ChunkKey> keys;
  for (uint64_t number = 0; keys.size() < count; ++number) {
    const ChunkKey key = Key("key-" + std::to_string(number));
    if ((index.Hash(key, kNamespaceId) & index.view().mask) == home) keys.push_back(key);
  }
  return keys;
}

Look LookUp(const Index& index, const ChunkKey& key, shm::Found* found) {
  return shm::Find(index.view(), key, kNamespaceId, index.Hash(key, kNamespaceId), found);
}

TEST(Index, HeaderIsWhatReadersCheck) {
  const auto index = MakeIndex(128);
  const shm::IndexHeader& header = *index->view().header;
  EXPECT_EQ(shm::CheckIndexHeader(header, index->memory().bytes()), nullptr);
  EXPECT_EQ(header.slot_count, 128u);
  EXPECT_EQ(header.seed, 0x5eedu);
  EXPECT_EQ(header.boot_epoch, 42u);
  EXPECT_EQ(header.table_bytes, shm::IndexBytes(128));
  EXPECT_EQ(header.segment_bytes, 2u << 20);
  EXPECT_EQ(header.segment_count, 8u);
  EXPECT_EQ(header.chunk_bytes_max, 1u << 20);
  EXPECT_EQ(index->memory().bytes() % (2 << 20), 0u) << "huge pages need whole ones";
}

TEST(Index, RefusesSlotCountsThatHaveNoMask) {
  for (uint64_t slots : {uint64_t{0}, uint64_t{32}, uint64_t{96}, uint64_t{1} << 32}) {
    IndexOptions options;
    options.slot_count = slots;
    EXPECT_EQ(Index::Create(options).status().code(), StatusCode::kInvalid) << slots;
  }
}

TEST(Index, SlotCountHoldsAPoolOfTheSmallestRecordsThreeQuartersFull) {
  for (uint64_t pool : {uint64_t{1}, uint64_t{8192}, uint64_t{3} << 20, uint64_t{1} << 30,
                        (uint64_t{3} << 30) + 4096, uint64_t{256} << 30}) {
    const uint64_t slots = SlotCountFor(pool);
    EXPECT_EQ(slots & (slots - 1), 0u);
    EXPECT_GE(slots, shm::kProbeSlots);
    EXPECT_GE(slots * 3 / 4, pool / 8192) << pool;
    if (slots > shm::kProbeSlots) {
      EXPECT_LE(slots / 2 * 3 / 4, pool / 8192 + 1) << pool;
    }
  }
}

TEST(Index, KeyLivesFromInsertOverPublishAndMoveToRetire) {
  const auto index = MakeIndex(128);
  const ChunkKey key = Key("one", 3);
  const uint64_t hash = index->Hash(key, kNamespaceId);
  shm::Found found;
  EXPECT_EQ(LookUp(*index, key, &found), Look::kAbsent);
  EXPECT_EQ(index->Find(key, kNamespaceId, hash).status().code(), StatusCode::kNotFound);

  const Result<SlotId> slot = index->Insert(key, kNamespaceId, hash, At(1), 5000);
  ASSERT_TRUE(slot.ok());
  EXPECT_EQ(*slot, hash & index->view().mask);
  EXPECT_EQ(LookUp(*index, key, &found), Look::kFilling);
  EXPECT_EQ(*index->Find(key, kNamespaceId, hash), *slot);
  EXPECT_EQ(index->Read(*slot).version, 2u);
  EXPECT_EQ(index->used(), 1u);

  index->Publish(*slot);
  ASSERT_EQ(LookUp(*index, key, &found), Look::kReady);
  EXPECT_EQ(found.location, At(1));
  EXPECT_EQ(found.length, 5000u);
  EXPECT_EQ(found.version, 4u);

  index->Move(*slot, At(2));
  ASSERT_EQ(LookUp(*index, key, &found), Look::kReady);
  EXPECT_EQ(found.location, At(2));
  EXPECT_EQ(found.length, 5000u);
  EXPECT_EQ(found.version, 6u);
  const Index::Entry entry = index->Read(*slot);
  EXPECT_EQ(entry.key, key);
  EXPECT_EQ(entry.namespace_id, kNamespaceId);
  EXPECT_EQ(entry.location, At(2));
  EXPECT_EQ(entry.length, 5000u);
  EXPECT_EQ(entry.state, SlotState::kReady);

  index->Retire(*slot);
  EXPECT_EQ(LookUp(*index, key, &found), Look::kAbsent);
  EXPECT_EQ(index->Read(*slot).state, SlotState::kAbsent);
  EXPECT_EQ(index->Read(*slot).version, 8u) << "a version never goes back";
  EXPECT_EQ(index->used(), 0u);
}

TEST(Index, FillingKeyCanBeRetired) {
  const auto index = MakeIndex(128);
  const ChunkKey key = Key("one");
  const Result<SlotId> slot =
      index->Insert(key, kNamespaceId, index->Hash(key, kNamespaceId), At(1), 1);
  index->Retire(*slot);
  shm::Found found;
  EXPECT_EQ(LookUp(*index, key, &found), Look::kAbsent);
}

TEST(Index, ReachGrowsWithTheFurthestKeyAndShrinksAgain) {
  const auto index = MakeIndex(256);
  const uint64_t home = 100;
  const std::vector<ChunkKey> keys = KeysOfHome(*index, home, 4);
  const auto reach = [&] {
    return shm::SlotAttributes::Unpack(index->view().slots[home].attributes).reach;
  };
  std::vector<SlotId> slots;
  for (size_t at = 0; at < keys.size(); ++at) {
    slots.push_back(*InsertAt(index.get(), home, keys[at]));
    EXPECT_EQ(slots.back(), home + at);
    EXPECT_EQ(reach(), at + 1);
    index->Publish(slots.back());
    EXPECT_EQ(reach(), at + 1) << "a write of the key's own attributes keeps the home's reach";
  }
  index->Retire(slots[0]);
  EXPECT_EQ(reach(), 4u);
  index->Retire(slots[2]);
  EXPECT_EQ(reach(), 4u);
  index->Retire(slots[3]);
  EXPECT_EQ(reach(), 2u);
  index->Retire(slots[1]);
  EXPECT_EQ(reach(), 0u);
}

TEST(Index, ReachBelongsToTheHomeWhoeverLivesThere) {
  const auto index = MakeIndex(256);
  const std::vector<ChunkKey> of_100 = KeysOfHome(*index, 100, 2);
  const ChunkKey of_101 = KeysOfHome(*index, 101, 1)[0];
  const SlotId first = *InsertAt(index.get(), 100, of_100[0]);
  const SlotId second = *InsertAt(index.get(), 100, of_100[1]);
  const SlotId third = *InsertAt(index.get(), 101, of_101);
  EXPECT_EQ(second, 101u);
  EXPECT_EQ(third, 102u);
  index->Publish(third);
  index->Retire(second);  // a key of home 100 leaves slot 101, whose reach is of home 101
  shm::Found found;
  EXPECT_EQ(LookUp(*index, of_101, &found), Look::kReady);
  index->Retire(first);
  EXPECT_EQ(LookUp(*index, of_101, &found), Look::kReady);
  index->Retire(third);
  for (uint64_t at = 0; at < 256; ++at) {
    EXPECT_EQ(index->view().slots[at].attributes & 0xff00000000, 0u) << at;
  }
}

TEST(Index, FullWindowIsBusyUntilOneOfItLeaves) {
  const auto index = MakeIndex(256);
  const uint64_t home = 240;  // the window goes around the end
  const std::vector<ChunkKey> keys = KeysOfHome(*index, home, shm::kProbeSlots + 1);
  std::vector<SlotId> slots;
  for (size_t at = 0; at < shm::kProbeSlots; ++at) {
    const Result<SlotId> slot = InsertAt(index.get(), home, keys[at]);
    ASSERT_TRUE(slot.ok());
    EXPECT_EQ(*slot, (home + at) % 256);
    index->Publish(*slot);
    slots.push_back(*slot);
  }
  EXPECT_EQ(InsertAt(index.get(), home, keys.back()).status().code(), StatusCode::kBusy);
  EXPECT_EQ(index->used(), shm::kProbeSlots);
  shm::Found found;
  for (size_t at = 0; at < shm::kProbeSlots; ++at) {
    ASSERT_EQ(LookUp(*index, keys[at], &found), Look::kReady);
    EXPECT_EQ(found.slot, slots[at]);
  }
  EXPECT_EQ(LookUp(*index, keys.back(), &found), Look::kAbsent);
  index->Retire(slots[17]);
  const Result<SlotId> slot = InsertAt(index.get(), home, keys.back());
  ASSERT_TRUE(slot.ok());
  EXPECT_EQ(*slot, slots[17]);
}

TEST(Index, LiveWordsAreSkippedWhileInUseAndGivenAgainAfterwards) {
  const auto index = MakeIndex(64);
  for (uint32_t at = 0; at < shm::kLiveWordCount; ++at) {
    EXPECT_EQ(*index->AllocateLive(at + 1), at);
  }
  EXPECT_EQ(index->AllocateLive(5000).status().code(), StatusCode::kBusy);
  index->ClearLive(600);
  EXPECT_EQ(index->view().header->live[600], 0u);
  EXPECT_EQ(*index->AllocateLive(5000), 600u);
  EXPECT_EQ(index->view().header->live[600], 5000u);

  // Who still holds the old id compares unequal.
  const ChunkKey key = Key("one");
  const SlotId slot = *index->Insert(key, 601, index->Hash(key, 601), At(1), 1);
  index->Publish(slot);
  std::atomic<uint64_t> pin{0};
  shm::Found found;
  EXPECT_EQ(shm::FindAndPin(index->view(), key, {.id = 601, .live_index = 600},
                            index->Hash(key, 601), &pin, &found),
            Look::kStale);
}

TEST(Index, SegmentEntriesSayWhatToMap) {
  const auto index = MakeIndex(64);
  EXPECT_EQ(index->view().header->segments[5].generation, 0u);
  index->SetSegment(5, 3, 2 << 20);
  EXPECT_EQ(index->view().header->segments[5].generation, 3u);
  EXPECT_EQ(index->view().header->segments[5].bytes, 2u << 20);
  index->SetSegment(5, 0, 0);
  EXPECT_EQ(index->view().header->segments[5].generation, 0u);
}

// Random steps beside a std::map: a crowded table, keys that share their bytes.
class IndexModel {
 public:
  explicit IndexModel(uint64_t seed) : random_(seed) {
    for (size_t at = 0; at < kKeys; ++at) {
      // Every sixth has the bytes of another one and differs in length, part or namespace alone.
      std::string text = "key-" + std::to_string(at / 6 * 6);
      if (at % 6 == 1) text += '\0';
      names_.push_back(Name{Key(text, static_cast<uint16_t>(at % 6 == 2)),
                            static_cast<uint32_t>(at % 6 == 3 ? 8 : kNamespaceId)});
      if (at % 6 > 3) names_.back().key = Key("other-" + std::to_string(at));
    }
  }

  void Step() {
    const size_t at = Random(kKeys);
    const auto known = known_.find(at);
    if (known == known_.end()) {
      Insert(at);
    } else if (const uint64_t dice = Random(10); dice < 4) {
      index_->Retire(known->second.slot);
      known_.erase(known);
    } else if (known->second.state == SlotState::kFilling) {
      index_->Publish(known->second.slot);
      known->second.state = SlotState::kReady;
    } else {
      known->second.location = At(Random(4096));
      index_->Move(known->second.slot, known->second.location);
    }
    Check(at);
  }

  void CheckAll() {
    for (size_t at = 0; at < kKeys; ++at) Check(at);
    EXPECT_EQ(index_->used(), known_.size());
  }

  void RetireAll() {
    for (const auto& [at, known] : known_) index_->Retire(known.slot);
    known_.clear();
    CheckAll();
    for (uint64_t at = 0; at < kSlots; ++at) {
      EXPECT_EQ(index_->view().slots[at].attributes, 0u) << at;
    }
  }

  uint64_t busy() const { return busy_; }

 private:
  static constexpr uint64_t kSlots = 256;
  static constexpr size_t kKeys = 420;

  struct Name {
    ChunkKey key;
    uint32_t namespace_id;
  };
  struct Known {
    SlotId slot;
    shm::Location location;
    uint32_t length;
    SlotState state;
  };

  uint64_t Random(uint64_t below) { return random_() % below; }
  uint64_t HashOf(size_t at) const { return index_->Hash(names_[at].key, names_[at].namespace_id); }

  void Insert(size_t at) {
    const shm::Location location = At(Random(4096));
    const auto length = static_cast<uint32_t>(1 + Random(1 << 20));
    const Result<SlotId> slot =
        index_->Insert(names_[at].key, names_[at].namespace_id, HashOf(at), location, length);
    if (slot.ok()) {
      known_[at] = Known{*slot, location, length, SlotState::kFilling};
      return;
    }
    ASSERT_EQ(slot.status().code(), StatusCode::kBusy);
    ++busy_;
    for (uint64_t step = 0; step < shm::kProbeSlots; ++step) {
      const auto in_window = static_cast<SlotId>((HashOf(at) + step) & index_->view().mask);
      ASSERT_NE(index_->Read(in_window).state, SlotState::kAbsent) << "busy beside a free slot";
    }
  }

  void Check(size_t at) {
    shm::Found found;
    const Look look =
        shm::Find(index_->view(), names_[at].key, names_[at].namespace_id, HashOf(at), &found);
    const auto known = known_.find(at);
    if (known == known_.end()) {
      ASSERT_EQ(look, Look::kAbsent);
      return;
    }
    ASSERT_EQ(look, known->second.state == SlotState::kReady ? Look::kReady : Look::kFilling);
    ASSERT_EQ(found.slot, known->second.slot);
    ASSERT_EQ(found.location, known->second.location);
    ASSERT_EQ(found.length, known->second.length);
    ASSERT_EQ(found.version % 2, 0u);
    ASSERT_GE(found.version, versions_[found.slot]) << "a version went back";
    versions_[found.slot] = found.version;
  }

  std::mt19937_64 random_;
  std::unique_ptr<Index> index_ = MakeIndex(kSlots);
  std::vector<Name> names_;
  std::map<size_t, Known> known_;
  std::map<SlotId, uint64_t> versions_;
  uint64_t busy_ = 0;
};

TEST(Index, RandomStepsAgreeWithAMap) {
  const uint64_t seed = std::random_device{}();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  IndexModel model(seed);
  for (int step = 0; step < 100'000 && !testing::Test::HasFatalFailure(); ++step) {
    model.Step();
    if (step % 1000 == 0) model.CheckAll();
  }
  EXPECT_GT(model.busy(), 0u) << "the table was never crowded";
  model.RetireAll();
}

}  // namespace
}  // namespace terrace
