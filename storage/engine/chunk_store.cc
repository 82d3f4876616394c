#include "storage/engine/chunk_store.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "storage/base/clock.h"
#include "storage/base/limits.h"
#include "storage/engine/session_entry.h"

namespace terrace {
namespace {

// A pool of so many segments spares two, so that reclaim mostly runs before a put needs it.
constexpr uint32_t kStockedPoolSegments = 64;
constexpr uint32_t kStockSegments = 2;
// Slots looked at in one go: 2 ms where each holds a chunk to be dropped.
constexpr uint64_t kSlotsPerSlice = 4096;
constexpr int64_t kStockRetryNs = 10 * kNsPerMs;

// A look at the pin words of 64 sessions costs 0.2 ms.
constexpr int64_t kPinLookNs = 10 * kNsPerMs;
constexpr int64_t kPinPollNs = 100 * kNsPerMs;  // no one announces that a pin is gone

constexpr uint64_t kSlotBytes = 64;

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

// On NVMe records are taken to have 64 KiB: slots for the smallest would take more DRAM than they
// are worth.  Where they are smaller, or the device so large that its slots would take more than an
// eighth of `dram`, reclaim there begins before its room is used up.
uint64_t DefaultIndexSlots(const ChunkStoreOptions& options) {
  const uint64_t of_dram = SlotCountFor(options.dram_bytes);
  if (options.nvme.device == nullptr) return of_dram;
  const uint64_t wanted = of_dram + options.nvme.device->capacity_bytes() / (64 * kKiB) / 3 * 4;
  const uint64_t most = std::bit_floor(options.dram_bytes / 8 / kSlotBytes);
  return std::max(of_dram, std::min(std::bit_ceil(wanted), most));
}

}  // namespace

ChunkStore::ChunkStore(ChunkStoreOptions options) : options_(std::move(options)) {}

// The device still reads and writes segments until the tier is gone.
ChunkStore::~ChunkStore() {
  nvme_.reset();
  codec_.reset();
  segment_buffers_.reset();
}

Result<std::unique_ptr<ChunkStore>> ChunkStore::Create(const ChunkStoreOptions& options) {
  std::unique_ptr<ChunkStore> store(new ChunkStore(options));
  Status prepared = store->Prepare();
  if (!prepared.ok()) return prepared;
  return store;
}

Status ChunkStore::FillSizes(ChunkStoreOptions* options) {
  if (options->segment_bytes == 0) {
    options->segment_bytes = DefaultSegmentBytes(options->dram_bytes);
  }
  const uint64_t count = options->dram_bytes / options->segment_bytes;
  if (count < 4 || count > kSegmentCountMax) {
    return Status(StatusCode::kInvalid,
                  "dram = " + std::to_string(options->dram_bytes) + " bytes in segments of " +
                      std::to_string(options->segment_bytes) + " are " + std::to_string(count) +
                      " segments: 4 to 4096 are needed, so change `dram` or `segment`");
  }
  options->dram_bytes = count * options->segment_bytes;
  if (options->index_slots == 0) options->index_slots = DefaultIndexSlots(*options);
  return Status::Ok();
}

Status ChunkStore::Prepare() {
  Status sized = FillSizes(&options_);
  if (!sized.ok()) return sized;
  const uint64_t count = options_.dram_bytes / options_.segment_bytes;
  // Two of the largest records fill a segment: a larger one would waste up to all of the rest.
  chunk_bytes_max_ = static_cast<uint32_t>(
      std::min<uint64_t>(kChunkBytesMax, options_.segment_bytes / 2 - shm::kRecordHeaderBytes));

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
  namespaces_ = std::make_unique<NamespaceTable>(*index_);

  Result<std::unique_ptr<SegmentPool>> pool =
      SegmentPool::Create({.name = "terrace-" + options_.tenant,
                           .segment_bytes = options_.segment_bytes,
                           .segment_count = static_cast<uint32_t>(count),
                           .memory = options_.memory});
  if (!pool.ok()) return pool.status();
  pool_ = *std::move(pool);
  PublishSegments();
  random_ = options_.seed | 1;
  if (options_.wall_ms) history_.Begin(options_.wall_ms());
  return PrepareNvme();
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

SessionUse ChunkStore::UseOf(SessionId session) const {
  const auto found = sessions_.find(session);
  if (found == sessions_.end()) return {};
  return {.pins = pins_.CountPins(session),
          .claims = claims_.CountOf(session),
          .pinned_segments = pins_.CountPinnedSegments(session),
          .stranded_bytes = found->second.stranded_bytes};
}

bool ChunkStore::MayPin(SessionId session) const {
  const auto found = sessions_.find(session);
  if (found == sessions_.end() || found->second.closed) return false;
  return found->second.stranded_bytes < options_.dram_bytes / 8;
}

// ----------------------------------------------------------------------------- namespaces

Result<NamespaceInfo> ChunkStore::RegisterNamespace(const NamespaceSpec& spec) {
  return namespaces_->Register(spec);
}

std::vector<NamespaceInfo> ChunkStore::Namespaces() const { return namespaces_->All(); }

Result<NamespaceInfo> ChunkStore::FindNamespace(std::string_view label) const {
  return namespaces_->Find(label);
}

Result<NamespaceInfo> ChunkStore::BumpEpoch(std::string_view label) {
  if (const Result<NamespaceInfo> before = FindNamespace(label); before.ok()) {
    TagOf(before->ref.id);  // its chunks are still to leave
  }
  Result<NamespaceInfo> bumped = namespaces_->Bump(label);
  // Once around from where the sweep is now meets every chunk of the old id.
  if (bumped.ok()) {
    sweep_left_ = options_.index_slots;
    store_namespaces_ns_ = 0;  // somebody waits for it: tried at once
  }
  return bumped;
}

Result<uint64_t> ChunkStore::ClearNamespace(std::string_view label, uint64_t* cursor) {
  const Result<NamespaceInfo> info = FindNamespace(label);
  if (!info.ok()) return info.status();
  uint64_t dropped = 0;
  const uint64_t end = std::min(*cursor + kSlotsPerSlice, options_.index_slots);
  for (uint64_t slot = *cursor; slot < end; ++slot) {
    const uint32_t chunk = chunks_.OfSlot(static_cast<SlotId>(slot));
    if (chunk == kNoChunk) continue;
    if (index_->Read(static_cast<SlotId>(slot)).namespace_id != info->ref.id) continue;
    DropChunk(chunk, ChunkCause::kCleared);
    ++counts_.removed;
    ++dropped;
  }
  *cursor = end < options_.index_slots ? end : 0;
  return dropped;
}

// A slice a call, so that an epoch bump of a full pool never holds the shard up.
void ChunkStore::Sweep() {
  const uint64_t slice = std::min(kSlotsPerSlice, sweep_left_);
  for (uint64_t step = 0; step < slice; ++step) {
    const auto slot = static_cast<SlotId>(sweep_cursor_);
    sweep_cursor_ = (sweep_cursor_ + 1) % options_.index_slots;
    const uint32_t chunk = chunks_.OfSlot(slot);
    if (chunk == kNoChunk || namespaces_->OfId(index_->Read(slot).namespace_id) != nullptr) {
      continue;
    }
    DropChunk(chunk, ChunkCause::kEpochEnded);
  }
  sweep_left_ -= slice;
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
  stats.leased_keys = leases_.count();
  stats.index_slots = options_.index_slots;
  stats.index_used = index_->used();
  stats.fresh_memfds = pool_->memfds_made() - pool_->count();
  stats.policy = policy_->name();
  if (nvme_ == nullptr && !options_.nvme.unavailable.ok()) {
    stats.nvme.configured = true;
    stats.nvme.why_off = options_.nvme.unavailable.ToString();
  }
  if (nvme_ != nullptr) {
    stats.nvme = nvme_->stats();
    if (!store_namespaces_error_.ok()) {
      stats.nvme.namespaces_error = store_namespaces_error_.ToString();
    }
  }
  stats.segments.total = pool_->count();
  stats.segments.populated_bytes = pool_->populated_bytes();
  stats.segments.stranded = static_cast<uint32_t>(stranded_.size());
  stats.stranded_bytes = stranded_.size() * options_.segment_bytes;
  const PinCensus pinned = pins_.Census();
  for (uint32_t segment = 0; segment < pool_->count(); ++segment) {
    const Segment& at = pool_->at(segment);
    if (pinned.Has(segment, at.generation)) ++stats.segments.pinned;
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
  while (Claim* expired = claims_.Expired(now_ns)) {
    ++counts_.claims_ended;
    EndClaim(*expired, true, ChunkCause::kAbandoned);
  }
  while (const uint32_t chunk = leases_.Expired(now_ns)) EndLease(chunk);
  BuryTheDead(now_ns);
  Sweep();
  SealIdleTails(now_ns);
  if (pins_look_ns_ <= now_ns) {
    FinishDraining(now_ns);
    pins_look_ns_ = now_ns + kPinLookNs;
  }
  if (pool_->count() >= kStockedPoolSegments && pool_->free_count() < kStockSegments &&
      stock_retry_ns_ <= now_ns && !ReclaimUnpinned(now_ns)) {
    stock_retry_ns_ = now_ns + kStockRetryNs;
  }
  return NextTick(now_ns);
}

// Never at or before now unless there is work that only time slices hold back.
int64_t ChunkStore::NextTick(int64_t now_ns) const {
  if (sweep_left_ != 0) return now_ns;
  int64_t next = claims_.NextDeadline();
  const auto sooner = [&next](int64_t at) {
    if (at != 0) next = next == 0 ? at : std::min(next, at);
  };
  sooner(leases_.NextEnd());
  for (const auto& [session, entry] : sessions_) sooner(entry.buried_at_ns);
  for (const auto& [key, segment] : open_) {
    if (key.owner != kSurvivorsOwner) sooner(pool_->at(segment).appended_ns + kTailIdleNs);
  }
  if (WaitsForPins()) sooner(now_ns + kPinPollNs);
  return next;
}

}  // namespace terrace
