// Room for records: the open segments of each writer, and where another one comes from.

#include <algorithm>

#include "storage/base/clock.h"
#include "storage/base/limits.h"
#include "storage/engine/chunk_store.h"
#include "storage/engine/session_entry.h"

namespace terrace {
namespace {

// Kept back for survivors, so that reclaim always has somewhere to carry to.
constexpr uint32_t kReserveSegments = 1;
// Each try frees a segment and may fill most of another with survivors.
constexpr int kReclaimTries = 8;
// After a search that found no victim, which looked at much of the pool, every put is refused for
// so long without another one: a batch of 256 in a pool full of pins costs one search, not 256.
constexpr int64_t kSearchRetryNs = kNsPerMs;

}  // namespace

// The writer's open segment of the class, else another one.  Where segments are few or none can be
// had, the writer's other open segments do as well: grouping is worth less than the room.
Result<ChunkStore::Room> ChunkStore::Reserve(uint64_t owner, uint32_t reuse_class,
                                             uint64_t record_bytes, int64_t now_ns) {
  const OpenKey key{.owner = owner, .reuse_class = std::min(reuse_class, kReuseClassCount - 1)};
  Room room;
  if (Append(key, record_bytes, now_ns, &room)) return room;
  if (open_.contains(key)) Seal(key);
  if (!Crowded() && OpenAnother(key, now_ns).ok()) {
    TERRACE_CHECK(Append(key, record_bytes, now_ns, &room));
    return room;
  }
  for (uint32_t other = 0; other < kReuseClassCount; ++other) {
    const OpenKey other_key{.owner = owner, .reuse_class = other};
    if (Append(other_key, record_bytes, now_ns, &room)) return room;
  }
  if (!Crowded()) return Status(StatusCode::kBusy, "the pool has no room");
  Status opened = OpenAnother(key, now_ns);
  // The first tail's survivors may have taken the room that it gave.  Their own tail is one that
  // can be sealed again and again: no more often than there are tails now.
  size_t tails = owner == kSurvivorsOwner ? 0 : open_.size();
  for (; !opened.ok() && tails > 0 && SealOldestTail(); --tails) {
    search_retry_ns_ = 0;  // there is a candidate more
    opened = OpenAnother(key, now_ns);
  }
  if (!opened.ok()) return opened;
  TERRACE_CHECK(Append(key, record_bytes, now_ns, &room));
  return room;
}

bool ChunkStore::Append(const OpenKey& key, uint64_t record_bytes, int64_t now_ns, Room* room) {
  const auto open = open_.find(key);
  if (open == open_.end()) return false;
  if (!pool_->Append(open->second, record_bytes, &room->offset)) return false;
  room->segment = open->second;
  pool_->at(room->segment).appended_ns = now_ns;
  return true;
}

// REQUIRES: the key has no open segment.
Status ChunkStore::OpenAnother(const OpenKey& key, int64_t now_ns) {
  const bool survivors = key.owner == kSurvivorsOwner;
  if (!survivors) {
    Status room = MakeRoom(now_ns);
    if (!room.ok()) return room;
  }
  const Result<uint32_t> opened = pool_->Open(
      survivors || key.owner == kTrustedOwner ? SegmentKind::kDaemonFilled : SegmentKind::kLeased);
  PublishSegments();
  if (!opened.ok()) return opened.status();
  open_[key] = *opened;
  Segment& segment = pool_->at(*opened);
  segment.owner = key.owner;
  segment.reuse_class = key.reuse_class;
  segment.appended_ns = now_ns;
  if (segment.kind == SegmentKind::kLeased &&
      std::count(segment.writers.begin(), segment.writers.end(), key.owner) == 0) {
    segment.writers.push_back(key.owner);
    ++descriptor_epoch_;
  }
  return Status::Ok();
}

Status ChunkStore::MakeRoom(int64_t now_ns) {
  for (int tries = 0; pool_->free_count() <= kReserveSegments; ++tries) {
    const bool again = now_ns >= search_retry_ns_;
    if (again && tries < kReclaimTries && ReclaimOne(now_ns)) continue;
    if (again) {
      search_retry_ns_ = now_ns + kSearchRetryNs;
      ++counts_.full;
    }
    return Status(StatusCode::kBusy, "the pool has no room");
  }
  return Status::Ok();
}

// So many writers, or so few segments, that what is open leaves reclaim little to choose from.
bool ChunkStore::Crowded() const { return open_.size() * 2 >= pool_->count(); }

void ChunkStore::Seal(const OpenKey& key) {
  pool_->Seal(open_.at(key));
  open_.erase(key);
}

// Claims in it stay what they are: a sealed segment is reclaimed only after they have ended.
void ChunkStore::SealIdleTails(int64_t now_ns) {
  std::erase_if(open_, [&](const auto& open) {
    if (open.first.owner == kSurvivorsOwner) return false;
    if (now_ns - pool_->at(open.second).appended_ns < kTailIdleNs) return false;
    pool_->Seal(open.second);
    return true;
  });
}

void ChunkStore::SealTailsOf(SessionId session) {
  std::erase_if(open_, [&](const auto& open) {
    if (open.first.owner != session) return false;
    pool_->Seal(open.second);
    return true;
  });
}

// In a crowded pool: the writer that has waited longest gives its tail back early.
bool ChunkStore::SealOldestTail() {
  auto oldest = open_.end();
  for (auto open = open_.begin(); open != open_.end(); ++open) {
    if (pool_->at(open->second).open_claims != 0) continue;
    if (oldest == open_.end() ||
        pool_->at(open->second).appended_ns < pool_->at(oldest->second).appended_ns) {
      oldest = open;
    }
  }
  if (oldest == open_.end()) return false;
  pool_->Seal(oldest->second);
  open_.erase(oldest);
  return true;
}

// Tells clients which memfds came and went.
void ChunkStore::PublishSegments() {
  if (published_epoch_ == pool_->epoch()) return;
  published_epoch_ = pool_->epoch();
  for (uint32_t segment = 0; segment < pool_->count(); ++segment) {
    const Segment& at = pool_->at(segment);
    const bool present = at.memory.valid();
    index_->SetSegment(segment, present ? at.generation : 0, present ? options_.segment_bytes : 0);
  }
}

}  // namespace terrace
