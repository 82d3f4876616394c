// The way out of DRAM: write-behind to the NVMe log, what the log holds after a start, and the
// namespaces that are kept beside it.
//
// A record is written under a header that is made of the slot and of the leaf table kept since the
// commit.  No record goes to the device before the id of its namespace is in the device's table, or
// another namespace could be given that id after a crash.

#include <algorithm>
#include <utility>

#include "storage/base/clock.h"
#include "storage/base/limits.h"
#include "storage/base/log.h"
#include "storage/engine/chunk_store.h"
#include "storage/engine/namespace_codec.h"
#include "storage/engine/nvme_tier.h"
#include "storage/mem/guarded_copy.h"
#include "storage/record/copy_hash.h"
#include "storage/record/record.h"

namespace terrace {
namespace {

// Hashed and handed to the log between two looks at the rings: 1 ms.
constexpr uint64_t kDemoteBytesPerPoll = 4 * kMiB;
// Left for records that are carried within the log.
constexpr uint64_t kDemotingMax = kLogAppendsMax - 2;
// DRAM segments that writes may hold back from reclaim, a share of the pool.
constexpr uint32_t kHeldShare = 4;
// Free log segments that only survivors may take.
constexpr uint32_t kLogReserveSegments = 1;
constexpr int64_t kNvmeRetryNs = kNsPerSecond;
constexpr int64_t kNvmeRetryNsMax = 60 * kNsPerSecond;

}  // namespace

// --------------------------------------------------------------------------------- start

Status ChunkStore::PrepareNvme() {
  if (options_.nvme.device == nullptr) return Status::Ok();
  Result<std::unique_ptr<NvmeTier>> made =
      NvmeTier::Create(options_.nvme, options_.tenant, options_.policy);
  if (!made.ok()) return made.status();
  nvme_ = *std::move(made);
  segment_buffers_ = std::make_unique<SegmentBuffers>(nvme_->device(), *pool_);
  if (options_.nvme.encode) PrepareCodec();
  nvme_->Begin({.named = [this](const std::vector<std::string>& blobs) { return Named(blobs); },
                .recovered = [this](const RecoveredRecord& record) { RecoverRecord(record); },
                .ended = [this] { ++settled_; }});
  return Status::Ok();
}

Status ChunkStore::Named(const std::vector<std::string>& blobs) {
  std::vector<std::string> damage;
  const Result<StoredNamespaces> stored = DecodeNamespaces(blobs, &damage);
  if (!stored.ok()) return stored.status();
  for (const NamespaceInfo& info : stored->all) {
    const Status restored = namespaces_->Restore(info);
    if (!restored.ok()) damage.push_back(info.spec.label + ": " + restored.ToString());
  }
  for (const std::string& what : damage) LogError("nvme: " + what);
  if (shm::RecordBytes(chunk_bytes_max_) > nvme_->log().record_bytes_max()) {
    LogWarning("nvme: chunks above " +
               std::to_string(nvme_->log().record_bytes_max() - shm::kRecordHeaderBytes) +
               " bytes stay in DRAM: they fit no segment of the log, raise nvme_segment");
  }
  namespaces_->RaiseNextId(stored->next_id);
  stored_next_id_ = stored->next_id;
  stored_version_ = namespaces_->version();
  return Status::Ok();
}

void ChunkStore::RecoverRecord(const RecoveredRecord& record) {
  const RecordIdentity& identity = record.identity;
  // Only on a disk that lied does the table lag behind the records.  What it gave out once stays
  // given, or another namespace would find these.
  if (namespaces_->next_id() != 0 && identity.namespace_id >= namespaces_->next_id()) {
    namespaces_->RaiseNextId(identity.namespace_id + 1);
  }
  const uint64_t hash = index_->Hash(identity.key, identity.namespace_id);
  // A chunk longer than this pool takes could never be loaded.
  bool wanted = record.stored_bytes <= identity.payload_bytes &&
                identity.payload_bytes <= chunk_bytes_max_ && identity.key.valid() &&
                identity.key.zero_padded() && namespaces_->OfId(identity.namespace_id) != nullptr;
  if (record.stored_bytes != identity.payload_bytes) wanted = wanted && PrepareCodec();
  if (wanted) {
    const Result<SlotId> earlier = index_->Find(identity.key, identity.namespace_id, hash);
    if (earlier.ok()) {
      const uint32_t chunk = chunks_.OfSlot(*earlier);
      wanted = record.append_number > nvme_->recovered_number(chunk);
      // The key was dropped and put again, or carried over: it is the later one.
      if (wanted) {
        DropChunk(chunk, ChunkCause::kNone);
        --nvme_->counts.recovered;
        ++nvme_->counts.refused;
      }
    }
  }
  Result<SlotId> slot = Status(StatusCode::kNotFound);
  if (wanted) {
    slot = index_->InsertElsewhere(identity.key, identity.namespace_id, hash, shm::SlotTier::kNvme,
                                   identity.payload_bytes);
  }
  if (!slot.ok()) {
    ++nvme_->counts.refused;
    nvme_->log().MarkDead(record.place, record.stored_bytes);
    return;
  }
  const uint32_t chunk = chunks_.Add(*slot);
  AddReplica(chunk, record.place, record.stored_bytes);
  nvme_->NoteRecovered(chunk, record.append_number);
  namespaces_->Count(identity.namespace_id, 1, identity.payload_bytes);
  ++nvme_->counts.recovered;
}

bool ChunkStore::NvmeStarted() const {
  return nvme_ == nullptr || nvme_->ready() || nvme_->state() == NvmeState::kOff;
}

void ChunkStore::GiveUpNvme(const Status& why) {
  if (nvme_ != nullptr && !NvmeStarted()) nvme_->TurnOff(why);
}

const Status& ChunkStore::nvme_why_off() const {
  return nvme_ == nullptr ? options_.nvme.unavailable : nvme_->why_off();
}

SegmentLog::Written ChunkStore::NvmeWritten() const {
  return nvme_ != nullptr && nvme_->ready() ? nvme_->log().LongestWritten() : SegmentLog::Written{};
}

uint64_t ChunkStore::NvmeBytesWritten() const {
  return nvme_ != nullptr ? nvme_->log().stats().writes.written_bytes : 0;
}

// ---------------------------------------------------------------------------- namespaces

void ChunkStore::StoreNamespaces(int64_t now_ns) {
  if (storing_namespaces_ || namespaces_->version() == stored_version_) return;
  if (now_ns < store_namespaces_ns_) return;
  const uint64_t version = namespaces_->version();
  const uint32_t next_id = namespaces_->next_id();
  const auto done = [this, version, next_id](const Status& status) {
    storing_namespaces_ = false;
    store_namespaces_error_ = status;
    tried_version_ = version;
    ++settled_;  // who waits for it looks again
    if (status.ok()) {
      stored_version_ = version;
      stored_next_id_ = next_id;
      store_namespaces_backoff_ns_ = 0;
      return;
    }
    store_namespaces_backoff_ns_ =
        std::clamp(2 * store_namespaces_backoff_ns_, kNvmeRetryNs, kNvmeRetryNsMax);
    store_namespaces_ns_ = nvme_now_ns_ + store_namespaces_backoff_ns_;
    LogError("nvme: the namespace table cannot be written: " + status.ToString());
  };
  const Status begun =
      nvme_->log().ReplaceNamespaces(EncodeNamespaces(next_id, namespaces_->All()), done);
  storing_namespaces_ = true;
  if (!begun.ok()) done(begun);
}

Status ChunkStore::NamespacesStored(uint64_t version) const {
  // A device that is away now is read again at some later start.
  const bool wished = nvme_ != nullptr || !options_.nvme.unavailable.ok();
  if (!wished || stored_version_ >= version) return Status::Ok();
  const bool off = !nvme_why_off().ok();
  const Status& why = off ? nvme_why_off() : store_namespaces_error_;
  if (why.ok() || (!off && tried_version_ < version)) {
    return Status(StatusCode::kBusy, "the namespace table is being written");
  }
  return Status(StatusCode::kIoError,
                "it holds until the daemon restarts, and is not on NVMe: " + why.ToString());
}

bool ChunkStore::NamespaceStored(uint32_t namespace_id) const {
  return stored_next_id_ == 0 || namespace_id < stored_next_id_;
}

// ------------------------------------------------------------------------------ replicas

void ChunkStore::AddReplica(uint32_t chunk, const LogPlace& place, uint32_t stored_bytes) {
  Chunk& at = chunks_.at(chunk);
  const Index::Entry entry = index_->Read(at.slot);
  at.nvme = place;
  at.stored_bytes = stored_bytes;
  at.nvme_policy = nvme_->policy().Insert(index_->Hash(entry.key, entry.namespace_id),
                                          static_cast<uint32_t>(shm::RecordBytes(stored_bytes)));
  if (stored_bytes != entry.length) {
    ++nvme_->counts.encoded_chunks;
    nvme_->counts.encoded_bytes += stored_bytes;
    nvme_->counts.encoded_payload_bytes += entry.length;
  }
  nvme_->residents(place.segment)
      .push_back({.chunk = chunks_.TicketOf(chunk), .offset_units = place.offset_units});
  ++nvme_->counts.chunk_count;
}

void ChunkStore::ForgetReplica(uint32_t chunk, Departure why) {
  Chunk& at = chunks_.at(chunk);
  nvme_->log().MarkDead(at.nvme, at.stored_bytes);
  if (const uint32_t length = index_->Read(at.slot).length; at.stored_bytes != length) {
    --nvme_->counts.encoded_chunks;
    nvme_->counts.encoded_bytes -= at.stored_bytes;
    nvme_->counts.encoded_payload_bytes -= length;
  }
  nvme_->policy().Remove(at.nvme_policy, why);
  at.nvme = LogPlace{};
  --nvme_->counts.chunk_count;
}

// What is being loaded is judged when it is there.
bool ChunkStore::DropReplica(uint32_t chunk, ChunkCause why) {
  const Chunk& at = chunks_.at(chunk);
  if (at.in_dram || at.loading) {
    ForgetReplica(chunk, DepartureOf(why));
    if (DepartureOf(why) == Departure::kEvicted) {
      chunks_.at(chunk).unwritten = ChunkCause::kEvictedBoth;
    }
    return false;
  }
  DropChunk(chunk, why);
  return true;
}

// REQUIRES: it is in DRAM and on NVMe.
void ChunkStore::LeaveDram(uint32_t chunk) {
  ForgetRecord(chunk, Departure::kEvicted);
  index_->MoveOut(chunks_.at(chunk).slot, shm::SlotTier::kNvme);
}

void ChunkStore::DropQuarantined() {
  for (const uint32_t segment : nvme_->log().TakeQuarantined()) {
    LogError("nvme: segment " + std::to_string(segment) + " failed too often and is given up");
    std::vector<NvmeTier::Resident> residents = std::move(nvme_->residents(segment));
    nvme_->residents(segment).clear();
    for (const NvmeTier::Resident& resident : residents) {
      if (Resides(resident, segment)) DropReplica(resident.chunk.chunk, ChunkCause::kQuarantined);
    }
  }
}

bool ChunkStore::Resides(const NvmeTier::Resident& resident, uint32_t segment) const {
  if (!chunks_.Lives(resident.chunk)) return false;
  const LogPlace& place = chunks_.at(resident.chunk.chunk).nvme;
  return place.sequence != 0 && place.segment == segment &&
         place.sequence == nvme_->log().segments()->at(segment).sequence &&
         place.offset_units == resident.offset_units;
}

// ------------------------------------------------------------------------------ demotion

void ChunkStore::QueueDemotion(uint32_t chunk) {
  if (nvme_ == nullptr || !nvme_->device().writable()) return;
  Chunk& at = chunks_.at(chunk);
  if (at.queued || at.demoting || at.on_nvme() || !at.in_dram) return;
  at.queued = nvme_->Queue(chunks_.TicketOf(chunk));
  at.unwritten = at.queued ? ChunkCause::kNone : ChunkCause::kEvictedQueueFull;
  if (!at.queued) ++nvme_->counts.demote_declined;
}

StatusCode ChunkStore::CheckPersist(uint32_t namespace_id, uint32_t payload_bytes,
                                    int64_t now_ns) const {
  if (nvme_ == nullptr || !nvme_->ready()) return StatusCode::kUnavailable;
  if (!nvme_->device().writable()) return StatusCode::kDenied;
  if (shm::RecordBytes(payload_bytes) > nvme_->log().record_bytes_max()) {
    return StatusCode::kInvalid;
  }
  if (nvme_->log().writes_pause_until_ns() > now_ns) return StatusCode::kIoError;
  if (!NamespaceStored(namespace_id) && !store_namespaces_error_.ok()) return StatusCode::kIoError;
  return StatusCode::kOk;
}

StatusCode ChunkStore::Persist(uint32_t namespace_id, const shm::ChunkKey& key, int64_t now_ns) {
  if (namespaces_->OfId(namespace_id) == nullptr) return StatusCode::kStale;
  const Result<SlotId> slot = index_->Find(key, namespace_id, index_->Hash(key, namespace_id));
  if (!slot.ok()) return StatusCode::kNotFound;
  const StatusCode possible = CheckPersist(namespace_id, index_->Read(*slot).length, now_ns);
  if (possible == StatusCode::kUnavailable) return possible;
  const uint32_t chunk = chunks_.OfSlot(*slot);
  if (chunk == kNoChunk) return StatusCode::kBusy;  // being filled
  Chunk& at = chunks_.at(chunk);
  if (at.on_nvme()) return StatusCode::kOk;
  if (possible != StatusCode::kOk) return possible;
  if (at.urgent || at.loading) return StatusCode::kBusy;
  at.urgent = at.demoting || nvme_->QueueUrgent(chunks_.TicketOf(chunk));
  return StatusCode::kBusy;
}

void ChunkStore::Demote(int64_t now_ns) {
  if (demote_wake_ns_ > now_ns) return;
  uint64_t bytes = 0;
  demote_wake_ns_ = 0;
  while (std::deque<ChunkTicket>* const queue = nvme_->next_queue()) {
    const ChunkTicket ticket = queue->front();
    // One that somebody waits for may stand in both queues.
    const bool wanted = chunks_.Lives(ticket) && chunks_.at(ticket.chunk).in_dram &&
                        !chunks_.at(ticket.chunk).on_nvme() && !chunks_.at(ticket.chunk).demoting;
    if (wanted && bytes >= kDemoteBytesPerPoll) {
      demote_wake_ns_ = now_ns;
      return;
    }
    if (wanted) {
      const uint32_t length = index_->Read(chunks_.at(ticket.chunk).slot).length;
      if (!DemoteOne(ticket.chunk, now_ns)) return;
      bytes += shm::RecordBytes(length);
    }
    queue->pop_front();
    if (chunks_.Lives(ticket)) chunks_.at(ticket.chunk).queued = false;
  }
}

bool ChunkStore::DemotionHasRoom() const {
  return nvme_->log().segments()->free_count() > kLogReserveSegments;
}

// False when it must wait, and the rest of the queue behind it.
bool ChunkStore::DemoteOne(uint32_t chunk, int64_t now_ns) {
  const Chunk& at = chunks_.at(chunk);
  const Index::Entry entry = index_->Read(at.slot);
  const uint32_t namespace_id = entry.namespace_id;
  if (namespaces_->OfId(namespace_id) == nullptr) return true;  // its sweep is still to come
  if (!NamespaceStored(namespace_id)) {
    if (store_namespaces_ns_ > now_ns) demote_wake_ns_ = store_namespaces_ns_;
    return false;
  }
  const uint64_t record_bytes = shm::RecordBytes(entry.length);
  if (record_bytes > nvme_->log().record_bytes_max()) {
    chunks_.at(chunk).unwritten = ChunkCause::kEvictedTooLarge;
    ++nvme_->counts.demote_declined;
    return true;
  }
  Segment& from = pool_->at(at.segment);
  if (nvme_->counts.demoting >= kDemotingMax) return false;
  if (!DemotionHasRoom()) return false;
  if (from.io_holds == 0 && held_segments_ >= std::max(1u, pool_->count() / kHeldShare)) {
    return false;
  }
  if (const int64_t pause_ns = nvme_->log().writes_pause_until_ns(); pause_ns > now_ns) {
    demote_wake_ns_ = pause_ns;
    return false;
  }
  // What somebody waits for is written whatever it costs, and others have less then.
  if (at.urgent) nvme_->Charge(record_bytes);
  if (!at.urgent && !nvme_->Admits(record_bytes, now_ns)) {
    chunks_.at(chunk).unwritten = ChunkCause::kEvictedNotAdmitted;
    ++nvme_->counts.demote_declined;
    return true;
  }
  switch (StartEncoding(chunk)) {
    case ChunkCodec::Begun::kStarted: return true;
    case ChunkCodec::Begun::kNotWorthIt: break;
    case ChunkCodec::Begun::kNoRoom:
      if (MayWaitForCodec(chunk)) {
        nvme_->Refund(record_bytes);
        demote_wake_ns_ = now_ns + kNsPerMs;
        return false;
      }
      ++nvme_->counts.encodes_skipped;
      break;
  }
  return AppendOrWait(chunk, now_ns);
}

// As it is.  False when it must wait.
bool ChunkStore::AppendOrWait(uint32_t chunk, int64_t now_ns) {
  const uint32_t length = index_->Read(chunks_.at(chunk).slot).length;
  const Status appended = AppendRecord(chunk, now_ns);
  if (appended.ok()) return true;
  nvme_->Refund(shm::RecordBytes(length));
  if (appended.code() == StatusCode::kBusy || appended.code() == StatusCode::kNoSpace) {
    demote_wake_ns_ = now_ns + kNsPerMs;  // it was hashed for nothing
    return false;
  }
  if (appended.code() == StatusCode::kIoError) {  // it pauses after an error
    demote_wake_ns_ = now_ns + kNvmeRetryNs;
    return false;
  }
  ++nvme_->counts.demote_declined;
  return true;
}

Status ChunkStore::AppendRecord(uint32_t chunk, int64_t now_ns) {
  Chunk& at = chunks_.at(chunk);
  const Index::Entry entry = index_->Read(at.slot);
  const uint32_t segment = at.segment;
  Segment& from = pool_->at(segment);
  const SegmentRecord& record = from.records[at.record];
  shm::RecordHeader header;
  BuildHeader({.key = entry.key, .namespace_id = entry.namespace_id, .payload_bytes = entry.length},
              from.leaves.data() + record.first_leaf, &header);
  const uint8_t* const payload =
      from.memory.mapping().data() + record.offset + shm::kRecordHeaderBytes;
  const LogAppend append{.header = &header,
                         .stored = {payload, entry.length},
                         .reuse_class = nvme_->ClassOf(policy_->ReuseClass(at.policy)),
                         .urgent = at.urgent || draining_nvme_,
                         .verify = true};
  const ChunkTicket ticket = chunks_.TicketOf(chunk);
  const uint32_t bytes = entry.length;
  Status begun = nvme_->log().Append(
      append,
      [this, ticket, segment, bytes](const LogPlace& place, const Status& status) {
        DemoteDone(ticket, segment, {.payload = bytes, .stored = bytes}, place, status);
      },
      now_ns);
  if (!begun.ok()) return begun;
  at.demoting = true;
  ++nvme_->counts.demoting;
  if (from.io_holds++ == 0) ++held_segments_;
  return begun;
}

// The log pauses after an error, and gives up segments that fail.
void ChunkStore::RetryDemotion(ChunkTicket ticket) {
  Chunk& at = chunks_.at(ticket.chunk);
  if (at.urgent) {
    at.urgent = nvme_->QueueUrgent(ticket);
    ++settled_;  // who waits is told of the pause
  } else {
    QueueDemotion(ticket.chunk);
  }
}

void ChunkStore::DemoteDone(ChunkTicket ticket, uint32_t segment, const DemotedBytes& bytes,
                            const LogPlace& place, const Status& status) {
  --nvme_->counts.demoting;
  if (--pool_->at(segment).io_holds == 0) --held_segments_;
  const bool lives = chunks_.Lives(ticket);
  if (lives) chunks_.at(ticket.chunk).demoting = false;
  if (!status.ok()) {
    ++nvme_->counts.demote_failed;
    // A client wrote to it after its commit, or punched a hole.
    if (status.code() == StatusCode::kCorrupt) {
      nvme_->Refund(shm::RecordBytes(bytes.stored));
      if (lives) DropDamaged(segment, ticket.chunk);
      return;
    }
    if (lives) RetryDemotion(ticket);
    return;
  }
  ++nvme_->counts.demoted;
  nvme_->counts.demoted_bytes += bytes.payload;
  if (lives) {
    AddReplica(ticket.chunk, place, bytes.stored);
    if (std::exchange(chunks_.at(ticket.chunk).urgent, false)) ++settled_;
  } else {
    nvme_->log().MarkDead(place, bytes.stored);  // it left meanwhile
  }
}

// Whether the bytes are still those of the commit.  A client may still write to them, or have
// punched a hole: each leaf is taken out once, and what goes to the device is judged by whoever
// reads it there.
bool ChunkStore::VerifyRecordInDram(uint32_t segment, const SegmentRecord& record) const {
  const Segment& from = pool_->at(segment);
  const uint8_t* const payload =
      from.memory.mapping().data() + record.offset + shm::kRecordHeaderBytes;
  alignas(64) uint8_t leaf[shm::kLeafBytes];
  const uint32_t leaf_count = shm::LeafCount(record.payload_bytes);
  for (uint32_t i = 0; i < leaf_count; ++i) {
    const uint32_t at = i * shm::kLeafBytes;
    const size_t bytes = std::min(shm::kLeafBytes, record.payload_bytes - at);
    if (!GuardedCopy(leaf, payload + at, bytes).ok()) return false;
    uint64_t hash = 0;
    HashLeaves(leaf, bytes, &hash);
    if (hash != from.leaves[record.first_leaf + i]) return false;
  }
  return true;
}

// ---------------------------------------------------------------------------------- time

bool ChunkStore::PollNvme(int64_t now_ns) {
  if (nvme_ == nullptr) return false;
  nvme_now_ns_ = now_ns;
  bool ended = nvme_->Poll(now_ns);
  ended |= PollCodec(now_ns);
  if (nvme_->state() == NvmeState::kOff || nvme_->state() == NvmeState::kOpening) return ended;
  StoreNamespaces(now_ns);
  if (nvme_->ready()) {
    DropQuarantined();
    ReclaimNvme(now_ns);
    Demote(now_ns);
    ScrubNvme(now_ns);
  }
  nvme_->device().Flush();
  return ended;
}

int64_t ChunkStore::NvmeWake() const {
  if (nvme_ == nullptr) return 0;
  int64_t wake = nvme_->log().next_wake_ns();
  const auto sooner = [&wake](int64_t at) {
    if (at != 0) wake = std::min(wake, at);
  };
  sooner(demote_wake_ns_);
  sooner(nvme_->reclaim().retry_ns);
  sooner(nvme_->reopen_ns());
  sooner(ScrubWake());
  sooner(CodecWake());
  if (nvme_->state() != NvmeState::kOff && !storing_namespaces_ &&
      namespaces_->version() != stored_version_) {
    sooner(std::max(store_namespaces_ns_, nvme_now_ns_ + 1));
  }
  return wake == INT64_MAX ? 0 : std::max<int64_t>(wake, 1);
}

bool ChunkStore::DrainNvme(int64_t now_ns) {
  if (nvme_ == nullptr || !nvme_->ready()) return true;
  draining_nvme_ = true;
  nvme_->reclaim().active = false;  // what it carries is still awaited
  PollNvme(now_ns);
  const bool under_way =
      nvme_->counts.demoting != 0 || nvme_->reclaim().carrying() || storing_namespaces_;
  // Nothing goes on while the device cannot be written or has no room.
  const bool stuck = demote_wake_ns_ > now_ns || !DemotionHasRoom();
  if (under_way || (nvme_->queued() != 0 && !stuck)) return false;
  if (!sealed_nvme_) {
    if (nvme_->queued() != 0) {
      LogWarning("nvme: " + std::to_string(nvme_->queued()) + " chunks of tenant '" +
                 options_.tenant + "' that waited to be written are not on NVMe");
    }
    for (uint32_t reuse_class = 0; reuse_class < kReuseClassCount; ++reuse_class) {
      nvme_->log().Seal(reuse_class);
    }
    sealed_nvme_ = true;
    PollNvme(now_ns);
  }
  return nvme_->log().idle();
}

}  // namespace terrace
