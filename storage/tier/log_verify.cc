#include "storage/tier/log_verify.h"

#include <cstring>
#include <string>

#include "storage/base/check.h"
#include "storage/codec/frame_check.h"
#include "storage/record/copy_hash.h"

namespace terrace {

Status VerifyRecord(std::span<const uint8_t> record, const RecordIdentity& expected,
                    const LogPlace& place) {
  const Status cut_short(StatusCode::kCorrupt, "record is cut short");
  shm::RecordHeader header;
  if (record.size() < sizeof(header)) return cut_short;
  std::memcpy(&header, record.data(), sizeof(header));
  if (Status valid = ValidateHeader(header, expected, place); !valid.ok()) return valid;
  if (record.size() < shm::RecordBytes(header.stored_bytes)) return cut_short;
  if (header.codec == shm::kCodecFrames) {
    FrameCheck check;
    check.Begin(header.payload_bytes, header.stored_bytes, header.seal);
    return check.Take(record.subspan(sizeof(header), header.stored_bytes));
  }
  return VerifyPayload(record.data() + sizeof(header), header.payload_bytes, header.leaves);
}

Status VerifyRange(const shm::RecordHeader& header, const RecordIdentity& expected,
                   const LogPlace& place, uint64_t offset, std::span<const uint8_t> bytes) {
  if (Status valid = ValidateHeader(header, expected, place); !valid.ok()) return valid;
  return VerifyLeaves(header, offset, bytes);
}

Status VerifyLeaves(const shm::RecordHeader& header, uint64_t offset,
                    std::span<const uint8_t> bytes) {
  if (header.codec != shm::kCodecPlain) {
    return Status(StatusCode::kInvalid, "an encoded payload has no leaves of its own");
  }
  const uint64_t end = offset + bytes.size();
  if (bytes.empty() || offset % shm::kLeafBytes != 0 || end > header.payload_bytes ||
      (end % shm::kLeafBytes != 0 && end != header.payload_bytes)) {
    return Status(StatusCode::kInvalid, "not whole leaves of the payload");
  }
  uint64_t found[shm::kLeafCountMax];
  HashLeaves(bytes.data(), bytes.size(), found);
  const uint32_t first = static_cast<uint32_t>(offset / shm::kLeafBytes);
  const uint32_t count = shm::LeafCount(bytes.size());
  for (uint32_t i = 0; i < count; ++i) {
    if (found[i] == header.leaves[first + i]) continue;
    return Status(StatusCode::kCorrupt, "payload: leaf " + std::to_string(first + i) + " differs");
  }
  return Status::Ok();
}

}  // namespace terrace
