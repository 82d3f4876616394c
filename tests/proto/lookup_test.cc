// The reader's half by itself, over tables that the tests lay out by hand: no daemon.

#include "proto/shm/lookup.h"

#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>

#include <gtest/gtest.h>

namespace terrace::shm {
namespace {

constexpr uint64_t kSlots = 128;
constexpr NamespaceRef kNamespace{.id = 7, .live_index = 3};

ChunkKey Key(const char* text, uint16_t part = 0) {
  return ChunkKey::FromBytes(text, std::strlen(text), part);
}

// A table in plain memory.  Homes are the tests' own: `hash` is an argument of every look-up.
class LookupTest : public testing::Test {
 protected:
  LookupTest()
      : memory_(std::aligned_alloc(4096, IndexBytes(kSlots)), &std::free),
        header_(new (memory_.get()) IndexHeader{}),
        slots_(new (static_cast<char*>(memory_.get()) + kIndexHeaderBytes) Slot[kSlots]{}) {
    header_->magic = kIndexMagic;
    header_->layout_version = kIndexLayoutVersion;
    header_->shard_count = 1;
    header_->slot_count = kSlots;
    header_->segment_count = 16;
    header_->live[kNamespace.live_index] = kNamespace.id;
    view_ = ViewIndex(memory_.get());
  }

  void SetReach(uint64_t home, uint8_t reach) {
    SlotAttributes attributes = SlotAttributes::Unpack(slots_[home].attributes);
    attributes.reach = reach;
    slots_[home].attributes = attributes.Pack();
  }

  void Put(uint64_t at, const ChunkKey& key, SlotState state = SlotState::kReady,
           uint32_t namespace_id = kNamespace.id) {
    Slot& slot = slots_[at];
    for (size_t word = 0; word < key.words.size(); ++word) slot.key[word] = key.words[word];
    slot.location = At(at).Pack();
    slot.length_namespace = PackLengthNamespace(static_cast<uint32_t>(1000 + at), namespace_id);
    SlotAttributes attributes = SlotAttributes::Unpack(slot.attributes);
    attributes.part = key.part;
    attributes.key_length = key.length;
    attributes.state = state;
    slot.attributes = attributes.Pack();
    slot.version = slot.version + 2;
  }

  static Location At(uint64_t slot) {
    return Location{
        .segment = static_cast<uint32_t>(slot % 16), .generation = 5 + slot, .offset = 4096};
  }

  Look LookUp(uint64_t home, const ChunkKey& key) {
    found_ = {};
    return Find(view_, key, kNamespace.id, home, &found_);
  }
  Look PinIt(uint64_t home, const ChunkKey& key, NamespaceRef ns = kNamespace) {
    found_ = {};
    return FindAndPin(view_, key, ns, home, &pin_, &found_);
  }

  std::unique_ptr<void, decltype(&std::free)> memory_;
  IndexHeader* header_;
  Slot* slots_;
  IndexView view_;
  std::atomic<uint64_t> pin_{0};
  Found found_;
};

TEST_F(LookupTest, HitTellsWhereAndHowLong) {
  Put(12, Key("one"));
  SetReach(10, 3);
  EXPECT_EQ(LookUp(10, Key("one")), Look::kReady);
  EXPECT_EQ(found_.slot, 12u);
  EXPECT_EQ(found_.length, 1012u);
  EXPECT_EQ(found_.version, 2u);
  EXPECT_EQ(found_.location, At(12));
}

TEST_F(LookupTest, HighBitsOfTheHashDoNotMoveTheHome) {
  Put(10, Key("one"));
  SetReach(10, 1);
  EXPECT_EQ(LookUp(10 + 0xabcd * kSlots, Key("one")), Look::kReady);
}

TEST_F(LookupTest, MissIsAbsent) {
  EXPECT_EQ(LookUp(10, Key("one")), Look::kAbsent);
  Put(10, Key("two"));
  SetReach(10, 1);
  EXPECT_EQ(LookUp(10, Key("one")), Look::kAbsent);
}

TEST_F(LookupTest, RetiredSlotIsAbsentThoughItsKeyWordsRemain) {
  Put(10, Key("one"));
  SetReach(10, 1);
  Put(10, Key("one"), SlotState::kAbsent);
  EXPECT_EQ(LookUp(10, Key("one")), Look::kAbsent);
}

TEST_F(LookupTest, FillingIsSaidAndNeverPinned) {
  Put(10, Key("one"), SlotState::kFilling);
  SetReach(10, 1);
  EXPECT_EQ(LookUp(10, Key("one")), Look::kFilling);
  EXPECT_EQ(found_.slot, 10u);
  EXPECT_EQ(PinIt(10, Key("one")), Look::kFilling);
  EXPECT_EQ(pin_, 0u);
}

TEST_F(LookupTest, EqualBytesOfOtherLengthPartOrNamespaceAreOtherKeys) {
  // Zero-padded, "a" and "a\0" are the same 32 bytes.
  Put(10, ChunkKey::FromBytes("a\0", 2, 4));
  Put(11, Key("a", 5));
  Put(12, Key("a", 4), SlotState::kReady, kNamespace.id + 1);
  SetReach(10, 4);
  EXPECT_EQ(LookUp(10, Key("a", 4)), Look::kAbsent);
  Put(13, Key("a", 4));
  EXPECT_EQ(LookUp(10, Key("a", 4)), Look::kReady);
  EXPECT_EQ(found_.slot, 13u);
}

TEST_F(LookupTest, OnlyWhatIsWithinReachIsVisited) {
  // Whoever visited slot 12 would wait for it and say so.
  slots_[12].version = 1;
  SetReach(10, 2);
  EXPECT_EQ(LookUp(10, Key("one")), Look::kAbsent);
  SetReach(10, 3);
  EXPECT_EQ(LookUp(10, Key("one")), Look::kContended);
}

TEST_F(LookupTest, ReachBeyondTheProbeWindowIsCut) {
  slots_[10 + kProbeSlots].version = 1;
  SetReach(10, 255);
  EXPECT_EQ(LookUp(10, Key("one")), Look::kAbsent);
  Put(10 + kProbeSlots - 1, Key("one"));
  EXPECT_EQ(LookUp(10, Key("one")), Look::kReady);
}

TEST_F(LookupTest, ProbingWrapsAroundTheEnd) {
  Put(1, Key("one"));
  SetReach(kSlots - 2, 4);
  EXPECT_EQ(LookUp(kSlots - 2, Key("one")), Look::kReady);
  EXPECT_EQ(found_.slot, 1u);
}

TEST_F(LookupTest, SlotLeftOddIsContendedAndHidesNoOther) {
  Put(10, Key("one"));
  slots_[10].version = slots_[10].version + 1;
  SetReach(10, 2);
  EXPECT_EQ(LookUp(10, Key("one")), Look::kContended);
  EXPECT_EQ(PinIt(10, Key("one")), Look::kContended);
  EXPECT_EQ(pin_, 0u);
  Put(11, Key("two"));
  EXPECT_EQ(LookUp(10, Key("two")), Look::kReady);
}

TEST_F(LookupTest, PinNamesTheMemfdUntilUnpin) {
  Put(10, Key("one"));
  SetReach(10, 1);
  EXPECT_EQ(PinIt(10, Key("one")), Look::kReady);
  EXPECT_EQ(pin_, PinWord(At(10)));
  Unpin(&pin_);
  EXPECT_EQ(pin_, 0u);
}

TEST_F(LookupTest, EndedEpochIsStaleAndHoldsNothing) {
  Put(10, Key("one"));
  Put(11, Key("two"), SlotState::kFilling);
  SetReach(10, 2);
  for (uint64_t word : {uint64_t{0}, uint64_t{kNamespace.id + 1}}) {
    header_->live[kNamespace.live_index] = word;  // cleared, or given to another namespace
    EXPECT_EQ(PinIt(10, Key("one")), Look::kStale);
    EXPECT_EQ(pin_, 0u);
    EXPECT_EQ(PinIt(10, Key("two")), Look::kStale);
    EXPECT_EQ(pin_, 0u);
  }
}

TEST_F(LookupTest, LiveIndexOutOfBoundsStaysInsideTheHeader) {
  Put(10, Key("one"));
  SetReach(10, 1);
  NamespaceRef ns = kNamespace;
  ns.live_index += 5 * kLiveWordCount;
  EXPECT_EQ(PinIt(10, Key("one"), ns), Look::kReady);
}

TEST_F(LookupTest, CheckNamesWhatDiffersInAHeader) {
  const uint64_t bytes = IndexBytes(kSlots);
  EXPECT_EQ(CheckIndexHeader(*header_, bytes), nullptr);
  const auto refused = [&](const char* part, uint64_t mapped, const std::function<void()>& spoil) {
    const auto saved = std::make_unique<uint8_t[]>(64);
    std::memcpy(saved.get(), static_cast<void*>(header_), 64);
    spoil();
    const char* why = CheckIndexHeader(*header_, mapped);
    std::memcpy(static_cast<void*>(header_), saved.get(), 64);
    ASSERT_NE(why, nullptr) << part;
    EXPECT_NE(std::strstr(why, part), nullptr) << why;
  };
  refused("shorter than its header", kIndexHeaderBytes - 1, [] {});
  refused("shorter than its slots", bytes - 1, [] {});
  refused("not a Terrace index", bytes, [&] { header_->magic ^= 1; });
  refused("layout version", bytes, [&] { header_->layout_version = 2; });
  refused("slot count", bytes, [&] { header_->slot_count = 96; });
  refused("slot count", bytes, [&] { header_->slot_count = 32; });
  refused("slot count", bytes, [&] { header_->slot_count = uint64_t{1} << 32; });
  refused("shards", bytes, [&] { header_->shard_count = 2; });
  refused("segments", bytes, [&] { header_->segment_count = kSegmentCountMax + 1; });
}

}  // namespace
}  // namespace terrace::shm
