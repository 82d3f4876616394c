#include "storage/record/record.h"

#include <xxhash.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>

#include "storage/base/check.h"
#include "storage/record/copy_hash.h"

namespace terrace {
namespace {

using shm::RecordHeader;

Status Corrupt(std::string message) {
  return Status(StatusCode::kCorrupt, "record header: " + std::move(message));
}

std::string Differs(const char* field, uint64_t found, uint64_t expected) {
  return std::string(field) + " is " + std::to_string(found) + ", expected " +
         std::to_string(expected);
}

// Over the header with its checksum word zero.
uint64_t HeaderChecksum(const RecordHeader& header) {
  constexpr size_t kBefore = offsetof(RecordHeader, header_checksum);
  constexpr size_t kAfter = kBefore + sizeof(header.header_checksum);
  alignas(64) uint8_t bytes[sizeof(RecordHeader)];
  std::memcpy(bytes, &header, kBefore);
  std::memset(bytes + kBefore, 0, kAfter - kBefore);
  std::memcpy(bytes + kAfter, reinterpret_cast<const uint8_t*>(&header) + kAfter,
              sizeof(RecordHeader) - kAfter);
  return XXH3_64bits(bytes, sizeof(bytes));
}

bool AllZero(const void* from, const void* to) {
  const uint8_t* const begin = static_cast<const uint8_t*>(from);
  const uint8_t* const end = static_cast<const uint8_t*>(to);
  return std::all_of(begin, end, [](uint8_t byte) { return byte == 0; });
}

Status CheckKey(const RecordHeader& header) {
  const shm::ChunkKey key = IdentityOf(header).key;
  if (!key.valid()) return Corrupt("key length " + std::to_string(key.length));
  if (!AllZero(key.bytes() + key.byte_count(), key.bytes() + shm::kKeyBytes)) {
    return Corrupt("key is not zero past its length");
  }
  return Status::Ok();
}

// Only a log holds payloads in another form than their own.
Status CheckCodec(const RecordHeader& header) {
  if (header.codec == shm::kCodecPlain) return Status::Ok();
  if (header.codec != shm::kCodecFrames) {
    return Corrupt("unknown codec " + std::to_string(header.codec));
  }
  if (header.log_sequence == 0) return Corrupt("codec 1 outside a log");
  return Status::Ok();
}

Status CheckLengths(const RecordHeader& header) {
  const uint32_t bytes = header.payload_bytes;
  if (bytes < 1 || bytes > shm::kPayloadBytesMax) {
    return Corrupt("payload_bytes " + std::to_string(bytes) + " is not within 1.." +
                   std::to_string(shm::kPayloadBytesMax));
  }
  const bool plain = header.codec == shm::kCodecPlain;
  if (plain && header.stored_bytes != bytes) {
    return Corrupt(Differs("stored_bytes", header.stored_bytes, bytes));
  }
  if (!plain && (header.stored_bytes < 1 || header.stored_bytes >= bytes)) {
    return Corrupt("encoded stored_bytes " + std::to_string(header.stored_bytes) +
                   " is not below payload_bytes " + std::to_string(bytes));
  }
  if (header.leaf_count != shm::LeafCount(bytes)) {
    return Corrupt(Differs("leaf_count", header.leaf_count, shm::LeafCount(bytes)));
  }
  return Status::Ok();
}

Status CheckZeros(const RecordHeader& header) {
  if (header.codec == shm::kCodecPlain && header.seal != 0) {
    return Corrupt("seal is not zero though the payload is plain");
  }
  if (header.log_sequence == 0 && header.append_number != 0) {
    return Corrupt("append_number is not zero outside a log");
  }
  if (!AllZero(header.leaves + header.leaf_count, &header.append_number) ||
      !AllZero(header.padding, &header + 1)) {
    return Corrupt("bytes behind the leaf table are not zero");
  }
  return Status::Ok();
}

Status CheckPlace(const RecordHeader& header, const LogPlace& place) {
  if (header.log_sequence != place.sequence) {
    return Corrupt(Differs("log_sequence", header.log_sequence, place.sequence));
  }
  if (header.log_segment != place.segment) {
    return Corrupt(Differs("log_segment", header.log_segment, place.segment));
  }
  if (header.log_offset_units != place.offset_units) {
    return Corrupt(Differs("log_offset_units", header.log_offset_units, place.offset_units));
  }
  return Status::Ok();
}

Status CheckHeaderAt(const RecordHeader& header, const LogPlace& place) {
  if (header.magic != shm::kRecordMagic) return Corrupt("magic differs");
  if (header.version != shm::kRecordVersion) {
    return Corrupt(Differs("version", header.version, shm::kRecordVersion));
  }
  if (header.header_checksum != HeaderChecksum(header)) return Corrupt("checksum differs");
  if (Status at = CheckPlace(header, place); !at.ok()) return at;
  if (header.hash_algorithm != static_cast<uint8_t>(shm::HashAlgorithm::kXxh3_64)) {
    return Corrupt("unknown hash algorithm " + std::to_string(header.hash_algorithm));
  }
  if (Status codec = CheckCodec(header); !codec.ok()) return codec;
  if (Status key = CheckKey(header); !key.ok()) return key;
  if (Status lengths = CheckLengths(header); !lengths.ok()) return lengths;
  return CheckZeros(header);
}

// Of a header that is one.
Status CheckIdentity(const RecordHeader& header, const RecordIdentity& expected) {
  const RecordIdentity found = IdentityOf(header);
  if (found.namespace_id != expected.namespace_id) {
    return Corrupt(Differs("namespace", found.namespace_id, expected.namespace_id));
  }
  if (found.key.length != expected.key.length) {
    return Corrupt(Differs("key length", found.key.length, expected.key.length));
  }
  if (found.key.part != expected.key.part) {
    return Corrupt(Differs("part", found.key.part, expected.key.part));
  }
  if (found.key != expected.key) return Corrupt("key differs");
  if (found.payload_bytes != expected.payload_bytes) {
    return Corrupt(Differs("payload_bytes", found.payload_bytes, expected.payload_bytes));
  }
  return Status::Ok();
}

}  // namespace

void BuildHeader(const RecordIdentity& identity, const uint64_t* leaves, RecordHeader* header) {
  TERRACE_CHECK(identity.key.valid());
  TERRACE_CHECK(identity.payload_bytes >= 1 && identity.payload_bytes <= shm::kPayloadBytesMax);
  std::memset(header, 0, sizeof(*header));
  header->magic = shm::kRecordMagic;
  header->version = shm::kRecordVersion;
  header->hash_algorithm = static_cast<uint8_t>(shm::HashAlgorithm::kXxh3_64);
  header->key_length = identity.key.length;
  header->part = identity.key.part;
  std::memcpy(header->key, identity.key.words.data(), sizeof(header->key));
  header->namespace_id = identity.namespace_id;
  header->payload_bytes = identity.payload_bytes;
  header->stored_bytes = identity.payload_bytes;
  header->leaf_count = shm::LeafCount(identity.payload_bytes);
  std::memcpy(header->leaves, leaves, header->leaf_count * sizeof(uint64_t));
  header->header_checksum = HeaderChecksum(*header);
}

void SealHeader(const EncodedForm& form, RecordHeader* header) {
  TERRACE_CHECK(form.stored_bytes >= 1 && form.stored_bytes < header->payload_bytes);
  header->codec = shm::kCodecFrames;
  header->stored_bytes = form.stored_bytes;
  header->seal = form.seal;
  header->header_checksum = HeaderChecksum(*header);
}

void PlaceHeader(const LogPlace& place, uint64_t append_number, RecordHeader* header) {
  TERRACE_CHECK(place.sequence >= 1 && append_number <= kAppendNumberMax);
  header->append_number = append_number;
  header->log_sequence = place.sequence;
  header->log_segment = place.segment;
  header->log_offset_units = place.offset_units;
  header->header_checksum = HeaderChecksum(*header);
}

Status CheckHeader(const RecordHeader& header) { return CheckHeaderAt(header, LogPlace{}); }

Status CheckHeader(const RecordHeader& header, const LogPlace& place) {
  TERRACE_CHECK(place.sequence >= 1);
  return CheckHeaderAt(header, place);
}

Status ValidateHeader(const RecordHeader& header, const RecordIdentity& expected) {
  if (Status checked = CheckHeader(header); !checked.ok()) return checked;
  return CheckIdentity(header, expected);
}

Status ValidateHeader(const RecordHeader& header, const RecordIdentity& expected,
                      const LogPlace& place) {
  if (Status checked = CheckHeader(header, place); !checked.ok()) return checked;
  return CheckIdentity(header, expected);
}

RecordIdentity IdentityOf(const RecordHeader& header) {
  RecordIdentity identity;
  std::memcpy(identity.key.words.data(), header.key, sizeof(header.key));
  identity.key.part = header.part;
  identity.key.length = header.key_length;
  identity.namespace_id = header.namespace_id;
  identity.payload_bytes = header.payload_bytes;
  return identity;
}

Status VerifyPayload(const void* payload, uint32_t payload_bytes, const uint64_t* leaves,
                     LeafRange range) {
  TERRACE_CHECK(payload_bytes >= 1 && payload_bytes <= shm::kPayloadBytesMax);
  const uint32_t leaf_count = shm::LeafCount(payload_bytes);
  TERRACE_CHECK(range.first <= leaf_count && range.count <= leaf_count - range.first);
  if (range.count == 0) return Status::Ok();

  const size_t from = size_t{range.first} * shm::kLeafBytes;
  const size_t to = std::min<size_t>(from + size_t{range.count} * shm::kLeafBytes, payload_bytes);
  uint64_t found[shm::kLeafCountMax];
  HashLeaves(static_cast<const uint8_t*>(payload) + from, to - from, found);
  for (uint32_t i = 0; i < range.count; ++i) {
    if (found[i] == leaves[range.first + i]) continue;
    return Status(StatusCode::kCorrupt,
                  "payload: leaf " + std::to_string(range.first + i) + " differs");
  }
  return Status::Ok();
}

Status VerifyPayload(const void* payload, uint32_t payload_bytes, const uint64_t* leaves) {
  const LeafRange all{.first = 0, .count = shm::LeafCount(payload_bytes)};
  return VerifyPayload(payload, payload_bytes, leaves, all);
}

uint64_t HashBytes(const void* bytes, size_t count) { return XXH3_64bits(bytes, count); }

}  // namespace terrace
