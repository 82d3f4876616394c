// Reclaim in the NVMe log, by the rule of DRAM: the cheapest of a sample, survivors carried over.
// Carrying over takes a read and a write, so it is done in steps; the segment serves reads until
// nothing refers to it any more.

#include <algorithm>

#include "storage/base/clock.h"
#include "storage/base/limits.h"
#include "storage/engine/chunk_store.h"
#include "storage/engine/nvme_tier.h"
#include "storage/record/record.h"
#include "storage/tier/log_verify.h"

namespace terrace {
namespace {

constexpr size_t kSampleSegments = 64;
constexpr size_t kAppraisedResidentsMax = 512;
constexpr size_t kResidentsPerPoll = 512;  // 0.2 ms
constexpr int64_t kReclaimRetryNs = kNsPerSecond;
// One record is always carried, however long.
constexpr uint64_t kCarryingBytesMax = 8 * kMiB;
constexpr uint64_t kCarryBufferKept = kCarryingBytesMax / kNvmeCarriesMax + kPageBytes;

}  // namespace

bool ChunkStore::NvmeWantsRoom() const {
  // What cannot be written needs no room, and who leaves takes no more.
  if (!nvme_->device().writable() || draining_nvme_) return false;
  if (nvme_->log().segments()->free_count() < nvme_->stock_segments()) return true;
  // Each replica takes a slot, also where nothing is in DRAM.
  return index_->used() > options_.index_slots / 4 * 3 && nvme_->counts.chunk_count > 0;
}

double ChunkStore::AppraiseLog(uint32_t segment) {
  const std::vector<NvmeTier::Resident>& residents = nvme_->residents(segment);
  const size_t stride = std::max<size_t>(1, residents.size() / kAppraisedResidentsMax);
  double worth = 0;
  for (size_t i = 0; i < residents.size(); i += stride) {
    if (!Resides(residents[i], segment)) continue;
    const Chunk& chunk = chunks_.at(residents[i].chunk.chunk);
    const uint64_t bytes = shm::RecordBytes(index_->Read(chunk.slot).length) * stride;
    worth += nvme_->policy().Worth(chunk.nvme_policy) * static_cast<double>(bytes);
  }
  return worth;
}

bool ChunkStore::BeginReclaimNvme() {
  const LogSegments& segments = *nvme_->log().segments();
  std::vector<uint32_t> candidates;
  for (uint32_t segment = 0; segment < segments.count(); ++segment) {
    if (segments.at(segment).state == LogSegmentState::kSealed) candidates.push_back(segment);
  }
  std::vector<std::pair<double, uint32_t>> victims;  // worth, segment
  while (!candidates.empty() && victims.size() < kSampleSegments) {
    std::swap(candidates[NextRandom() % candidates.size()], candidates.back());
    victims.emplace_back(AppraiseLog(candidates.back()), candidates.back());
    candidates.pop_back();
  }
  if (victims.empty()) return false;
  std::sort(victims.begin(), victims.end());
  const size_t at = std::min(std::max<size_t>(victims.size() / 10, 1), victims.size() - 1);
  NvmeTier::Reclaim& reclaim = nvme_->reclaim();
  reclaim.active = true;
  reclaim.segment = victims.front().second;
  reclaim.sequence = segments.at(reclaim.segment).sequence;
  reclaim.price = victims[at].first / static_cast<double>(segments.segment_bytes());
  reclaim.next = 0;
  reclaim.carried_bytes = 0;
  return true;
}

void ChunkStore::ReclaimNvme(int64_t now_ns) {
  NvmeTier::Reclaim& reclaim = nvme_->reclaim();
  if (reclaim.retry_ns <= now_ns) reclaim.retry_ns = 0;
  for (uint32_t carry = 0; carry < kNvmeCarriesMax; ++carry) {
    const NvmeTier::Carry& at = reclaim.carries[carry];
    if (at.busy && at.read && !at.appending) AppendCarried(carry, now_ns);
  }
  if (!reclaim.active) {
    if (reclaim.retry_ns != 0 || !NvmeWantsRoom() || !BeginReclaimNvme()) return;
  }
  const std::vector<NvmeTier::Resident>& residents = nvme_->residents(reclaim.segment);
  const size_t end = std::min(residents.size(), reclaim.next + kResidentsPerPoll);
  while (reclaim.next < end) {
    const NvmeTier::Resident resident = residents[reclaim.next];
    if (Resides(resident, reclaim.segment) && !LeaveLogSegment(resident.chunk.chunk, now_ns)) {
      return;  // until another one has been carried
    }
    if (!reclaim.active) return;
    ++reclaim.next;
  }
  if (reclaim.next < residents.size()) {
    reclaim.retry_ns = now_ns;
    return;
  }
  if (reclaim.carrying_bytes == 0) EndReclaimNvme(now_ns);
}

// Nothing refers to the segment any more, except reads that are under way.
void ChunkStore::EndReclaimNvme(int64_t now_ns) {
  NvmeTier::Reclaim& reclaim = nvme_->reclaim();
  const LogSegment& segment = nvme_->log().segments()->at(reclaim.segment);
  Status freed = Status::Ok();
  if (segment.state == LogSegmentState::kSealed) freed = nvme_->log().BeginReclaim(reclaim.segment);
  if (freed.ok()) freed = nvme_->log().Free(reclaim.segment);
  if (freed.code() == StatusCode::kBusy) return;  // looked at again when a read ends
  reclaim.active = false;
  reclaim.retry_ns = freed.ok() ? 0 : now_ns + kReclaimRetryNs;
  if (!freed.ok()) return;  // given up meanwhile
  nvme_->residents(reclaim.segment).clear();
  ++nvme_->counts.reclaims;
  if (NvmeWantsRoom()) reclaim.retry_ns = now_ns;
}

// One chunk of the victim: carried over when it is leased or worth more than the price.  False when
// too much is being carried for that.
bool ChunkStore::LeaveLogSegment(uint32_t chunk, int64_t now_ns) {
  NvmeTier::Reclaim& reclaim = nvme_->reclaim();
  const Chunk& at = chunks_.at(chunk);
  const Index::Entry entry = index_->Read(at.slot);
  const uint64_t record_bytes = shm::RecordBytes(entry.length);
  if (namespaces_->OfId(entry.namespace_id) == nullptr) {
    DropChunk(chunk, Departure::kRemoved);  // its sweep is still to come
    return true;
  }
  const bool leased = at.lease_until_ns > now_ns;
  const uint64_t half = nvme_->log().segments()->segment_bytes() / 2;
  const bool dear = nvme_->policy().Worth(at.nvme_policy) > reclaim.price &&
                    reclaim.carried_bytes + record_bytes <= half;
  if (at.in_dram || at.loading) {
    ForgetReplica(chunk, Departure::kEvicted);
    if (!dear && !leased) return true;
    reclaim.carried_bytes += record_bytes;
    QueueDemotion(chunk);
    return true;
  }
  if (!dear && !leased) {
    ++nvme_->counts.evicted;
    nvme_->counts.evicted_bytes += entry.length;
    DropChunk(chunk, Departure::kEvicted);
    return true;
  }
  if (BeingCarried(chunk)) return true;  // by a reclaim that was abandoned
  uint32_t carry = 0;
  while (carry < kNvmeCarriesMax && reclaim.carries[carry].busy) ++carry;
  if (carry == kNvmeCarriesMax) return false;
  if (reclaim.carrying_bytes != 0 && reclaim.carrying_bytes + record_bytes > kCarryingBytesMax) {
    return false;
  }
  reclaim.carried_bytes += record_bytes;
  ReadCarried(carry, chunk, now_ns);
  return true;
}

bool ChunkStore::BeingCarried(uint32_t chunk) const {
  const ChunkTicket ticket = chunks_.TicketOf(chunk);
  const auto& carries = nvme_->reclaim().carries;
  return std::any_of(carries.begin(), carries.end(), [&](const NvmeTier::Carry& carry) {
    return carry.busy && carry.chunk.serial == ticket.serial;
  });
}

void ChunkStore::ReadCarried(uint32_t index, uint32_t chunk, int64_t now_ns) {
  NvmeTier::Carry& carry = nvme_->reclaim().carries[index];
  const Chunk& at = chunks_.at(chunk);
  const Index::Entry entry = index_->Read(at.slot);
  const uint64_t record_bytes = shm::RecordBytes(entry.length);
  carry.chunk = chunks_.TicketOf(chunk);
  carry.place = at.nvme;
  carry.identity = {
      .key = entry.key, .namespace_id = entry.namespace_id, .payload_bytes = entry.length};
  carry.read = carry.appending = false;
  if (carry.buffer.size() < record_bytes) carry.buffer = AlignedBytes(record_bytes);
  const LogRead read{.place = carry.place,
                     .bytes = record_bytes,
                     .into = carry.buffer.data(),
                     .io_class = IoClass::kWriteBehind};
  const Status begun = nvme_->log().Read(
      read, [this, index](const Status& status) { CarriedRead(index, status); }, now_ns);
  if (!begun.ok()) return AbandonReclaim(now_ns);  // it pauses after errors, or is full of reads
  carry.busy = true;
  nvme_->reclaim().carrying_bytes += record_bytes;
}

void ChunkStore::EndCarry(NvmeTier::Carry& carry) {
  carry.busy = false;
  nvme_->reclaim().carrying_bytes -= shm::RecordBytes(carry.identity.payload_bytes);
  if (carry.buffer.size() > kCarryBufferKept) carry.buffer = AlignedBytes();
}

void ChunkStore::CarriedRead(uint32_t index, const Status& read) {
  NvmeTier::Carry& carry = nvme_->reclaim().carries[index];
  const uint64_t record_bytes = shm::RecordBytes(carry.identity.payload_bytes);
  Status status = read;
  if (status.ok()) {
    status = VerifyRecord({carry.buffer.data(), record_bytes}, carry.identity, carry.place);
  }
  if (status.code() == StatusCode::kCorrupt) {
    ++nvme_->counts.load_corrupt;
    nvme_->log().NoteCorrupt(carry.place);
  }
  if (status.ok() && CarriedIsCurrent(carry)) {
    carry.read = true;
    return;
  }
  EndCarry(carry);
  if (!status.ok() && CarriedIsCurrent(carry)) {
    ++nvme_->counts.load_failed;
    DropReplica(carry.chunk.chunk, Departure::kRemoved);
  }
}

bool ChunkStore::CarriedIsCurrent(const NvmeTier::Carry& carry) const {
  return chunks_.Lives(carry.chunk) && chunks_.at(carry.chunk.chunk).nvme == carry.place;
}

void ChunkStore::AppendCarried(uint32_t index, int64_t now_ns) {
  NvmeTier::Carry& carry = nvme_->reclaim().carries[index];
  if (!CarriedIsCurrent(carry)) return EndCarry(carry);
  const auto* stored = reinterpret_cast<const shm::RecordHeader*>(carry.buffer.data());
  const Chunk& chunk = chunks_.at(carry.chunk.chunk);
  shm::RecordHeader header;
  BuildHeader(carry.identity, stored->leaves, &header);
  LogAppend append{
      .header = &header,
      .stored = {carry.buffer.data() + shm::kRecordHeaderBytes, carry.identity.payload_bytes},
      .reuse_class = nvme_->ClassOf(nvme_->policy().ReuseClass(chunk.nvme_policy)),
      .urgent = !DemotionHasRoom()};  // write-behind waits for the room that this makes
  const auto done = [this, index](const LogPlace& place, const Status& status) {
    CarriedAppended(index, place, status);
  };
  Status begun = nvme_->log().Append(append, done, now_ns);
  // Another class' open segment may have room.
  for (uint32_t other = 0; other < kReuseClassCount && begun.code() == StatusCode::kNoSpace;
       ++other) {
    append.reuse_class = other;
    begun = nvme_->log().Append(append, done, now_ns);
  }
  if (begun.code() == StatusCode::kBusy) return;  // the next poll tries again
  if (begun.ok()) {
    carry.appending = true;
    return;
  }
  EndCarry(carry);
  if (begun.code() != StatusCode::kNoSpace || chunk.lease_until_ns > now_ns) {
    return AbandonReclaim(now_ns);
  }
  ++nvme_->counts.evicted;
  nvme_->counts.evicted_bytes += carry.identity.payload_bytes;
  DropReplica(carry.chunk.chunk, Departure::kEvicted);
}

void ChunkStore::CarriedAppended(uint32_t index, const LogPlace& place, const Status& status) {
  NvmeTier::Carry& carry = nvme_->reclaim().carries[index];
  EndCarry(carry);
  const uint32_t bytes = carry.identity.payload_bytes;
  if (!status.ok()) return AbandonReclaim(nvme_now_ns_);
  if (!CarriedIsCurrent(carry)) {
    nvme_->log().MarkDead(place, bytes);  // it left meanwhile
    return;
  }
  Chunk& chunk = chunks_.at(carry.chunk.chunk);
  nvme_->log().MarkDead(chunk.nvme, bytes);
  chunk.nvme = place;
  nvme_->residents(place.segment)
      .push_back({.chunk = carry.chunk, .offset_units = place.offset_units});
  ++nvme_->counts.moved;
  nvme_->counts.moved_bytes += bytes;
}

// What is still in the segment stays there and is found; another try comes later.
void ChunkStore::AbandonReclaim(int64_t now_ns) {
  NvmeTier::Reclaim& reclaim = nvme_->reclaim();
  reclaim.active = false;
  reclaim.retry_ns = now_ns + kReclaimRetryNs;
}

}  // namespace terrace
