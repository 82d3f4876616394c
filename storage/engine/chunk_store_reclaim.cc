// Room: open segments, the cheapest victim of a sample, survivors carried over, pins waited for.
//
// The rule is measured (docs/decisions.md): by worth, never by age; a chunk is carried over only
// when it is worth more than the price of room, which is what the segment at the sample's tenth
// percentile gives a byte.

#include <algorithm>
#include <cstring>

#include "storage/base/limits.h"
#include "storage/base/log.h"
#include "storage/engine/chunk_store.h"
#include "storage/engine/session_entry.h"
#include "storage/record/copy_hash.h"
#include "storage/record/record.h"

namespace terrace {
namespace {

constexpr uint32_t kSampleSegments = 64;
constexpr uint32_t kAppraisedRecordsMax = 512;  // of a segment of many small records: a sample
// Kept back for survivors, so that reclaim always has somewhere to carry to.
constexpr uint32_t kReserveSegments = 1;
constexpr int kReclaimTries = 8;

uint64_t NextRandom(uint64_t* state) {  // SplitMix64
  uint64_t z = (*state += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace

// What a segment is worth, whole.
struct ChunkStore::Victim {
  uint32_t segment = 0;
  double worth = 0;     // hits, summed over its live chunks
  bool leased = false;  // holds a chunk that must not go
};

Result<ChunkStore::Room> ChunkStore::Reserve(uint64_t owner, uint32_t reuse_class,
                                             uint64_t record_bytes, int64_t now_ns) {
  const OpenKey key{.owner = owner, .reuse_class = std::min(reuse_class, kReuseClassCount - 1)};
  Room room;
  const auto open = open_.find(key);
  if (open != open_.end()) {
    room.segment = open->second;
    if (pool_->Append(room.segment, record_bytes, &room.offset)) {
      pool_->at(room.segment).appended_ns = now_ns;
      return room;
    }
    pool_->Seal(room.segment);
    open_.erase(open);
  }
  const Result<uint32_t> taken = TakeSegment(owner, now_ns);
  if (!taken.ok()) return taken.status();
  room.segment = *taken;
  Segment& segment = pool_->at(room.segment);
  segment.owner = owner;
  segment.reuse_class = key.reuse_class;
  segment.appended_ns = now_ns;
  open_[key] = room.segment;
  if (segment.kind == SegmentKind::kLeased &&
      std::count(segment.writers.begin(), segment.writers.end(), owner) == 0) {
    segment.writers.push_back(owner);
    ++descriptor_epoch_;
  }
  TERRACE_CHECK(pool_->Append(room.segment, record_bytes, &room.offset));
  return room;
}

Result<uint32_t> ChunkStore::TakeSegment(uint64_t owner, int64_t now_ns) {
  const bool survivors = owner == kSurvivorsOwner;
  const SegmentKind kind =
      survivors || owner == kTrustedOwner ? SegmentKind::kDaemonFilled : SegmentKind::kLeased;
  if (!survivors) {
    for (int tries = 0; pool_->free_count() <= kReserveSegments; ++tries) {
      if (tries == kReclaimTries || !ReclaimOne(now_ns)) {
        return Status(StatusCode::kBusy, "the pool has no room");
      }
    }
  }
  const Result<uint32_t> opened = pool_->Open(kind);
  if (opened.ok()) {
    index_->SetSegment(*opened, pool_->at(*opened).generation, options_.segment_bytes);
  }
  return opened;
}

bool ChunkStore::IsCurrent(uint32_t segment, uint32_t record_index) const {
  const Chunk& chunk = chunks_.at(pool_->at(segment).records[record_index].chunk);
  return chunk.used && chunk.segment == segment && chunk.record == record_index;
}

ChunkStore::Victim ChunkStore::Appraise(uint32_t segment) const {
  const Segment& at = pool_->at(segment);
  Victim victim{.segment = segment};
  const auto count = static_cast<uint32_t>(at.records.size());
  const uint32_t stride = std::max(1u, count / kAppraisedRecordsMax);
  for (uint32_t i = 0; i < count; i += stride) {
    if (!IsCurrent(segment, i)) continue;
    const Chunk& chunk = chunks_.at(at.records[i].chunk);
    victim.leased |= chunk.lease_until_ns != 0;
    victim.worth += policy_->Worth(chunk.policy) * stride *
                    static_cast<double>(shm::RecordBytes(at.records[i].payload_bytes));
  }
  return victim;
}

std::vector<ChunkStore::Victim> ChunkStore::SampleVictims() {
  std::vector<uint32_t> sealed;
  for (uint32_t segment = 0; segment < pool_->count(); ++segment) {
    const Segment& at = pool_->at(segment);
    if (at.state == SegmentState::kSealed && at.open_claims == 0) sealed.push_back(segment);
  }
  const size_t wanted = std::min<size_t>(sealed.size(), kSampleSegments);
  std::vector<Victim> sample;
  for (size_t i = 0; i < wanted; ++i) {
    std::swap(sealed[i], sealed[i + NextRandom(&random_) % (sealed.size() - i)]);
    sample.push_back(Appraise(sealed[i]));
  }
  std::sort(sample.begin(), sample.end(),
            [](const Victim& a, const Victim& b) { return a.worth < b.worth; });
  return sample;
}

// One segment emptied; true when there is more room than before.  A pinned one is emptied too and
// drains, and the next is tried: pins hold back nothing but themselves.
bool ChunkStore::ReclaimOne(int64_t now_ns) {
  if (FinishDraining(now_ns)) return true;
  const std::vector<Victim> sample = SampleVictims();
  if (sample.empty()) return false;
  const double price =
      sample[sample.size() / 10].worth / static_cast<double>(options_.segment_bytes);
  const auto is_pinned = [this](const Victim& victim) {
    return pins_.IsPinned(victim.segment, pool_->at(victim.segment).generation);
  };
  for (const Victim& victim : sample) {
    if (is_pinned(victim) || !Evacuate(victim.segment, price, now_ns)) continue;
    ++counts_.reclaims;
    Drain(victim.segment, now_ns);
    if (pool_->at(victim.segment).state == SegmentState::kFree) return true;
  }
  // All are pinned: empty the cheapest, so that its room comes back with the last pin.
  for (const Victim& victim : sample) {
    if (pool_->at(victim.segment).state != SegmentState::kSealed) continue;
    if (!Evacuate(victim.segment, price, now_ns)) continue;
    ++counts_.reclaims;
    Drain(victim.segment, now_ns);
    return pool_->at(victim.segment).state == SegmentState::kFree;
  }
  return false;
}

// Carries over what is leased or worth more than the price, drops the rest.  False, with nothing
// dropped, when a leased chunk found no room.
bool ChunkStore::Evacuate(uint32_t segment, double price, int64_t now_ns) {
  const auto count = static_cast<uint32_t>(pool_->at(segment).records.size());
  for (uint32_t i = 0; i < count; ++i) {
    if (!IsCurrent(segment, i)) continue;
    const SegmentRecord record = pool_->at(segment).records[i];
    if (chunks_.at(record.chunk).lease_until_ns <= now_ns) continue;
    if (!CarryOver(segment, record, now_ns) && IsCurrent(segment, i)) return false;
  }
  for (uint32_t i = 0; i < count; ++i) {
    if (!IsCurrent(segment, i)) continue;
    const SegmentRecord record = pool_->at(segment).records[i];
    if (policy_->Worth(chunks_.at(record.chunk).policy) > price &&
        CarryOver(segment, record, now_ns)) {
      continue;
    }
    if (!IsCurrent(segment, i)) continue;  // found damaged on the way, and dropped
    ++counts_.evicted;
    counts_.evicted_bytes += record.payload_bytes;
    DropChunk(record.chunk, Departure::kEvicted);
  }
  return true;
}

// Moves a record into a survivors' segment, verified against the leaf table kept since its commit.
// False when there is no room (nothing changed), or the bytes differ (the chunk is dropped).
bool ChunkStore::CarryOver(uint32_t segment, const SegmentRecord& record, int64_t now_ns) {
  const uint32_t reuse_class = policy_->ReuseClass(chunks_.at(record.chunk).policy);
  const uint64_t record_bytes = shm::RecordBytes(record.payload_bytes);
  const Result<Room> room = Reserve(kSurvivorsOwner, reuse_class, record_bytes, now_ns);
  if (!room.ok()) return false;
  Segment& from = pool_->at(segment);
  Segment& to = pool_->at(room->segment);
  const uint8_t* source = from.memory.mapping().data() + record.offset + shm::kRecordHeaderBytes;
  uint8_t* target = to.memory.mapping().writable_data() + room->offset;

  uint64_t leaves[shm::kLeafCountMax];
  const uint32_t leaf_count = shm::LeafCount(record.payload_bytes);
  CopyAndHash(target + shm::kRecordHeaderBytes, source, record.payload_bytes, leaves);
  if (!std::equal(leaves, leaves + leaf_count, from.leaves.begin() + record.first_leaf)) {
    ++counts_.corrupt_moves;
    LogError("a chunk in segment " + std::to_string(segment) +
             " no longer has the bytes of its commit: dropped");
    DropChunk(record.chunk, Departure::kRemoved);
    return false;  // the room stays dead
  }
  Chunk& chunk = chunks_.at(record.chunk);
  const Index::Entry entry = index_->Read(chunk.slot);
  BuildHeader(
      {.key = entry.key, .namespace_id = entry.namespace_id, .payload_bytes = record.payload_bytes},
      leaves, reinterpret_cast<shm::RecordHeader*>(target));
  const uint64_t padding = record_bytes - shm::kRecordHeaderBytes - record.payload_bytes;
  from.live_bytes -= record_bytes;
  from.padding_bytes -= padding;
  to.live_bytes += record_bytes;
  to.padding_bytes += padding;
  chunk.segment = room->segment;
  chunk.record = static_cast<uint32_t>(to.records.size());
  to.records.push_back({.chunk = record.chunk,
                        .payload_bytes = record.payload_bytes,
                        .offset = room->offset,
                        .first_leaf = static_cast<uint32_t>(to.leaves.size())});
  to.leaves.insert(to.leaves.end(), leaves, leaves + leaf_count);
  index_->Move(chunk.slot,
               {.segment = room->segment, .generation = to.generation, .offset = room->offset});
  ++counts_.moved;
  counts_.moved_bytes += record_bytes;
  return true;
}

// REQUIRES: nothing in it is ready any more.
void ChunkStore::Drain(uint32_t segment, int64_t now_ns) {
  pool_->BeginDrain(segment, now_ns);
  const Segment& at = pool_->at(segment);
  if (!pins_.IsPinned(segment, at.generation)) Release(segment);
}

void ChunkStore::Release(uint32_t segment) {
  if (!pool_->at(segment).poisons.empty()) {
    pool_->Replace(segment);
  } else {
    pool_->Free(segment);
  }
}

// True when a segment became free.
bool ChunkStore::FinishDraining(int64_t now_ns) {
  bool freed = false;
  for (uint32_t segment = 0; segment < pool_->count(); ++segment) {
    const Segment& at = pool_->at(segment);
    if (at.state == SegmentState::kMissing) freed |= pool_->Refill(segment);
    if (at.state != SegmentState::kDraining) continue;
    if (!pins_.IsPinned(segment, at.generation)) {
      Release(segment);
    } else if (now_ns - at.draining_since_ns > options_.pin_lease_ns) {
      Strand(segment);
    }
    freed |= at.state == SegmentState::kFree;
  }
  std::erase_if(stranded_, [this](const Stranded& old) {
    return !pins_.IsPinned(old.segment, old.generation);
  });
  for (auto& [session, entry] : sessions_) entry.stranded_bytes = 0;
  for (const Stranded& old : stranded_) {
    for (const SessionId session : old.sessions) {
      const auto entry = sessions_.find(session);
      if (entry != sessions_.end()) entry->second.stranded_bytes += options_.segment_bytes;
    }
  }
  return freed;
}

// The bytes under the pins stay what they are, in pages that only those clients still map.
void ChunkStore::Strand(uint32_t segment) {
  const uint64_t generation = pool_->at(segment).generation;
  stranded_.push_back({.segment = segment,
                       .generation = generation,
                       .sessions = pins_.PinnedBy(segment, generation)});
  LogWarning("segment " + std::to_string(segment) +
             " is pinned past the lease time: its pages are stranded");
  pool_->Replace(segment);
}

void ChunkStore::SealTails(int64_t now_ns) {
  for (auto open = open_.begin(); open != open_.end();) {
    const Segment& at = pool_->at(open->second);
    const bool idle = open->first.owner != kSurvivorsOwner && at.open_claims == 0 &&
                      now_ns - at.appended_ns >= kTailIdleNs;
    if (idle) pool_->Seal(open->second);
    open = idle ? open_.erase(open) : std::next(open);
  }
}

void ChunkStore::SealTailsOf(SessionId session) {
  for (auto open = open_.begin(); open != open_.end();) {
    const bool mine = open->first.owner == session;
    if (mine) pool_->Seal(open->second);
    open = mine ? open_.erase(open) : std::next(open);
  }
}

}  // namespace terrace
