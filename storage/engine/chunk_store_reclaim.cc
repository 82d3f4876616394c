// Reclaim: the cheapest victim of a sample, survivors carried over, pins waited for.
//
// The rule is measured (docs/decisions.md): by worth, never by age; a chunk is carried over only
// when it is worth more than the price of room, which is what the segment at the sample's tenth
// percentile gives a byte.

#include <algorithm>

#include "storage/base/limits.h"
#include "storage/base/log.h"
#include "storage/engine/chunk_store.h"
#include "storage/engine/session_entry.h"
#include "storage/mem/guarded_copy.h"
#include "storage/record/copy_hash.h"
#include "storage/record/record.h"

namespace terrace {
namespace {

constexpr uint32_t kSampleSegments = 64;
// Looked at again beside the sample: those that were cheapest when they were looked at last.  Worth
// fades slowly, so what a few reclaims have seen stands in for a look at the whole pool.
constexpr uint32_t kRememberedSegments = 16;
// Samples looked through for a victim without pins, before pinned ones are emptied: bounds the time
// that a put may wait in a pool full of pins.
constexpr int kSamplesMax = 4;
// A segment with less than one part in so many alive costs no more than the room that its content
// is carried to, however dear: the tail that a short-lived writer left goes before what is full.
// Of fuller segments that would be wrong: reckoned for all, the trace's prefix hit ratio at 10 %
// falls from .277 to .253, for what is dear is then carried about instead of being left alone.
constexpr uint64_t kSparseShare = 8;
constexpr uint32_t kAppraisedRecordsMax = 512;  // of a segment of many small records: a sample
// Pinned segments that are emptied at once, a share of the pool: more would throw content away for
// room that only comes back with the pins.
constexpr uint32_t kDrainingShare = 8;
// Stranded pages live beside the pool's own: at most a quarter more memory than was granted.
constexpr uint64_t kStrandedShare = 4;

}  // namespace

uint64_t ChunkStore::NextRandom() {  // SplitMix64
  uint64_t z = (random_ += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// What a segment is worth, and what its reclaim would cost.
struct ChunkStore::Victim {
  uint32_t segment = 0;
  double worth = 0;         // hits, summed over its live chunks
  double loss = 0;          // what its reclaim would cost; at most the worth
  bool waited_for = false;  // some wait to be written to NVMe: dropped now they would be lost
};

struct ChunkStore::Sampled {
  std::vector<Victim> victims;  // the cheapest first
  double price = 0;             // of room, a byte: the tenth percentile of the random ones
};

bool ChunkStore::IsCurrent(uint32_t segment, uint32_t record_index) const {
  const Chunk& chunk = chunks_.at(pool_->at(segment).records[record_index].chunk);
  return chunk.used && chunk.in_dram && chunk.segment == segment && chunk.record == record_index;
}

ChunkStore::Victim ChunkStore::Appraise(uint32_t segment) {
  Segment& at = pool_->at(segment);
  Victim victim{.segment = segment};
  at.last_loss = 0;
  if (at.live_bytes == 0) return victim;
  const auto count = static_cast<uint32_t>(at.records.size());
  const uint32_t stride = std::max(1u, count / kAppraisedRecordsMax);
  const bool writes_go_on = nvme_ != nullptr && nvme_->log().writes_pause_until_ns() == 0;
  for (uint32_t i = 0; i < count; i += stride) {
    if (!IsCurrent(segment, i)) continue;
    const Chunk& chunk = chunks_.at(at.records[i].chunk);
    const auto bytes = static_cast<double>(shm::RecordBytes(at.records[i].payload_bytes)) * stride;
    victim.worth += policy_->Worth(chunk.policy) * bytes;
    victim.waited_for |= (chunk.queued || chunk.urgent) && writes_go_on;
  }
  victim.loss = victim.worth;
  if (at.live_bytes * kSparseShare <= options_.segment_bytes) {
    victim.loss = std::min(victim.worth, last_price_ * static_cast<double>(at.live_bytes));
  }
  at.last_loss = victim.loss;
  return victim;
}

std::vector<uint32_t> ChunkStore::Candidates() const {
  std::vector<uint32_t> sealed;
  for (uint32_t segment = 0; segment < pool_->count(); ++segment) {
    const Segment& at = pool_->at(segment);
    if (at.state != SegmentState::kSealed || at.open_claims != 0 || at.io_holds != 0) continue;
    sealed.push_back(segment);
  }
  return sealed;
}

// Takes a sample out of the candidates; the cheapest first.
ChunkStore::Sampled ChunkStore::Sample(std::vector<uint32_t>* candidates) {
  Sampled sampled;
  std::vector<Victim>& victims = sampled.victims;
  while (!candidates->empty() && victims.size() < kSampleSegments) {
    std::swap((*candidates)[NextRandom() % candidates->size()], candidates->back());
    victims.push_back(Appraise(candidates->back()));
    candidates->pop_back();
  }
  if (victims.empty()) return sampled;
  std::sort(victims.begin(), victims.end(),
            [](const Victim& a, const Victim& b) { return a.worth < b.worth; });
  // A pool of few segments has no tenth percentile: the second cheapest, for the cheapest would
  // be measured against itself.
  const size_t at = std::min(std::max<size_t>(victims.size() / 10, 1), victims.size() - 1);
  sampled.price = victims[at].worth / static_cast<double>(options_.segment_bytes);
  last_price_ = sampled.price;

  const size_t remembered = std::min<size_t>(candidates->size(), kRememberedSegments);
  std::partial_sort(candidates->begin(), candidates->begin() + static_cast<ptrdiff_t>(remembered),
                    candidates->end(), [this](uint32_t a, uint32_t b) {
                      return pool_->at(a).last_loss < pool_->at(b).last_loss;
                    });
  for (size_t i = 0; i < remembered; ++i) victims.push_back(Appraise((*candidates)[i]));
  candidates->erase(candidates->begin(), candidates->begin() + static_cast<ptrdiff_t>(remembered));
  std::sort(victims.begin(), victims.end(), [](const Victim& a, const Victim& b) {
    return a.waited_for != b.waited_for ? b.waited_for : a.loss < b.loss;
  });
  return sampled;
}

// True when a segment became free; survivors may have taken another meanwhile.
bool ChunkStore::ReclaimOne(int64_t now_ns) {
  return FinishDraining(now_ns) || ReclaimUnpinned(now_ns) || EvacuatePinned(now_ns);
}

bool ChunkStore::ReclaimUnpinned(int64_t now_ns) {
  // Only to choose by: whether the victim is pinned in the end, Drain asks the words themselves.
  const PinCensus pinned = pins_.Census();
  std::vector<uint32_t> candidates = Candidates();
  for (int samples = 0; samples < kSamplesMax && !candidates.empty(); ++samples) {
    const Sampled sampled = Sample(&candidates);
    for (const Victim& victim : sampled.victims) {
      if (pinned.Has(victim.segment, pool_->at(victim.segment).generation)) continue;
      if (!Evacuate(victim, sampled.price, now_ns)) continue;
      Drain(victim.segment, now_ns);
      // Pinned in the meantime: it drains and holds back nothing but itself.
      if (pool_->at(victim.segment).state == SegmentState::kFree) return true;
    }
  }
  return false;
}

// All that were looked at are pinned: one is emptied, so that its room comes back with the last
// pin, or with a fresh memfd once the pins have outlived their lease.
bool ChunkStore::EvacuatePinned(int64_t now_ns) {
  uint32_t draining = 0;
  for (uint32_t segment = 0; segment < pool_->count(); ++segment) {
    if (pool_->at(segment).state == SegmentState::kDraining) ++draining;
  }
  if (draining >= std::max(1u, pool_->count() / kDrainingShare)) return false;
  std::vector<uint32_t> candidates = Candidates();
  for (const Victim& victim : Sample(&candidates).victims) {
    const double price = victim.worth / static_cast<double>(options_.segment_bytes);
    if (!Evacuate(victim, price, now_ns)) continue;
    Drain(victim.segment, now_ns);
    return pool_->at(victim.segment).state == SegmentState::kFree;
  }
  return false;
}

// Carries over what is leased or worth more than the price, drops the rest.  False, with nothing
// dropped, when leased chunks leave too little to gain or find no room.
bool ChunkStore::Evacuate(const Victim& victim, double price, int64_t now_ns) {
  const uint32_t segment = victim.segment;
  const uint64_t leased_bytes = pool_->at(segment).leased_bytes;
  if (leased_bytes > options_.segment_bytes / 4 * 3) return false;
  if (leased_bytes != 0 && !CarryLeased(segment, now_ns)) return false;

  ++counts_.reclaims;
  // Half a segment is always gained.
  uint64_t carried = leased_bytes;
  const auto count = static_cast<uint32_t>(pool_->at(segment).records.size());
  for (uint32_t i = 0; i < count; ++i) {
    if (!IsCurrent(segment, i)) continue;
    const SegmentRecord record = pool_->at(segment).records[i];
    const Chunk& chunk = chunks_.at(record.chunk);
    if (namespaces_->OfId(index_->Read(chunk.slot).namespace_id) == nullptr) {
      DropChunk(record.chunk, ChunkCause::kEpochEnded);  // its sweep is still to come
      continue;
    }
    const uint64_t record_bytes = shm::RecordBytes(record.payload_bytes);
    if (!chunk.on_nvme() && policy_->Worth(chunk.policy) > price &&
        carried + record_bytes <= options_.segment_bytes / 2 &&
        CarryOver(segment, record, now_ns)) {
      carried += record_bytes;
      continue;
    }
    if (!IsCurrent(segment, i)) continue;  // found damaged on the way, and dropped
    ++counts_.evicted;
    counts_.evicted_bytes += record.payload_bytes;
    if (chunks_.at(record.chunk).on_nvme()) {
      LeaveDram(record.chunk);
    } else {
      DropChunk(record.chunk, CauseOfLeavingDram(chunks_.at(record.chunk)));
    }
  }
  return true;
}

bool ChunkStore::CarryLeased(uint32_t segment, int64_t now_ns) {
  const auto count = static_cast<uint32_t>(pool_->at(segment).records.size());
  for (uint32_t i = 0; i < count; ++i) {
    if (!IsCurrent(segment, i)) continue;
    const SegmentRecord record = pool_->at(segment).records[i];
    if (chunks_.at(record.chunk).lease_until_ns <= now_ns) continue;
    if (!CarryOver(segment, record, now_ns) && IsCurrent(segment, i)) return false;
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

  // A client may still write to the source, or have punched a hole into it: each leaf is taken out
  // once, and what is judged is what is kept.
  alignas(64) uint8_t leaf[shm::kLeafBytes];
  uint64_t leaves[shm::kLeafCountMax];
  const uint32_t leaf_count = shm::LeafCount(record.payload_bytes);
  for (uint32_t i = 0; i < leaf_count; ++i) {
    const uint32_t at = i * shm::kLeafBytes;
    const size_t bytes = std::min(shm::kLeafBytes, record.payload_bytes - at);
    if (!GuardedCopy(leaf, source + at, bytes).ok()) {
      DropDamaged(segment, record.chunk);
      return false;
    }
    CopyAndHash(target + shm::kRecordHeaderBytes + at, leaf, bytes, &leaves[i]);
  }
  if (!std::equal(leaves, leaves + leaf_count, from.leaves.begin() + record.first_leaf)) {
    DropDamaged(segment, record.chunk);
    return false;
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
  if (chunk.lease_until_ns != 0) {
    from.leased_bytes -= record_bytes;
    to.leased_bytes += record_bytes;
  }
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
  counts_.moved_bytes += record.payload_bytes;
  return true;
}

// The room that was reserved for it stays dead.
void ChunkStore::DropDamaged(uint32_t segment, uint32_t chunk) {
  ++counts_.corrupt_moves;
  LogError("a chunk in segment " + std::to_string(segment) +
           " no longer has the bytes of its commit: dropped");
  if (chunks_.at(chunk).on_nvme()) return LeaveDram(chunk);  // as it was
  DropChunk(chunk, ChunkCause::kDamagedDram);
}

// REQUIRES: nothing in it is ready any more.
void ChunkStore::Drain(uint32_t segment, int64_t now_ns) {
  pool_->BeginDrain(segment, now_ns);
  if (!pins_.IsPinned(segment, pool_->at(segment).generation)) Release(segment);
}

void ChunkStore::Release(uint32_t segment) {
  if (pool_->at(segment).poisons.empty()) return pool_->Free(segment);
  pool_->Replace(segment);
  PublishSegments();
}

// True when a segment became free.
bool ChunkStore::FinishDraining(int64_t now_ns) {
  if (!WaitsForPins()) return false;
  const uint32_t free_before = pool_->free_count();
  // Their slots were taken away before: who is not in the census will not pin them any more.
  const PinCensus pinned = pins_.Census();
  bool memory_left = true;
  for (uint32_t segment = 0; segment < pool_->count(); ++segment) {
    const Segment& at = pool_->at(segment);
    if (at.state == SegmentState::kMissing && memory_left) memory_left = pool_->Refill(segment);
    if (at.state != SegmentState::kDraining) continue;
    if (!pinned.Has(segment, at.generation)) {
      Release(segment);
    } else if (now_ns - at.draining_since_ns > options_.pin_lease_ns &&
               MayStrand(pinned.SessionsOf(segment, at.generation))) {
      Strand(segment);
    }
  }
  PublishSegments();
  ReviewStranded(pinned);
  return pool_->free_count() > free_before;
}

// Not what the daemon itself reads: its mapping would go.
bool ChunkStore::MayStrand(const std::vector<SessionId>& sessions) const {
  if ((stranded_.size() + 1) * kStrandedShare > pool_->count()) return false;
  return std::none_of(sessions.begin(), sessions.end(), [this](SessionId session) {
    const auto entry = sessions_.find(session);
    return entry != sessions_.end() && entry->second.options.trusted;
  });
}

// The bytes under the pins stay what they are, in pages that only those clients still map.
void ChunkStore::Strand(uint32_t segment) {
  stranded_.push_back({.segment = segment, .generation = pool_->at(segment).generation});
  LogWarning("segment " + std::to_string(segment) +
             " is pinned past the lease time: its pages are stranded");
  pool_->Replace(segment);
}

bool ChunkStore::WaitsForPins() const {
  if (!stranded_.empty()) return true;
  for (uint32_t segment = 0; segment < pool_->count(); ++segment) {
    const SegmentState state = pool_->at(segment).state;
    if (state == SegmentState::kDraining || state == SegmentState::kMissing) return true;
  }
  return false;
}

// Charges each stranded segment to all who pin it, until nobody does.
void ChunkStore::ReviewStranded(const PinCensus& pinned) {
  for (auto& [session, entry] : sessions_) entry.stranded_bytes = 0;
  std::erase_if(stranded_, [&](const Stranded& old) {
    const std::vector<SessionId> sessions = pinned.SessionsOf(old.segment, old.generation);
    for (const SessionId session : sessions) {
      const auto entry = sessions_.find(session);
      if (entry != sessions_.end()) entry->second.stranded_bytes += options_.segment_bytes;
    }
    return sessions.empty();
  });
}

}  // namespace terrace
