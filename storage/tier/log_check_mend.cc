// What is written to mend a segment, and in which order.
#include <cstring>

#include "storage/record/record.h"
#include "storage/tier/log_check_segment.h"

namespace terrace {
namespace {

Status WriteBlock(BlockingDevice& device, uint64_t offset, const void* block) {
  AlignedBytes memory(kLogBlockBytes);
  if (block != nullptr) std::memcpy(memory.data(), block, kLogBlockBytes);
  return device.Write(offset, memory.span());
}

// Trailer first: under a head without one nothing but headers counts, and under a trailer without a
// head its records would.
Status Release(BlockingDevice& device, uint64_t from, uint64_t segment_bytes) {
  for (const uint64_t at : {from + segment_bytes - kLogBlockBytes, from}) {
    if (Status written = WriteBlock(device, at, nullptr); !written.ok()) return written;
    if (Status synced = device.Sync(); !synced.ok()) return synced;
  }
  return Status::Ok();
}

// In the place of a damaged header: as long as the record was, of no namespace (ids begin at 1) and
// with leaves that no payload has.  Headers that are followed lead past it, should the new footer
// not get there whole; a record of it is never served.
void BuildTombstone(const FooterEntry& entry, const LogPlace& place, shm::RecordHeader* header) {
  RecordIdentity identity = IdentityOf(entry);
  identity.namespace_id = 0;
  identity.payload_bytes = entry.stored_bytes;
  const std::vector<uint64_t> leaves(shm::LeafCount(entry.stored_bytes), 0);
  BuildHeader(identity, leaves.data(), header);
  PlaceHeader(place, AppendNumberOf(entry), header);
}

}  // namespace

Status MendSegment(BlockingDevice& device, const LogIdentity& identity, uint32_t segment,
                   const SegmentVerdict& verdict) {
  const uint64_t from = SegmentOffset(segment, identity.segment_bytes);
  if (verdict.release) return Release(device, from, identity.segment_bytes);
  for (const FooterEntry& entry : verdict.broken) {
    shm::RecordHeader tombstone;
    BuildTombstone(
        entry,
        {.sequence = verdict.sequence, .segment = segment, .offset_units = entry.offset_units},
        &tombstone);
    const uint64_t at = from + uint64_t{entry.offset_units} * kLogBlockBytes;
    if (Status written = WriteBlock(device, at, &tombstone); !written.ok()) return written;
  }
  if (!verdict.broken.empty()) {
    if (Status synced = device.Sync(); !synced.ok()) return synced;
  }
  if (verdict.write_tail) {
    AlignedBytes tail(TailBytes(verdict.good.size()));
    BuildTail(identity, segment, verdict.sequence, verdict.good, verdict.fill_bytes, tail.span());
    const uint64_t at = from + identity.segment_bytes - tail.size();
    if (Status written = device.Write(at, tail.span()); !written.ok()) return written;
    if (Status synced = device.Sync(); !synced.ok()) return synced;
  }
  if (!verdict.write_head) return Status::Ok();
  SegmentHead head;
  BuildSegmentHead(identity, segment, verdict.sequence, &head);
  if (Status written = WriteBlock(device, from, &head); !written.ok()) return written;
  return device.Sync();
}

}  // namespace terrace
