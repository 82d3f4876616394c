#include "storage/tier/log_verify.h"

#include <cstring>
#include <string>

#include "storage/base/check.h"
#include "storage/record/copy_hash.h"

namespace terrace {

Status VerifyRecord(std::span<const uint8_t> record, const RecordIdentity& expected,
                    const LogPlace& place) {
  if (record.size() < shm::RecordBytes(expected.payload_bytes)) {
    return Status(StatusCode::kCorrupt, "record is cut short");
  }
  shm::RecordHeader header;
  std::memcpy(&header, record.data(), sizeof(header));
  if (Status valid = ValidateHeader(header, expected, place); !valid.ok()) return valid;
  return VerifyPayload(record.data() + sizeof(header), header.payload_bytes, header.leaves);
}

Status VerifyRange(const shm::RecordHeader& header, const RecordIdentity& expected,
                   const LogPlace& place, uint64_t offset, std::span<const uint8_t> bytes) {
  if (Status valid = ValidateHeader(header, expected, place); !valid.ok()) return valid;
  return VerifyLeaves(header, offset, bytes);
}

Status VerifyLeaves(const shm::RecordHeader& header, uint64_t offset,
                    std::span<const uint8_t> bytes) {
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
