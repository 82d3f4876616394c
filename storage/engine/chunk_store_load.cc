// The way back into DRAM: one read a chunk however many wait for it, verified before anybody can
// find it.

#include <algorithm>
#include <cstring>

#include "storage/base/limits.h"
#include "storage/engine/chunk_store.h"
#include "storage/engine/nvme_tier.h"
#include "storage/engine/session_entry.h"
#include "storage/record/record.h"
#include "storage/tier/log_verify.h"

namespace terrace {
namespace {

// Of the pool, that loads may hold at once: the rest stays for what is ready.
constexpr uint64_t kLoadingShare = 4;

}  // namespace

Sought ChunkStore::FindOrLoad(SessionId session, uint32_t namespace_id, const shm::ChunkKey& key,
                              std::atomic<uint64_t>* pin, const LoadWish& wish, int64_t now_ns) {
  Sought sought;
  sought.status = StatusCode::kBusy;
  if (pin != nullptr && !MayPin(session)) return sought;
  sought.status = StatusCode::kStale;
  if (namespaces_->OfId(namespace_id) == nullptr) return sought;

  shm::Found found;
  const shm::Look look =
      shm::Find(index_->view(), key, namespace_id, index_->Hash(key, namespace_id), &found);
  if (look == shm::Look::kElsewhere) {
    const uint32_t chunk = chunks_.OfSlot(found.slot);
    TERRACE_CHECK(chunk != kNoChunk && nvme_ != nullptr);
    if (wish.deadline_ns <= now_ns) {  // nobody waits any more: only a look
      sought.loading = chunks_.at(chunk).loading;
      sought.status = StatusCode::kBusy;
      return sought;
    }
    const StatusCode begun = StartLoad(chunk, wish, now_ns);
    sought.loading = begun == StatusCode::kOk || begun == StatusCode::kBusy;
    sought.status = sought.loading || begun == StatusCode::kNoSpace ? StatusCode::kBusy : begun;
    return sought;
  }
  Result<ReadyChunk> ready = Find(namespace_id, key);
  sought.status = ready.status().code();
  if (!ready.ok()) return sought;
  sought.chunk = *ready;
  if (pin != nullptr) pin->store(shm::PinWord(ready->location), std::memory_order_seq_cst);
  return sought;
}

// kOk: it is under way.  kBusy: too much is, look again when something settles.  kNoSpace: the pool
// has no room for it.  Everything else: it cannot be had.
StatusCode ChunkStore::StartLoad(uint32_t chunk, const LoadWish& wish, int64_t now_ns) {
  if (chunks_.at(chunk).loading) {
    Hasten(chunk, wish);
    return StatusCode::kOk;
  }
  const Index::Entry entry = index_->Read(chunks_.at(chunk).slot);
  const uint64_t record_bytes = shm::RecordBytes(entry.length);
  // Prefetches leave room to those who wait.
  const uint64_t share = wish.io_class == IoClass::kDeadline ? kLoadingShare : 2 * kLoadingShare;
  const uint64_t loading_max = options_.dram_bytes / share;
  if (loading_bytes_ != 0 && loading_bytes_ + record_bytes > loading_max) return StatusCode::kBusy;
  std::span<uint8_t> encoded;
  if (IsEncoded(chunk)) {
    encoded = codec_->TakeRecord(shm::RecordBytes(chunks_.at(chunk).stored_bytes));
    if (encoded.empty()) return StatusCode::kBusy;
  }
  const uint64_t hash = index_->Hash(entry.key, entry.namespace_id);
  const Result<Room> room =
      Reserve(kTrustedOwner, policy_->ReuseClassOfAbsent(hash), record_bytes, now_ns);
  if (!room.ok()) {
    if (!encoded.empty()) codec_->GiveRecord(encoded);
    Note(entry.key, entry.namespace_id, entry.length, ChunkCause::kNoRoomToLoad);
    return StatusCode::kNoSpace;
  }

  Chunk& at = chunks_.at(chunk);
  Segment& to = pool_->at(room->segment);
  const Load load{.chunk = chunks_.TicketOf(chunk),
                  .segment = room->segment,
                  .offset = room->offset,
                  .place = at.nvme,
                  .identity = {.key = entry.key,
                               .namespace_id = entry.namespace_id,
                               .payload_bytes = entry.length},
                  .encoded = encoded};
  const Status begun = BeginLoad(load, wish, now_ns);
  if (!begun.ok()) {
    if (!encoded.empty()) codec_->GiveRecord(encoded);
    pool_->Unappend(room->segment, record_bytes);
    if (begun.code() == StatusCode::kBusy && loading_bytes_ == 0) return StatusCode::kNoSpace;
    if (begun.code() == StatusCode::kBusy) return begun.code();
    // Nothing is where it should be, or it cannot be read now: nobody is promised it again, and a
    // put heals it.
    ++nvme_->counts.load_failed;
    DropChunk(chunk, ChunkCause::kReadFailed);
    return begun.code() == StatusCode::kIoError ? StatusCode::kIoError : StatusCode::kNotFound;
  }
  at.loading = true;
  loads_.emplace(load.chunk.serial, LoadUnderWay{.wish = wish, .place = load.place});
  loading_bytes_ += record_bytes;
  ++nvme_->counts.loading;
  to.claimed_bytes += record_bytes;
  ++to.open_claims;  // reclaim waits for the read
  return StatusCode::kOk;
}

Status ChunkStore::BeginLoad(const Load& load, const LoadWish& wish, int64_t now_ns) {
  LogRead read{.place = load.place, .io_class = wish.io_class, .deadline_ns = wish.deadline_ns};
  if (load.encoded.empty()) {
    read.bytes = shm::RecordBytes(load.identity.payload_bytes);
    read.into = pool_->at(load.segment).memory.mapping().writable_data() + load.offset;
    read.buffer = segment_buffers_->Of(load.segment);
  } else {
    read.bytes = load.encoded.size();
    read.into = load.encoded.data();
    read.buffer = codec_->record_buffer();
  }
  return nvme_->log().Read(
      read, [this, load](const Status& status) { LoadDone(load, status); }, now_ns);
}

// The read takes the class and the deadline of whoever wants it most.
void ChunkStore::Hasten(uint32_t chunk, const LoadWish& wish) {
  LoadUnderWay& load = loads_.at(chunks_.TicketOf(chunk).serial);
  LoadWish& of_read = load.wish;
  if (wish.io_class >= of_read.io_class && wish.deadline_ns <= of_read.deadline_ns) return;
  of_read.io_class = std::min(of_read.io_class, wish.io_class);
  of_read.deadline_ns = std::max(of_read.deadline_ns, wish.deadline_ns);
  nvme_->log().Hasten(load.place, of_read.io_class, of_read.deadline_ns);
}

void ChunkStore::LoadDone(const Load& load, const Status& read) {
  if (!read.ok()) return EndLoad(load, read);
  if (!load.encoded.empty()) return StartDecoding(load);
  const uint8_t* const record = pool_->at(load.segment).memory.mapping().data() + load.offset;
  EndLoad(load, VerifyRecord({record, shm::RecordBytes(load.identity.payload_bytes)}, load.identity,
                             load.place));
}

// The record is in its room, verified, or `status` says why it is not.
void ChunkStore::EndLoad(const Load& load, const Status& status) {
  if (!load.encoded.empty()) codec_->GiveRecord(load.encoded);
  const uint64_t record_bytes = shm::RecordBytes(load.identity.payload_bytes);
  Segment& to = pool_->at(load.segment);
  to.claimed_bytes -= record_bytes;
  --to.open_claims;
  loading_bytes_ -= record_bytes;
  --nvme_->counts.loading;
  loads_.erase(load.chunk.serial);
  ++settled_;
  if (status.code() == StatusCode::kCorrupt) {
    ++nvme_->counts.load_corrupt;
    nvme_->log().NoteCorrupt(load.place);
  }
  // From here on the room is dead unless the chunk takes it.
  if (!chunks_.Lives(load.chunk)) return;
  Chunk& chunk = chunks_.at(load.chunk.chunk);
  chunk.loading = false;
  if (status.ok() && namespaces_->OfId(load.identity.namespace_id) != nullptr) {
    return TakeIntoDram(load);
  }
  // Still where it was, though nobody came to read it in time.
  const bool in_time =
      status.code() != StatusCode::kDeadline && status.code() != StatusCode::kCancelled;
  if (chunk.on_nvme() && !in_time) return;
  if (chunk.on_nvme() && !(chunk.nvme == load.place)) return;  // carried over meanwhile
  ++nvme_->counts.load_failed;
  ChunkCause why = in_time ? CauseOfFailedRead(status) : ChunkCause::kEvictedNvme;
  if (namespaces_->OfId(load.identity.namespace_id) == nullptr) why = ChunkCause::kEpochEnded;
  DropChunk(load.chunk.chunk, why);
}

void ChunkStore::TakeIntoDram(const Load& load) {
  Chunk& chunk = chunks_.at(load.chunk.chunk);
  Segment& to = pool_->at(load.segment);
  const uint32_t payload_bytes = load.identity.payload_bytes;
  const uint64_t record_bytes = shm::RecordBytes(payload_bytes);
  // The same record without its place in the log.
  auto* header =
      reinterpret_cast<shm::RecordHeader*>(to.memory.mapping().writable_data() + load.offset);
  uint64_t leaves[shm::kLeafCountMax];
  const uint32_t leaf_count = shm::LeafCount(payload_bytes);
  std::copy_n(header->leaves, leaf_count, leaves);
  BuildHeader(load.identity, leaves, header);

  to.live_bytes += record_bytes;
  to.padding_bytes += record_bytes - shm::kRecordHeaderBytes - payload_bytes;
  if (chunk.lease_until_ns != 0) to.leased_bytes += record_bytes;
  chunk.in_dram = true;
  chunk.segment = load.segment;
  chunk.record = static_cast<uint32_t>(to.records.size());
  to.records.push_back({.chunk = load.chunk.chunk,
                        .payload_bytes = payload_bytes,
                        .offset = load.offset,
                        .first_leaf = static_cast<uint32_t>(to.leaves.size())});
  to.leaves.insert(to.leaves.end(), leaves, leaves + leaf_count);
  chunk.policy = policy_->Insert(index_->Hash(load.identity.key, load.identity.namespace_id),
                                 static_cast<uint32_t>(record_bytes));
  index_->Move(chunk.slot,
               {.segment = load.segment, .generation = to.generation, .offset = load.offset});
  ++nvme_->counts.loads;
  nvme_->counts.load_bytes += payload_bytes;
  if (!chunk.on_nvme()) QueueDemotion(load.chunk.chunk);  // its segment was reclaimed meanwhile
}

}  // namespace terrace
