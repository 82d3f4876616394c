// The scrubber: reads what lies sealed in the NVMe log, a little at a time and after everybody
// else, so that damage is found while there is another copy, or at least before it is waited for.
//
// One record after the other, in the log's order; a burst, then a pause that spreads the log over
// the time that a pass shall take.

#include <algorithm>

#include "storage/base/limits.h"
#include "storage/base/log.h"
#include "storage/engine/chunk_store.h"
#include "storage/engine/nvme_tier.h"
#include "storage/tier/log_verify.h"

namespace terrace {
namespace {

constexpr uint64_t kBurstBytes = 4 * kMiB;  // fewer wake-ups than one a record
constexpr size_t kLooksPerPoll = 4096;      // 0.1 ms
constexpr int64_t kPauseNsMin = 50 * kNsPerMs;
constexpr int64_t kBusyRetryNs = kNsPerSecond;

}  // namespace

// Of a pass over all segments, the share that a burst is.
int64_t ChunkStore::ScrubPauseNs() const {
  const auto log_bytes = static_cast<double>(nvme_->log().segments()->count()) *
                         static_cast<double>(nvme_->log().segments()->segment_bytes());
  const double share = static_cast<double>(kBurstBytes) / log_bytes;
  return std::max(static_cast<int64_t>(share * static_cast<double>(nvme_->options().scrub_pass_ns)),
                  kPauseNsMin);
}

int64_t ChunkStore::ScrubWake() const {
  if (nvme_->options().scrub_pass_ns == 0 || !nvme_->ready() || draining_nvme_) return 0;
  const NvmeTier::Scrub& scrub = nvme_->scrub();
  return scrub.reading || nvme_->counts.chunk_count == 0 ? 0 : std::max<int64_t>(scrub.due_ns, 1);
}

void ChunkStore::ScrubNvme(int64_t now_ns) {
  NvmeTier::Scrub& scrub = nvme_->scrub();
  if (ScrubWake() == 0) return;
  if (scrub.due_ns == 0) scrub.due_ns = now_ns + ScrubPauseNs();  // after a start
  if (scrub.due_ns > now_ns) return;
  if (scrub.burst_bytes >= kBurstBytes) {
    scrub.burst_bytes = 0;
    scrub.due_ns = now_ns + ScrubPauseNs();
    return;
  }
  const uint32_t chunk = NextToScrub();
  if (chunk == kNoChunk) return;  // the next poll looks on, or the pass has ended
  if (!ReadScrubbed(chunk, now_ns)) scrub.due_ns = now_ns + kBusyRetryNs;
}

// The next chunk in a sealed segment; kNoChunk after so many looks, or at the end of a pass.
uint32_t ChunkStore::NextToScrub() {
  NvmeTier::Scrub& scrub = nvme_->scrub();
  const LogSegments& segments = *nvme_->log().segments();
  for (size_t looks = 0; looks < kLooksPerPoll; ++looks) {
    if (scrub.segment >= segments.count()) {
      scrub.segment = 0;
      scrub.next = 0;
      scrub.burst_bytes = kBurstBytes;  // a pause also when there was nothing
      ++nvme_->counts.scrub_passes;
      return kNoChunk;
    }
    const std::vector<NvmeTier::Resident>& residents = nvme_->residents(scrub.segment);
    const bool sealed = segments.at(scrub.segment).state == LogSegmentState::kSealed;
    if (!sealed || scrub.next >= residents.size()) {
      ++scrub.segment;
      scrub.next = 0;
      continue;
    }
    const NvmeTier::Resident& resident = residents[scrub.next++];
    if (Resides(resident, scrub.segment)) return resident.chunk.chunk;
  }
  return kNoChunk;
}

bool ChunkStore::ReadScrubbed(uint32_t chunk, int64_t now_ns) {
  NvmeTier::Scrub& scrub = nvme_->scrub();
  const Chunk& at = chunks_.at(chunk);
  const Index::Entry entry = index_->Read(at.slot);
  scrub.chunk = chunks_.TicketOf(chunk);
  scrub.place = at.nvme;
  scrub.identity = {
      .key = entry.key, .namespace_id = entry.namespace_id, .payload_bytes = entry.length};
  const uint64_t record_bytes = shm::RecordBytes(at.stored_bytes);
  scrub.record_bytes = record_bytes;
  if (scrub.buffer.size() < record_bytes) {
    scrub.buffer = AlignedBytes(shm::RecordBytes(chunk_bytes_max_));
  }
  const LogRead read{.place = scrub.place,
                     .bytes = record_bytes,
                     .into = scrub.buffer.data(),
                     .io_class = IoClass::kWriteBehind};
  const Status begun = nvme_->log().Read(
      read, [this](const Status& status) { ScrubbedRead(status); }, now_ns);
  if (!begun.ok()) return false;
  scrub.reading = true;
  scrub.burst_bytes += record_bytes;
  return true;
}

void ChunkStore::ScrubbedRead(const Status& read) {
  NvmeTier::Scrub& scrub = nvme_->scrub();
  scrub.reading = false;
  Status status = read;
  if (status.ok()) {
    status = VerifyRecord({scrub.buffer.data(), scrub.record_bytes}, scrub.identity, scrub.place);
  }
  if (status.ok()) {
    ++nvme_->counts.scrubbed;
    nvme_->counts.scrubbed_bytes += scrub.identity.payload_bytes;
    return;
  }
  const bool here = chunks_.Lives(scrub.chunk) && chunks_.at(scrub.chunk.chunk).nvme == scrub.place;
  if (!here || status.code() == StatusCode::kCancelled) return;  // it left meanwhile
  ++nvme_->counts.scrub_damaged;
  if (status.code() == StatusCode::kCorrupt) nvme_->log().NoteCorrupt(scrub.place);
  LogError("nvme: a record in segment " + std::to_string(scrub.place.segment) +
           " is damaged: " + status.ToString());
  const bool in_dram = chunks_.at(scrub.chunk.chunk).in_dram;
  DropReplica(scrub.chunk.chunk, CauseOfFailedRead(status));
  if (in_dram) QueueDemotion(scrub.chunk.chunk);  // it heals from there
}

}  // namespace terrace
