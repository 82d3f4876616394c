#pragma once

// Writes and judges record headers and payloads (proto/shm/record_layout.h).  Knows nothing of
// segments, tiers or where a header came from.
//
// What clients can write must be copied into private memory first (GuardedCopy) and judged there:
// these functions read their input more than once.
//
// Threads: pure functions, safe from any thread.

#include <cstddef>
#include <cstdint>

#include "proto/shm/chunk_key.h"
#include "proto/shm/record_layout.h"
#include "storage/base/status.h"

namespace terrace {

// What a record is: named by its slot, its claim or its own header.
struct RecordIdentity {
  shm::ChunkKey key;
  uint32_t namespace_id = 0;
  uint32_t payload_bytes = 0;

  friend bool operator==(const RecordIdentity&, const RecordIdentity&) = default;
};

// Where a record lies in the NVMe log (storage/tier).  Sequence 0 is no place there: DRAM.
struct LogPlace {
  uint64_t sequence = 0;      // of the segment's life
  uint32_t segment = 0;       // on the device
  uint32_t offset_units = 0;  // of the header from the segment's start, in 4 KiB

  friend bool operator==(const LogPlace&, const LogPlace&) = default;
};

// Leaves [first, first + count) of a payload.
struct LeafRange {
  uint32_t first = 0;
  uint32_t count = 0;
};

// Fills all 4 KiB of `header` for a plain payload, checksum included.  `leaves` holds
// LeafCount(identity.payload_bytes) hashes.
// REQUIRES: identity.key.valid(), bytes past its length zero; 1 <= payload_bytes <=
// kPayloadBytesMax.
void BuildHeader(const RecordIdentity& identity, const uint64_t* leaves, shm::RecordHeader* header);

// A payload that the log holds as frames instead (storage/codec).
struct EncodedForm {
  uint32_t stored_bytes = 0;  // table and frames
  uint64_t seal = 0;          // the table's checksum
};

// Makes a header of BuildHeader that of the encoded payload: leaves stay those of the plain one.
// REQUIRES: 1 <= stored_bytes < header->payload_bytes.
void SealHeader(const EncodedForm& form, shm::RecordHeader* header);

// Five bytes of a footer's entry.
inline constexpr uint64_t kAppendNumberMax = (uint64_t{1} << 40) - 1;

// Gives a header its place in the log, the number by which a later record of the same key is told
// from an earlier one, and the checksum that goes with them.
// REQUIRES: place.sequence >= 1; append_number <= kAppendNumberMax.
void PlaceHeader(const LogPlace& place, uint64_t append_number, shm::RecordHeader* header);

// Whether the header is one that BuildHeader can have written, for DRAM: magic, version, checksum,
// hash algorithm, plain codec, key, lengths, no place in the log, zeros where zeros belong.
// kCorrupt names the first field that differs.
Status CheckHeader(const shm::RecordHeader& header);

// The same for a header that PlaceHeader has put exactly there, of SealHeader too.  For recovery,
// which learns the identity from the header.
// REQUIRES: place.sequence >= 1.
Status CheckHeader(const shm::RecordHeader& header, const LogPlace& place);

// CheckHeader, and that it is the header of exactly this record.  kCorrupt names what differs.
Status ValidateHeader(const shm::RecordHeader& header, const RecordIdentity& expected);
Status ValidateHeader(const shm::RecordHeader& header, const RecordIdentity& expected,
                      const LogPlace& place);

// REQUIRES: CheckHeader says ok.
RecordIdentity IdentityOf(const shm::RecordHeader& header);

// Whether the payload's bytes are those that the leaf table describes, for the leaves in `range`.
// `payload` and `leaves` begin at the payload's and the table's start; other leaves are not read.
// kCorrupt names the first leaf that differs.
// REQUIRES: 1 <= payload_bytes <= kPayloadBytesMax; the range lies within
// LeafCount(payload_bytes).
Status VerifyPayload(const void* payload, uint32_t payload_bytes, const uint64_t* leaves,
                     LeafRange range);

// All of it.
Status VerifyPayload(const void* payload, uint32_t payload_bytes, const uint64_t* leaves);

// XXH3-64, seed 0: the hash of every checksum in records and in the log.
uint64_t HashBytes(const void* bytes, size_t count);

}  // namespace terrace
