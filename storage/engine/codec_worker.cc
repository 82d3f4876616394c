#include "storage/engine/codec_worker.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "storage/codec/frame_layout.h"
#include "storage/mem/guarded_copy.h"
#include "storage/record/copy_hash.h"
#include "storage/record/record.h"

namespace terrace {

void CodecWorker::Do(CodecJob& job) {
  job.status = job.work == CodecJob::Work::kEncode ? Encode(job) : Decode(job);
}

// Leaf by leaf, so that each is hashed while it is in the processor's cache.
Status CodecWorker::TakePlain(const CodecJob& job) {
  const uint32_t bytes = job.header.payload_bytes;
  if (plain_.size() < bytes) plain_.resize(bytes);
  for (uint32_t at = 0, leaf = 0; at < bytes; at += shm::kLeafBytes, ++leaf) {
    const size_t part = std::min(shm::kLeafBytes, bytes - at);
    Status copied = GuardedCopy(plain_.data() + at, job.plain + at, part);
    if (!copied.ok()) return copied;
    uint64_t hash = 0;
    HashLeaves(plain_.data() + at, part, &hash);
    if (hash == job.header.leaves[leaf]) continue;
    return Status(StatusCode::kCorrupt, "payload: leaf " + std::to_string(leaf) + " differs");
  }
  return Status::Ok();
}

Status CodecWorker::Encode(CodecJob& job) {
  if (Status taken = TakePlain(job); !taken.ok()) return taken;
  const std::span<const uint8_t> plain(plain_.data(), job.header.payload_bytes);
  const Geometry geometry{.element = job.element, .layers = job.layers};
  Result<Encoded> encoded = encoder_.Encode(plain, geometry, job.encoded);
  if (!encoded.ok()) return encoded.status();
  job.outcome = *encoded;
  return Status::Ok();
}

Status CodecWorker::Decode(CodecJob& job) {
  shm::RecordHeader header;
  std::memcpy(&header, job.record.data(), sizeof(header));
  if (Status valid = ValidateHeader(header, job.identity, job.place); !valid.ok()) return valid;
  if (header.codec != shm::kCodecFrames ||
      shm::RecordBytes(header.stored_bytes) != job.record.size()) {
    return Status(StatusCode::kCorrupt, "record header: stored_bytes is " +
                                            std::to_string(header.stored_bytes) +
                                            ", not what was read");
  }
  const std::span<const uint8_t> stored = job.record.subspan(sizeof(header), header.stored_bytes);
  shm::FrameTableHead head;
  if (stored.size() < sizeof(head)) return Status(StatusCode::kCorrupt, "frame table: cut short");
  std::memcpy(&head, stored.data(), sizeof(head));
  // Decode finds whether the table has this checksum.
  if (head.checksum != header.seal) {
    return Status(StatusCode::kCorrupt, "frame table: it is another record's");
  }
  uint8_t* const payload = job.into + sizeof(header);
  if (Status decoded = decoder_.Decode(stored, {payload, header.payload_bytes}); !decoded.ok()) {
    return decoded;
  }
  std::memcpy(job.into, &header, sizeof(header));
  return VerifyPayload(payload, header.payload_bytes, header.leaves);
}

}  // namespace terrace
