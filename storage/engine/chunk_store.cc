#include "storage/engine/chunk_store.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "storage/base/clock.h"
#include "storage/base/limits.h"
#include "storage/engine/session_entry.h"

namespace terrace {
namespace {

// Enough places that reclaim has a choice, few enough that a client maps them quickly.
uint64_t DefaultSegmentBytes(uint64_t pool_bytes) {
  if (pool_bytes > 256 * kGiB) return kSegmentBytesMax;
  const uint64_t share = std::max<uint64_t>(pool_bytes / 256, 1);
  uint64_t nearest = std::bit_floor(share);
  if (share - nearest > 2 * nearest - share) nearest *= 2;
  nearest = std::clamp<uint64_t>(nearest, 16 * kMiB, 256 * kMiB);
  while (nearest > kSegmentBytesMin && pool_bytes / nearest < 16) nearest /= 2;
  return nearest;
}

}  // namespace

ChunkStore::ChunkStore(ChunkStoreOptions options) : options_(std::move(options)) {}
ChunkStore::~ChunkStore() = default;

Result<std::unique_ptr<ChunkStore>> ChunkStore::Create(const ChunkStoreOptions& options) {
  std::unique_ptr<ChunkStore> store(new ChunkStore(options));
  Status prepared = store->Prepare();
  if (!prepared.ok()) return prepared;
  return store;
}

Status ChunkStore::Prepare() {
  if (options_.segment_bytes == 0)
    options_.segment_bytes = DefaultSegmentBytes(options_.dram_bytes);
  const uint64_t count = options_.dram_bytes / options_.segment_bytes;
  if (count < 4 || count > kSegmentCountMax) {
    return Status(StatusCode::kInvalid,
                  "dram = " + std::to_string(options_.dram_bytes) + " bytes in segments of " +
                      std::to_string(options_.segment_bytes) + " are " + std::to_string(count) +
                      " segments: 4 to 4096 are needed, so change `dram` or `segment`");
  }
  options_.dram_bytes = count * options_.segment_bytes;
  // Two of the largest records fill a segment: a larger one would waste up to all of the rest.
  chunk_bytes_max_ = static_cast<uint32_t>(
      std::min<uint64_t>(kChunkBytesMax, options_.segment_bytes / 2 - shm::kRecordHeaderBytes));
  if (options_.index_slots == 0) options_.index_slots = SlotCountFor(options_.dram_bytes);

  Result<std::unique_ptr<Policy>> policy = MakePolicy(options_.policy, options_.dram_bytes);
  if (!policy.ok()) return policy.status();
  policy_ = *std::move(policy);

  Result<std::unique_ptr<Index>> index =
      Index::Create({.slot_count = options_.index_slots,
                     .seed = options_.seed,
                     .boot_epoch = options_.boot_epoch,
                     .segment_bytes = options_.segment_bytes,
                     .segment_count = static_cast<uint32_t>(count),
                     .chunk_bytes_max = chunk_bytes_max_,
                     .memory = options_.memory});
  if (!index.ok()) return index.status();
  index_ = *std::move(index);
  chunks_.Resize(options_.index_slots);

  Result<std::unique_ptr<SegmentPool>> pool =
      SegmentPool::Create({.name = "terrace-" + options_.tenant,
                           .segment_bytes = options_.segment_bytes,
                           .segment_count = static_cast<uint32_t>(count),
                           .memory = options_.memory});
  if (!pool.ok()) return pool.status();
  pool_ = *std::move(pool);
  for (uint32_t segment = 0; segment < pool_->count(); ++segment) {
    index_->SetSegment(segment, pool_->at(segment).generation, options_.segment_bytes);
  }
  random_ = options_.seed | 1;
  return Status::Ok();
}

// ------------------------------------------------------------------------------- sessions

void ChunkStore::OpenSession(SessionId session, const SessionOptions& options,
                             std::atomic<uint64_t>* pins, uint32_t pin_count) {
  TERRACE_CHECK(session != kSurvivorsOwner && session != kTrustedOwner);
  pins_.Add(session, pins, pin_count);
  SessionEntry& entry = sessions_[session];
  entry.id = session;
  entry.options = options;
  entry.pins = pins;
  entry.pin_count = pin_count;
}

void ChunkStore::SessionClosed(SessionId session, int64_t /*now_ns*/) {
  const auto found = sessions_.find(session);
  if (found == sessions_.end() || found->second.closed) return;
  found->second.closed = true;
  EndClaimsOf(session, true);
  SealTailsOf(session);
}

void ChunkStore::SessionDied(SessionId session, int64_t now_ns) {
  const auto found = sessions_.find(session);
  if (found == sessions_.end() || found->second.buried_at_ns != 0) return;
  EndClaimsOf(session, true);
  SealTailsOf(session);
  found->second.closed = true;
  found->second.buried_at_ns = now_ns + options_.death_grace_ns;
}

// After the grace no late DMA of a dead process can reach our memory: its pins and poison go.
void ChunkStore::BuryTheDead(int64_t now_ns) {
  for (auto entry = sessions_.begin(); entry != sessions_.end();) {
    const SessionId session = entry->first;
    if (entry->second.buried_at_ns == 0 || entry->second.buried_at_ns > now_ns) {
      ++entry;
      continue;
    }
    pins_.Remove(session);
    for (const uint64_t claim : claims_.OfSession(session)) claims_.Remove(claim);
    for (uint32_t segment = 0; segment < pool_->count(); ++segment) {
      pool_->at(segment).poisons.erase(session);
      std::erase(pool_->at(segment).writers, session);
    }
    entry = sessions_.erase(entry);
  }
}

bool ChunkStore::PinsReleased(SessionId session) const { return !sessions_.contains(session); }

bool ChunkStore::MayPin(SessionId session) const {
  const auto found = sessions_.find(session);
  if (found == sessions_.end() || found->second.closed) return false;
  return found->second.stranded_bytes <= options_.dram_bytes / 8;
}

// ----------------------------------------------------------------------------- namespaces

Result<NamespaceInfo> ChunkStore::RegisterNamespace(const NamespaceSpec& spec) {
  if (spec.label.empty() || spec.label.size() > 256) {
    return Status(StatusCode::kInvalid, "a namespace's label has 1 to 256 bytes, not " +
                                            std::to_string(spec.label.size()));
  }
  if (spec.ranks == 0 || spec.groups.empty() || spec.ranks * spec.groups.size() > 65536) {
    return Status(StatusCode::kInvalid,
                  "ranks x groups of namespace '" + spec.label + "' must be 1 to 65536");
  }
  const auto found = namespaces_.find(spec.label);
  if (found != namespaces_.end()) {
    const std::optional<std::string> differs = DifferingField(found->second.spec, spec);
    if (!differs) return found->second;
    return Status(StatusCode::kInvalid, "namespace '" + spec.label +
                                            "' is registered with another " + *differs +
                                            ": use another label, or `terrace clear` it");
  }
  const uint32_t id = next_namespace_id_++;
  const Result<uint32_t> live = index_->AllocateLive(id);
  if (!live.ok()) return live.status();
  NamespaceInfo& info = namespaces_[spec.label];
  info.spec = spec;
  info.ref = shm::NamespaceRef{.id = id, .live_index = *live};
  live_[id] = spec.label;
  return info;
}

std::vector<NamespaceInfo> ChunkStore::Namespaces() const {
  std::vector<NamespaceInfo> all;
  for (const auto& [label, info] : namespaces_) all.push_back(info);
  return all;
}

Result<NamespaceInfo> ChunkStore::FindNamespace(std::string_view label) const {
  const auto found = namespaces_.find(label);
  if (found == namespaces_.end()) {
    return Status(StatusCode::kNotFound, "no namespace '" + std::string(label) + "'");
  }
  return found->second;
}

NamespaceInfo* ChunkStore::NamespaceOf(uint32_t namespace_id) {
  const auto found = live_.find(namespace_id);
  return found == live_.end() ? nullptr : &namespaces_.at(found->second);
}

Result<NamespaceInfo> ChunkStore::BumpEpoch(std::string_view label) {
  const auto found = namespaces_.find(label);
  if (found == namespaces_.end()) {
    return Status(StatusCode::kNotFound, "no namespace '" + std::string(label) + "'");
  }
  NamespaceInfo& info = found->second;
  // From this store on every get of the old id misses; the slots are swept later.
  index_->ClearLive(info.ref.live_index);
  live_.erase(info.ref.id);
  ended_namespaces_.push_back(info.ref.id);
  const uint32_t id = next_namespace_id_++;
  const Result<uint32_t> live = index_->AllocateLive(id);
  TERRACE_CHECK(live.ok());  // one was just given back
  info.ref = shm::NamespaceRef{.id = id, .live_index = *live};
  info.chunk_count = info.chunk_bytes = 0;
  ++info.epoch;
  live_[id] = info.spec.label;
  return info;
}

Result<uint64_t> ChunkStore::ClearNamespace(std::string_view label) {
  const Result<NamespaceInfo> info = FindNamespace(label);
  if (!info.ok()) return info.status();
  uint64_t dropped = 0;
  for (SlotId slot = 0; slot < options_.index_slots; ++slot) {
    const uint32_t chunk = chunks_.OfSlot(slot);
    if (chunk == kNoChunk || index_->Read(slot).namespace_id != info->ref.id) continue;
    DropChunk(chunk, Departure::kRemoved);
    ++counts_.removed;
    ++dropped;
  }
  return dropped;
}

// A slice of the index a call, so that an epoch bump of a full pool never holds the shard up.
void ChunkStore::Sweep() {
  constexpr uint64_t kSlotsPerSlice = 16384;
  if (ended_namespaces_.empty()) return;
  const uint64_t end = std::min(sweep_cursor_ + kSlotsPerSlice, options_.index_slots);
  for (; sweep_cursor_ < end; ++sweep_cursor_) {
    const uint32_t chunk = chunks_.OfSlot(static_cast<SlotId>(sweep_cursor_));
    if (chunk == kNoChunk) continue;
    const uint32_t id = index_->Read(static_cast<SlotId>(sweep_cursor_)).namespace_id;
    if (!live_.contains(id)) DropChunk(chunk, Departure::kRemoved);
  }
  if (sweep_cursor_ < options_.index_slots) return;
  sweep_cursor_ = 0;
  ended_namespaces_.erase(ended_namespaces_.begin());
}

// --------------------------------------------------------------------------------- memory

std::vector<SegmentDescriptor> ChunkStore::Descriptors(SessionId session) const {
  std::vector<SegmentDescriptor> all;
  for (uint32_t segment = 0; segment < pool_->count(); ++segment) {
    const Segment& from = pool_->at(segment);
    if (!from.memory.valid()) continue;
    const bool writable = std::count(from.writers.begin(), from.writers.end(), session) != 0;
    all.push_back({.segment = segment,
                   .generation = from.generation,
                   .bytes = options_.segment_bytes,
                   .writable = writable});
  }
  return all;
}

Result<UniqueFd> ChunkStore::OpenSegment(SessionId session, const SegmentDescriptor& wanted) {
  if (wanted.segment >= pool_->count()) return Status(StatusCode::kInvalid, "no such segment");
  const Segment& from = pool_->at(wanted.segment);
  if (!from.memory.valid() || from.generation != wanted.generation) {
    return Status(StatusCode::kStale);
  }
  if (!wanted.writable) return from.memory.OpenReadOnly();
  if (std::count(from.writers.begin(), from.writers.end(), session) == 0) {
    return Status(StatusCode::kDenied, "the segment is not leased to the session");
  }
  UniqueFd copy = from.memory.fd().Duplicate();
  if (!copy.valid()) return Status(StatusCode::kBusy, "no descriptor left: raise LimitNOFILE");
  return copy;
}

std::byte* ChunkStore::Address(const shm::Location& location) {
  if (location.segment >= pool_->count()) return nullptr;
  const Segment& at = pool_->at(location.segment);
  if (!at.memory.valid() || at.generation != location.generation) return nullptr;
  return reinterpret_cast<std::byte*>(at.memory.mapping().writable_data()) + location.offset;
}

ChunkStoreStats ChunkStore::stats() const {
  ChunkStoreStats stats = counts_;
  stats.dram_bytes = options_.dram_bytes;
  stats.segment_bytes = options_.segment_bytes;
  stats.page_bytes = pool_->at(0).memory.valid() ? pool_->at(0).memory.page_bytes() : 0;
  stats.chunk_count = chunks_.size();
  stats.filling_count = claims_.open_count();
  stats.index_slots = options_.index_slots;
  stats.index_used = index_->used();
  stats.fresh_memfds = pool_->memfds_made() - pool_->count();
  stats.policy = policy_->name();
  stats.segments.total = pool_->count();
  stats.segments.populated_bytes = pool_->populated_bytes();
  stats.segments.stranded = static_cast<uint32_t>(stranded_.size());
  stats.stranded_bytes = stranded_.size() * options_.segment_bytes;
  for (uint32_t segment = 0; segment < pool_->count(); ++segment) {
    const Segment& at = pool_->at(segment);
    if (at.memory.valid()) stats.page_bytes = std::min(stats.page_bytes, at.memory.page_bytes());
    stats.live_bytes += at.live_bytes - at.padding_bytes;
    stats.padding_bytes += at.padding_bytes;
    stats.dead_bytes += at.dead_bytes();
    stats.claimed_bytes += at.claimed_bytes;
    const uint64_t unfilled = options_.segment_bytes - at.fill_bytes;
    switch (at.state) {
      case SegmentState::kFree:
        ++stats.segments.free;
        stats.free_bytes += unfilled;
        break;
      case SegmentState::kOpen:
        ++stats.segments.open;
        stats.free_bytes += unfilled;
        break;
      case SegmentState::kSealed:
        ++stats.segments.sealed;
        stats.padding_bytes += unfilled;
        break;
      case SegmentState::kDraining:
        ++stats.segments.draining;
        stats.padding_bytes += unfilled;
        break;
      case SegmentState::kMissing:
        ++stats.segments.missing;
        stats.missing_bytes += unfilled;
        break;
    }
  }
  return stats;
}

// ----------------------------------------------------------------------------------- time

int64_t ChunkStore::Tick(int64_t now_ns) {
  constexpr int64_t kPollNs = 100 * kNsPerMs;  // for pins, which no one announces
  while (Claim* expired = claims_.Expired(now_ns)) {
    ++counts_.claims_ended;
    EndClaim(*expired, true);
  }
  BuryTheDead(now_ns);
  Sweep();
  SealTails(now_ns);
  FinishDraining(now_ns);
  if (pool_->count() >= 64 && pool_->free_count() < 2) ReclaimOne(now_ns);

  int64_t next = claims_.NextDeadline();
  const auto sooner = [&next](int64_t at) { next = next == 0 ? at : std::min(next, at); };
  if (!ended_namespaces_.empty()) sooner(now_ns);
  for (const auto& [session, entry] : sessions_) {
    if (entry.buried_at_ns != 0) sooner(entry.buried_at_ns);
  }
  for (const auto& [key, segment] : open_) {
    if (key.owner != kSurvivorsOwner) sooner(pool_->at(segment).appended_ns + kTailIdleNs);
  }
  for (uint32_t segment = 0; segment < pool_->count(); ++segment) {
    const SegmentState state = pool_->at(segment).state;
    if (state == SegmentState::kDraining || state == SegmentState::kMissing) {
      sooner(now_ns + kPollNs);
      break;
    }
  }
  if (!stranded_.empty()) sooner(now_ns + kPollNs);
  return next;
}

}  // namespace terrace
