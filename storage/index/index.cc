#include "storage/index/index.h"

#include <algorithm>
#include <bit>
#include <new>
#include <string>

#include "storage/base/limits.h"

namespace terrace {
namespace {

using shm::SlotAttributes;
using shm::SlotState;

// The smallest record there is: a header and one page.
constexpr uint64_t kRecordBytesMin = shm::RecordBytes(1);

// Of Found::slot and the touch word: 31 bits.
constexpr uint64_t kSlotCountMax = uint64_t{1} << 31;

uint8_t ReachOf(uint64_t displaced) { return static_cast<uint8_t>(std::bit_width(displaced)); }

// The attributes word also holds the reach of the home, which belongs to other keys: every writer
// of the word keeps the half that is not its own.  One thread writes, so a relaxed load of what it
// stored itself, and a store, suffice.  The store is release like those of all words of a slot:
// what a reader takes from it must bring the odd version of the write before along (lookup.h).
void StoreReach(shm::Slot& home, uint8_t reach) {
  SlotAttributes attributes =
      SlotAttributes::Unpack(home.attributes.load(std::memory_order_relaxed));
  attributes.reach = reach;
  home.attributes.store(attributes.Pack(), std::memory_order_release);
}

void StoreOwn(shm::Slot& slot, SlotAttributes own) {
  own.reach = SlotAttributes::Unpack(slot.attributes.load(std::memory_order_relaxed)).reach;
  slot.attributes.store(own.Pack(), std::memory_order_release);
}

// A write of a slot's words.  Odd while it lives.  The words are stored with release, so who sees
// one of them sees the odd version as well; the even version is stored with release, so who sees it
// sees all of them.  `order` is seq_cst where the write takes something from readers: the scan of
// the pin words that follows must not be answered before readers can see the version (lookup.h).
// The closing store alone would do; the opening one is seq_cst too so that readers let go from the
// first moment, and so that neither depends on the other being there.
class SlotWrite {
 public:
  SlotWrite(shm::Slot& slot, std::memory_order order)
      : slot_(slot), order_(order), version_(slot.version.load(std::memory_order_relaxed)) {
    slot_.version.store(version_ + 1, order_);
  }
  SlotWrite(const SlotWrite&) = delete;
  SlotWrite& operator=(const SlotWrite&) = delete;
  ~SlotWrite() { slot_.version.store(version_ + 2, order_); }

 private:
  shm::Slot& slot_;
  const std::memory_order order_;
  const uint64_t version_;
};

}  // namespace

uint64_t SlotCountFor(uint64_t pool_bytes) {
  const uint64_t records = pool_bytes / kRecordBytesMin;
  return std::bit_ceil(std::max<uint64_t>(records + records / 3 + 1, shm::kProbeSlots));
}

Result<std::unique_ptr<Index>> Index::Create(const IndexOptions& options) {
  if (!std::has_single_bit(options.slot_count) || options.slot_count < shm::kProbeSlots ||
      options.slot_count > kSlotCountMax) {
    return Status(StatusCode::kInvalid, "index_slots = " + std::to_string(options.slot_count) +
                                            ": use a power of two between 64 and 2147483648");
  }
  TERRACE_CHECK(options.segment_count <= shm::kSegmentCountMax);
  const uint64_t bytes =
      (shm::IndexBytes(options.slot_count) + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
  Result<MemoryFile> memory = MemoryFile::Create("terrace-index", bytes, options.memory);
  if (!memory.ok()) return memory.status();

  std::unique_ptr<Index> index(new Index);
  index->memory_ = *std::move(memory);
  auto* header = new (index->memory_.mapping().writable_data()) shm::IndexHeader{};
  header->layout_version = shm::kIndexLayoutVersion;
  header->shard_count = 1;
  header->slot_count = options.slot_count;
  header->seed = options.seed;
  header->boot_epoch = options.boot_epoch;
  header->table_bytes = shm::IndexBytes(options.slot_count);
  header->segment_bytes = options.segment_bytes;
  header->segment_count = options.segment_count;
  header->chunk_bytes_max = options.chunk_bytes_max;
  header->magic = shm::kIndexMagic;
  index->view_ = shm::ViewIndex(index->memory_.mapping().data());
  index->displaced_.resize(options.slot_count);
  return index;
}

uint64_t Index::Hash(const shm::ChunkKey& key, uint32_t namespace_id) const {
  return shm::KeyHash(key, namespace_id, view_.seed);
}

// A fresh memfd is zero-filled, which is the empty state of every atomic in it.
shm::Slot& Index::slot(SlotId id) {
  auto* slots =
      reinterpret_cast<shm::Slot*>(memory_.mapping().writable_data() + shm::kIndexHeaderBytes);
  return slots[id];
}

shm::IndexHeader& Index::header() {
  return *reinterpret_cast<shm::IndexHeader*>(memory_.mapping().writable_data());
}

Result<SlotId> Index::Find(const shm::ChunkKey& key, uint32_t namespace_id, uint64_t hash) const {
  shm::Found found;
  const shm::Look look = shm::Find(view_, key, namespace_id, hash, &found);
  if (look == shm::Look::kAbsent || look == shm::Look::kContended) {
    return Status(StatusCode::kNotFound);
  }
  return found.slot;
}

Result<SlotId> Index::Insert(const shm::ChunkKey& key, uint32_t namespace_id, uint64_t hash,
                             const shm::Location& location, uint32_t length) {
  return InsertAs(key, namespace_id, hash, location.Pack(), length,
                  {.state = SlotState::kFilling, .tier = shm::SlotTier::kDram});
}

Result<SlotId> Index::InsertElsewhere(const shm::ChunkKey& key, uint32_t namespace_id,
                                      uint64_t hash, shm::SlotTier tier, uint32_t length) {
  TERRACE_CHECK(tier != shm::SlotTier::kDram);
  return InsertAs(key, namespace_id, hash, 0, length, {.state = SlotState::kReady, .tier = tier});
}

Result<SlotId> Index::InsertAs(const shm::ChunkKey& key, uint32_t namespace_id, uint64_t hash,
                               uint64_t location_word, uint32_t length, SlotAttributes own) {
  own.part = key.part;
  own.key_length = key.length;
  const uint64_t home = hash & view_.mask;
  for (uint64_t step = 0; step < shm::kProbeSlots; ++step) {
    const auto at = static_cast<SlotId>((home + step) & view_.mask);
    shm::Slot& free = slot(at);
    const SlotAttributes now =
        SlotAttributes::Unpack(free.attributes.load(std::memory_order_relaxed));
    if (now.state != SlotState::kAbsent) continue;

    // The reach first: who sees the key published must look far enough to find it.
    displaced_[home] |= uint64_t{1} << step;
    StoreReach(slot(static_cast<SlotId>(home)), ReachOf(displaced_[home]));
    // Release: an insert takes nothing from readers.
    const SlotWrite write(free, std::memory_order_release);
    for (size_t word = 0; word < key.words.size(); ++word) {
      free.key[word].store(key.words[word], std::memory_order_release);
    }
    free.location.store(location_word, std::memory_order_release);
    free.length_namespace.store(shm::PackLengthNamespace(length, namespace_id),
                                std::memory_order_release);
    StoreOwn(free, own);
    ++used_;
    return at;
  }
  return Status(StatusCode::kBusy, "no free slot within 64 of the key's home");
}

void Index::Publish(SlotId id) {
  shm::Slot& filled = slot(id);
  SlotAttributes own = SlotAttributes::Unpack(filled.attributes.load(std::memory_order_relaxed));
  TERRACE_CHECK(own.state == SlotState::kFilling);
  own.state = SlotState::kReady;
  // Release: who reads "ready" reads the header and the payload that the commit vouched for; and
  // nothing is taken from readers.
  const SlotWrite write(filled, std::memory_order_release);
  StoreOwn(filled, own);
}

void Index::Move(SlotId id, const shm::Location& location) {
  MoveTo(id, location.Pack(), shm::SlotTier::kDram);
}

void Index::MoveOut(SlotId id, shm::SlotTier tier) {
  TERRACE_CHECK(tier != shm::SlotTier::kDram);
  MoveTo(id, 0, tier);
}

void Index::MoveTo(SlotId id, uint64_t location_word, shm::SlotTier tier) {
  shm::Slot& moved = slot(id);
  SlotAttributes own = SlotAttributes::Unpack(moved.attributes.load(std::memory_order_relaxed));
  TERRACE_CHECK(own.state == SlotState::kReady);
  own.tier = tier;
  const SlotWrite write(moved, std::memory_order_seq_cst);
  moved.location.store(location_word, std::memory_order_release);
  StoreOwn(moved, own);
}

void Index::Retire(SlotId id) {
  const Entry entry = Read(id);
  TERRACE_CHECK(entry.state != SlotState::kAbsent);
  {
    shm::Slot& left = slot(id);
    const SlotWrite write(left, std::memory_order_seq_cst);
    StoreOwn(left, SlotAttributes{});
  }
  // The reach last: until the key is gone its slot stays within it.
  const uint64_t home = Hash(entry.key, entry.namespace_id) & view_.mask;
  const uint64_t step = (id - home) & view_.mask;
  TERRACE_CHECK(step < shm::kProbeSlots);
  displaced_[home] &= ~(uint64_t{1} << step);
  StoreReach(slot(static_cast<SlotId>(home)), ReachOf(displaced_[home]));
  --used_;
}

// Relaxed: this thread alone writes the words.
Index::Entry Index::Read(SlotId id) const {
  const shm::Slot& from = view_.slots[id];
  Entry entry;
  for (size_t word = 0; word < entry.key.words.size(); ++word) {
    entry.key.words[word] = from.key[word].load(std::memory_order_relaxed);
  }
  const SlotAttributes own =
      SlotAttributes::Unpack(from.attributes.load(std::memory_order_relaxed));
  const uint64_t length_namespace = from.length_namespace.load(std::memory_order_relaxed);
  entry.key.part = own.part;
  entry.key.length = own.key_length;
  entry.namespace_id = static_cast<uint32_t>(length_namespace >> 32);
  entry.length = static_cast<uint32_t>(length_namespace);
  entry.location = shm::Location::Unpack(from.location.load(std::memory_order_relaxed));
  entry.state = own.state;
  entry.tier = own.tier;
  entry.version = from.version.load(std::memory_order_relaxed);
  return entry;
}

Result<uint32_t> Index::AllocateLive(uint32_t namespace_id) {
  TERRACE_CHECK(namespace_id != 0);
  for (uint32_t at = 0; at < shm::kLiveWordCount; ++at) {
    if (header().live[at].load(std::memory_order_relaxed) != 0) continue;
    // Release: who sees the namespace live sees all that was prepared for it.
    header().live[at].store(namespace_id, std::memory_order_release);
    return at;
  }
  return Status(StatusCode::kBusy, "all 1024 live words are in use");
}

void Index::ClearLive(uint32_t live_index) {
  TERRACE_CHECK(live_index < shm::kLiveWordCount);
  // seq_cst: a scan of the pin words follows, as after Retire.
  header().live[live_index].store(0, std::memory_order_seq_cst);
}

void Index::SetSegment(uint32_t segment, uint64_t generation, uint64_t bytes) {
  TERRACE_CHECK(segment < shm::kSegmentCountMax);
  // Release, the generation last: who sees it sees the size of that memfd or of a later one.
  header().segments[segment].bytes.store(bytes, std::memory_order_release);
  header().segments[segment].generation.store(generation, std::memory_order_release);
}

}  // namespace terrace
