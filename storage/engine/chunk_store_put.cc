// Claims: begin, commit, abort, and what becomes of those that nobody ends.

#include <algorithm>

#include "storage/base/limits.h"
#include "storage/engine/chunk_store.h"
#include "storage/engine/session_entry.h"
#include "storage/mem/guarded_copy.h"
#include "storage/record/record.h"

namespace terrace {

void ChunkStore::BeginPut(SessionId session, uint32_t namespace_id, std::span<const PutWant> wants,
                          int64_t deadline_ns, int64_t now_ns, std::span<PutGrant> grants) {
  TERRACE_CHECK(grants.size() == wants.size());
  const auto found = sessions_.find(session);
  const bool known = found != sessions_.end() && !found->second.closed;
  const bool live = namespaces_->OfId(namespace_id) != nullptr;
  if (deadline_ns == 0) deadline_ns = now_ns + kPutDeadlineNsDefault;
  // The daemon's own copies run on another thread, in its own mapping, which a replaced segment
  // takes away: their claims outlast every copy that is still running, whatever the caller asked.
  if (known && found->second.options.trusted) {
    deadline_ns = std::max(deadline_ns, now_ns + kPutDeadlineNsDefault);
  }
  deadline_ns = std::min(deadline_ns, now_ns + kRequestDeadlineNsMax);
  for (size_t i = 0; i < wants.size(); ++i) {
    grants[i] = PutGrant{};
    if (!known) {
      grants[i].status = StatusCode::kUnavailable;
    } else if (!live) {
      grants[i].status = StatusCode::kStale;
    } else {
      grants[i].status =
          Grant(found->second, namespace_id, wants[i], deadline_ns, now_ns, &grants[i]);
    }
    if (grants[i].status == StatusCode::kBusy) ++counts_.busy;
    if (grants[i].status == StatusCode::kExists) ++counts_.exists;
  }
}

StatusCode ChunkStore::Grant(SessionEntry& session, uint32_t namespace_id, const PutWant& want,
                             int64_t deadline_ns, int64_t now_ns, PutGrant* grant) {
  if (!want.key.valid() || !want.key.zero_padded() || want.payload_bytes == 0 ||
      want.payload_bytes > chunk_bytes_max_) {
    return StatusCode::kInvalid;
  }
  const uint64_t hash = index_->Hash(want.key, namespace_id);
  if (index_->Find(want.key, namespace_id, hash).ok()) return StatusCode::kExists;

  const SessionId id = session.id;
  const uint64_t owner = session.options.trusted ? kTrustedOwner : id;
  const uint64_t record_bytes = shm::RecordBytes(want.payload_bytes);
  const Result<Room> room = Reserve(owner, policy_->ReuseClassOfAbsent(hash), record_bytes, now_ns);
  if (!room.ok()) {
    Note(want.key, namespace_id, want.payload_bytes, ChunkCause::kNoRoom);
    return StatusCode::kBusy;
  }

  Segment& segment = pool_->at(room->segment);
  const shm::Location location{
      .segment = room->segment, .generation = segment.generation, .offset = room->offset};
  Result<SlotId> slot = index_->Insert(want.key, namespace_id, hash, location, want.payload_bytes);
  if (!slot.ok()) {
    // The window around the key's home is full: one reclaim may open a place in it.
    if (ReclaimOne(now_ns)) {
      slot = index_->Insert(want.key, namespace_id, hash, location, want.payload_bytes);
    }
  }
  Claim* claim = nullptr;
  if (slot.ok()) {
    claim = claims_.Add({.session = id,
                         .slot = *slot,
                         .namespace_id = namespace_id,
                         .key = want.key,
                         .payload_bytes = want.payload_bytes,
                         .segment = room->segment,
                         .generation = segment.generation,
                         .offset = room->offset,
                         .deadline_ns = deadline_ns});
    if (claim == nullptr) index_->Retire(*slot);
  }
  if (claim == nullptr) {
    pool_->Unappend(room->segment, record_bytes);
    Note(want.key, namespace_id, want.payload_bytes,
         slot.ok() ? ChunkCause::kClaimsFull : ChunkCause::kIndexFull);
    return StatusCode::kBusy;
  }
  segment.claimed_bytes += record_bytes;
  ++segment.open_claims;
  grant->location = location;
  grant->claim = claim->id;
  return StatusCode::kOk;
}

void ChunkStore::Commit(SessionId session, std::span<const uint64_t> claims, int64_t now_ns,
                        std::span<StatusCode> results) {
  TERRACE_CHECK(results.size() == claims.size());
  for (size_t i = 0; i < claims.size(); ++i) {
    Claim* claim = claims_.Find(session, claims[i]);
    if (claim == nullptr || claim->ended) {
      results[i] = StatusCode::kStale;
      ++counts_.stale_commits;
      continue;
    }
    results[i] = CommitOne(*claim, now_ns);
    claims_.Remove(claims[i]);
  }
}

StatusCode ChunkStore::CommitOne(Claim& claim, int64_t now_ns) {
  StatusCode verdict = StatusCode::kOk;
  shm::RecordHeader header;
  if (claim.deadline_ns <= now_ns || namespaces_->OfId(claim.namespace_id) == nullptr) {
    verdict = StatusCode::kStale;
    ++counts_.stale_commits;
  } else {
    // The client can still write to the record: what is checked and kept is a copy.
    const std::byte* record =
        Address({.segment = claim.segment, .generation = claim.generation, .offset = claim.offset});
    TERRACE_CHECK(record != nullptr);  // an open claim holds its segment
    const RecordIdentity expected{
        .key = claim.key, .namespace_id = claim.namespace_id, .payload_bytes = claim.payload_bytes};
    if (!GuardedCopy(&header, record, sizeof header).ok() ||
        !ValidateHeader(header, expected).ok()) {
      verdict = StatusCode::kCorrupt;
      ++counts_.corrupt_commits;
    }
  }
  if (verdict == StatusCode::kOk) {
    PublishClaim(claim, header);
  } else {
    ChunkCause why = ChunkCause::kHeaderDiffers;
    if (verdict == StatusCode::kStale) {
      const bool live = namespaces_->OfId(claim.namespace_id) != nullptr;
      why = live ? ChunkCause::kAbandoned : ChunkCause::kEpochEnded;
    }
    Note(claim.key, claim.namespace_id, claim.payload_bytes, why);
    // The client has said that it is done with the room, so nothing is poisoned.
    index_->Retire(claim.slot);
    pool_->at(claim.segment).claimed_bytes -= shm::RecordBytes(claim.payload_bytes);
    --pool_->at(claim.segment).open_claims;
  }
  ++settled_;
  return verdict;
}

void ChunkStore::PublishClaim(Claim& claim, const shm::RecordHeader& header) {
  Segment& segment = pool_->at(claim.segment);
  const uint64_t record_bytes = shm::RecordBytes(claim.payload_bytes);
  segment.claimed_bytes -= record_bytes;
  --segment.open_claims;
  segment.live_bytes += record_bytes;
  segment.padding_bytes += record_bytes - shm::kRecordHeaderBytes - claim.payload_bytes;

  const uint32_t chunk = chunks_.Add(claim.slot);
  chunks_.at(chunk).in_dram = true;
  if (options_.wall_ms) {
    chunks_.at(chunk).put_at_s = static_cast<uint32_t>(options_.wall_ms() / 1000);
  }
  chunks_.at(chunk).segment = claim.segment;
  chunks_.at(chunk).record = static_cast<uint32_t>(segment.records.size());
  segment.records.push_back({.chunk = chunk,
                             .payload_bytes = claim.payload_bytes,
                             .offset = claim.offset,
                             .first_leaf = static_cast<uint32_t>(segment.leaves.size())});
  segment.leaves.insert(segment.leaves.end(), header.leaves, header.leaves + header.leaf_count);
  chunks_.at(chunk).policy = policy_->Insert(index_->Hash(claim.key, claim.namespace_id),
                                             static_cast<uint32_t>(record_bytes));
  index_->Publish(claim.slot);
  if (options_.nvme.admission != NvmeAdmission::kSecondHit) QueueDemotion(chunk);

  namespaces_->Count(claim.namespace_id, 1, claim.payload_bytes);
  ++counts_.puts;
  counts_.put_bytes += claim.payload_bytes;
}

void ChunkStore::Abort(SessionId session, std::span<const uint64_t> claims) {
  for (const uint64_t id : claims) {
    Claim* claim = claims_.Find(session, id);
    if (claim == nullptr) continue;
    if (claim->ended) {
      Acknowledge(session, std::span(&id, 1));
    } else {
      EndClaim(*claim, false, ChunkCause::kAborted);
    }
  }
}

void ChunkStore::Acknowledge(SessionId session, std::span<const uint64_t> claims) {
  for (const uint64_t id : claims) {
    Claim* claim = claims_.Find(session, id);
    if (claim == nullptr || !claim->ended) continue;
    Segment& segment = pool_->at(claim->segment);
    // A memfd that was replaced meanwhile took its poison with it.
    if (segment.generation == claim->generation) {
      const auto poison = segment.poisons.find(session);
      if (poison != segment.poisons.end() && --poison->second == 0) segment.poisons.erase(poison);
    }
    claims_.Remove(id);
  }
}

void ChunkStore::EndClaim(Claim& claim, bool poison, ChunkCause why) {
  Note(claim.key, claim.namespace_id, claim.payload_bytes, why);
  index_->Retire(claim.slot);
  Segment& segment = pool_->at(claim.segment);
  segment.claimed_bytes -= shm::RecordBytes(claim.payload_bytes);
  --segment.open_claims;
  ++settled_;
  if (poison) {
    ++segment.poisons[claim.session];
    claims_.End(claim);
  } else {
    claims_.Remove(claim.id);
  }
}

void ChunkStore::EndClaimsOf(SessionId session, bool poison) {
  for (const uint64_t id : claims_.OfSession(session)) {
    Claim* claim = claims_.Find(session, id);
    if (claim->ended) continue;
    ++counts_.claims_ended;
    EndClaim(*claim, poison, ChunkCause::kAbandoned);
  }
}

}  // namespace terrace
