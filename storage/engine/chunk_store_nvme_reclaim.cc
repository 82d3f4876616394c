// Reclaim in the NVMe log, by the rule of DRAM: the cheapest of a sample, survivors carried over.
// Carrying over takes a read, unless the chunk is in DRAM too, and a write, several at once; each
// survivor stays where it was until its new record is durable.  The segment serves reads until
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

using Carry = NvmeTier::Carry;
using Step = NvmeTier::Carry::Step;

// 32 segments of 64 residents are 2,048 looks: 0.8 ms.
constexpr size_t kSampleSegments = 32;
constexpr size_t kAppraisedResidentsMax = 64;
constexpr size_t kResidentsPerPoll = 512;  // 0.2 ms
constexpr int64_t kReclaimRetryNs = kNsPerSecond;
// A survivor takes a write beside its room, so it is worth twice the price of room, or goes
// (measured: docs/decisions.md).
constexpr double kCarryPrice = 2;

// Of one that was read.
const shm::RecordHeader& HeaderOf(const Carry& carry) {
  return *reinterpret_cast<const shm::RecordHeader*>(carry.buffer.data());
}

}  // namespace

struct ChunkStore::LogVictim {
  uint32_t segment = 0;
  double worth = 0;  // hits, summed over what resides there
  double leased_bytes = 0;
};

bool ChunkStore::NvmeWantsRoom() const {
  // What cannot be written needs no room, and who leaves takes no more.
  if (!nvme_->device().writable() || draining_nvme_) return false;
  if (nvme_->log().segments()->free_count() < nvme_->stock_segments()) return true;
  // Each replica takes a slot, also where nothing is in DRAM.
  return index_->used() > options_.index_slots / 4 * 3 && nvme_->counts.chunk_count > 0;
}

ChunkStore::LogVictim ChunkStore::AppraiseLog(uint32_t segment) {
  const std::vector<NvmeTier::Resident>& residents = nvme_->residents(segment);
  const size_t stride = std::max<size_t>(1, residents.size() / kAppraisedResidentsMax);
  LogVictim victim{.segment = segment};
  for (size_t i = 0; i < residents.size(); i += stride) {
    if (!Resides(residents[i], segment)) continue;
    const Chunk& chunk = chunks_.at(residents[i].chunk.chunk);
    const auto bytes = static_cast<double>(shm::RecordBytes(chunk.stored_bytes) * stride);
    victim.worth += nvme_->policy().Worth(chunk.nvme_policy) * bytes;
    if (chunk.lease_until_ns != 0) victim.leased_bytes += bytes;
  }
  return victim;
}

bool ChunkStore::BeginReclaimNvme() {
  NvmeTier::Reclaim& reclaim = nvme_->reclaim();
  const LogSegments& segments = *nvme_->log().segments();
  const auto segment_bytes = static_cast<double>(segments.segment_bytes());
  std::vector<uint32_t> candidates;
  for (uint32_t segment = 0; segment < segments.count(); ++segment) {
    const bool sealed = segments.at(segment).state == LogSegmentState::kSealed;
    if (sealed && segment != reclaim.failed_segment) candidates.push_back(segment);
  }
  reclaim.failed_segment = UINT32_MAX;
  std::vector<LogVictim> victims;
  while (!candidates.empty() && victims.size() < kSampleSegments) {
    std::swap(candidates[NextRandom() % candidates.size()], candidates.back());
    const LogVictim victim = AppraiseLog(candidates.back());
    candidates.pop_back();
    // Leases are carried whatever they cost: of such a one nothing would be gained.
    if (victim.leased_bytes <= segment_bytes / 4 * 3) victims.push_back(victim);
  }
  if (victims.empty()) return false;
  std::sort(victims.begin(), victims.end(),
            [](const LogVictim& a, const LogVictim& b) { return a.worth < b.worth; });
  const size_t at = std::min(std::max<size_t>(victims.size() / 10, 1), victims.size() - 1);
  reclaim.active = true;
  reclaim.segment = victims.front().segment;
  reclaim.price = victims[at].worth / segment_bytes;
  reclaim.next = 0;
  reclaim.carried_bytes = 0;
  return true;
}

void ChunkStore::ReclaimNvme(int64_t now_ns) {
  NvmeTier::Reclaim& reclaim = nvme_->reclaim();
  if (reclaim.retry_ns <= now_ns) reclaim.retry_ns = 0;
  for (Carry& carry : reclaim.carries) {
    if (carry.step == Step::kThere) AppendCarried(carry, now_ns);
  }
  if (!reclaim.active) {
    if (reclaim.retry_ns != 0 || !NvmeWantsRoom()) return;
    if (!BeginReclaimNvme()) {
      reclaim.retry_ns = now_ns + kReclaimRetryNs;
      return;
    }
  }
  const std::vector<NvmeTier::Resident>& residents = nvme_->residents(reclaim.segment);
  const size_t end = std::min(residents.size(), reclaim.next + kResidentsPerPoll);
  while (reclaim.next < end) {
    const NvmeTier::Resident resident = residents[reclaim.next];
    if (Resides(resident, reclaim.segment) &&
        LeaveLogSegment(resident.chunk.chunk, now_ns) == Leaving::kWaits) {
      return;  // looked at again when something ends
    }
    if (!reclaim.active) return;
    ++reclaim.next;
  }
  if (reclaim.next < residents.size()) {
    reclaim.retry_ns = now_ns;
    return;
  }
  if (!reclaim.carrying()) EndReclaimNvme(now_ns);
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

// One chunk of the victim: carried over when it is leased or worth more than the price.
ChunkStore::Leaving ChunkStore::LeaveLogSegment(uint32_t chunk, int64_t now_ns) {
  NvmeTier::Reclaim& reclaim = nvme_->reclaim();
  const Chunk& at = chunks_.at(chunk);
  const Index::Entry entry = index_->Read(at.slot);
  const uint64_t record_bytes = shm::RecordBytes(at.stored_bytes);
  if (namespaces_->OfId(entry.namespace_id) == nullptr) {
    DropChunk(chunk, ChunkCause::kEpochEnded);  // its sweep is still to come
    return Leaving::kLeft;
  }
  if (at.loading) return Leaving::kWaits;  // until then this is its only place
  const bool leased = at.lease_until_ns > now_ns;
  const uint64_t half = nvme_->log().segments()->segment_bytes() / 2;
  const bool dear = nvme_->policy().Worth(at.nvme_policy) > kCarryPrice * reclaim.price &&
                    reclaim.carried_bytes + record_bytes <= half;
  if (dear || leased) {
    // What was encoded once is carried as it is.
    const bool from_dram = at.in_dram && !IsEncoded(chunk);
    const Leaving leaving = from_dram ? CarryFromDram(chunk) : CarryFromLog(chunk, now_ns);
    if (leaving == Leaving::kLeft) reclaim.carried_bytes += record_bytes;
    return leaving;
  }
  if (at.in_dram) {
    ForgetReplica(chunk, Departure::kEvicted);
    chunks_.at(chunk).unwritten = ChunkCause::kEvictedBoth;
    return Leaving::kLeft;
  }
  ++nvme_->counts.evicted;
  nvme_->counts.evicted_bytes += entry.length;
  DropChunk(chunk, ChunkCause::kEvictedNvme);
  return Leaving::kLeft;
}

// Null when as many are on their way as may be.
NvmeTier::Carry* ChunkStore::TakeCarry(uint32_t chunk) {
  NvmeTier::Reclaim& reclaim = nvme_->reclaim();
  const auto free = std::find_if(reclaim.carries.begin(), reclaim.carries.end(),
                                 [](const Carry& carry) { return carry.step == Step::kNone; });
  if (free == reclaim.carries.end()) return nullptr;
  const Chunk& at = chunks_.at(chunk);
  const Index::Entry entry = index_->Read(at.slot);
  free->chunk = chunks_.TicketOf(chunk);
  free->place = at.nvme;
  free->identity = {
      .key = entry.key, .namespace_id = entry.namespace_id, .payload_bytes = entry.length};
  free->stored_bytes = at.stored_bytes;
  free->from_dram = false;
  return &*free;
}

void ChunkStore::ReleaseCarry(Carry& carry) {
  if (carry.from_dram && --pool_->at(carry.dram_segment).io_holds == 0) --held_segments_;
  nvme_->reclaim().buffer_bytes -= carry.buffer.size();
  carry.buffer = AlignedBytes();
  carry.from_dram = false;
  carry.step = Step::kNone;
}

ChunkStore::Leaving ChunkStore::CarryFromDram(uint32_t chunk) {
  const Chunk& at = chunks_.at(chunk);
  Segment& from = pool_->at(at.segment);
  if (!VerifyRecordInDram(at.segment, from.records[at.record])) {
    DropDamaged(at.segment, chunk);  // what the log has is read instead
    return Leaving::kWaits;
  }
  Carry* const carry = TakeCarry(chunk);
  if (carry == nullptr) return Leaving::kWaits;
  carry->from_dram = true;
  carry->dram_segment = at.segment;
  if (from.io_holds++ == 0) ++held_segments_;
  carry->step = Step::kThere;
  nvme_->reclaim().retry_ns = nvme_now_ns_;
  return Leaving::kLeft;
}

ChunkStore::Leaving ChunkStore::CarryFromLog(uint32_t chunk, int64_t now_ns) {
  NvmeTier::Reclaim& reclaim = nvme_->reclaim();
  const uint64_t record_bytes = shm::RecordBytes(chunks_.at(chunk).stored_bytes);
  if (reclaim.buffer_bytes != 0 && reclaim.buffer_bytes + record_bytes > kCarryBytesMax) {
    return Leaving::kWaits;
  }
  Carry* const carry = TakeCarry(chunk);
  if (carry == nullptr) return Leaving::kWaits;
  carry->buffer = AlignedBytes(record_bytes);
  reclaim.buffer_bytes += record_bytes;
  // With hardly a free segment left writes wait for this.
  const bool pressed = nvme_->log().segments()->free_count() <= 1;
  const LogRead read{.place = carry->place,
                     .bytes = record_bytes,
                     .into = carry->buffer.data(),
                     .io_class = pressed ? IoClass::kPrefetch : IoClass::kWriteBehind};
  const Status begun = nvme_->log().Read(
      read, [this, carry](const Status& status) { CarriedRead(*carry, status); }, now_ns);
  if (!begun.ok()) {  // it pauses after errors, or is full of reads
    ReleaseCarry(*carry);
    AbandonReclaim(now_ns);
    return Leaving::kWaits;
  }
  carry->step = Step::kReading;
  return Leaving::kLeft;
}

void ChunkStore::CarriedRead(Carry& carry, const Status& read) {
  Status status = read;
  if (status.ok()) status = VerifyRecord(carry.buffer.span(), carry.identity, carry.place);
  if (status.ok() && HeaderOf(carry).stored_bytes != carry.stored_bytes) {
    status = Status(StatusCode::kCorrupt, "record header: another length than was written");
  }
  if (status.code() == StatusCode::kCorrupt) {
    ++nvme_->counts.load_corrupt;
    nvme_->log().NoteCorrupt(carry.place);
  }
  if (status.ok() && IsCurrent(carry)) {
    carry.step = Step::kThere;  // the poll that this is part of appends it
    return;
  }
  if (!status.ok() && IsCurrent(carry)) {
    ++nvme_->counts.load_failed;
    const uint32_t chunk = carry.chunk.chunk;
    if (!DropReplica(chunk, CauseOfFailedRead(status))) QueueDemotion(chunk);  // heals from DRAM
  }
  ReleaseCarry(carry);
}

bool ChunkStore::IsCurrent(const Carry& carry) const {
  return chunks_.Lives(carry.chunk) && chunks_.at(carry.chunk.chunk).nvme == carry.place;
}

void ChunkStore::AppendCarried(Carry& carry, int64_t now_ns) {
  // A chunk that has left DRAM meanwhile is still there as long as its segment is held.
  if (!IsCurrent(carry)) return ReleaseCarry(carry);
  const Chunk& chunk = chunks_.at(carry.chunk.chunk);
  const uint8_t* payload = carry.buffer.data() + shm::kRecordHeaderBytes;
  const uint64_t* leaves = nullptr;
  if (carry.from_dram) {
    if (!chunk.in_dram || chunk.segment != carry.dram_segment) {
      ReleaseCarry(carry);
      return AbandonReclaim(now_ns);  // it is met there again, and read
    }
    const Segment& from = pool_->at(chunk.segment);
    const SegmentRecord& record = from.records[chunk.record];
    payload = from.memory.mapping().data() + record.offset + shm::kRecordHeaderBytes;
    leaves = from.leaves.data() + record.first_leaf;
  } else {
    leaves = HeaderOf(carry).leaves;
  }
  shm::RecordHeader header;
  BuildHeader(carry.identity, leaves, &header);
  if (carry.stored_bytes != carry.identity.payload_bytes) {
    SealHeader({.stored_bytes = carry.stored_bytes, .seal = HeaderOf(carry).seal}, &header);
  }
  LogAppend append{.header = &header,
                   .stored = {payload, carry.stored_bytes},
                   .reuse_class = nvme_->ClassOf(nvme_->policy().ReuseClass(chunk.nvme_policy)),
                   .urgent = true,
                   .verify = carry.from_dram};
  const auto done = [this, &carry](const LogPlace& place, const Status& status) {
    CarriedAppended(carry, place, status);
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
    nvme_->Charge(shm::RecordBytes(carry.stored_bytes));
    carry.step = Step::kAppending;
    return;
  }
  if (begun.code() == StatusCode::kNoSpace) return CarriedHasNoRoom(carry, now_ns);
  ReleaseCarry(carry);
  AbandonReclaim(now_ns);
}

void ChunkStore::CarriedHasNoRoom(Carry& carry, int64_t now_ns) {
  const uint32_t chunk = carry.chunk.chunk;
  ReleaseCarry(carry);
  if (chunks_.at(chunk).lease_until_ns > now_ns) return AbandonReclaim(now_ns);
  if (!DropReplica(chunk, ChunkCause::kEvictedNvme)) return;
  ++nvme_->counts.evicted;
  nvme_->counts.evicted_bytes += carry.identity.payload_bytes;
}

void ChunkStore::CarriedAppended(Carry& carry, const LogPlace& place, const Status& status) {
  const uint32_t bytes = carry.stored_bytes;
  const bool current = IsCurrent(carry);
  const ChunkTicket ticket = carry.chunk;
  ReleaseCarry(carry);
  if (!status.ok()) return AbandonReclaim(nvme_now_ns_);
  if (!current) {
    nvme_->log().MarkDead(place, bytes);  // it left meanwhile
    return;
  }
  Chunk& chunk = chunks_.at(ticket.chunk);
  nvme_->log().MarkDead(chunk.nvme, bytes);
  chunk.nvme = place;
  nvme_->residents(place.segment).push_back({.chunk = ticket, .offset_units = place.offset_units});
  ++nvme_->counts.moved;
  nvme_->counts.moved_bytes += carry.identity.payload_bytes;
}

// What is still in the segment stays there and is found; another try comes later.
void ChunkStore::AbandonReclaim(int64_t now_ns) {
  NvmeTier::Reclaim& reclaim = nvme_->reclaim();
  if (reclaim.active) reclaim.failed_segment = reclaim.segment;
  reclaim.active = false;
  reclaim.retry_ns = now_ns + kReclaimRetryNs;
}

}  // namespace terrace
