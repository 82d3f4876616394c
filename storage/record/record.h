#pragma once

// Writes and judges record headers and payloads (proto/shm/record_layout.h).  Knows nothing of
// segments, tiers or where a header came from.
//
// What clients can write must be copied into private memory first (GuardedCopy) and judged there:
// these functions read their input more than once.
//
// Threads: pure functions, safe from any thread.

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

// Whether the header is one that BuildHeader can have written: magic, version, checksum, hash
// algorithm, codec, key, lengths, zeros where zeros belong.  kCorrupt names the first field that
// differs.  For recovery, which learns the identity from the header.
Status CheckHeader(const shm::RecordHeader& header);

// CheckHeader, and that it is the header of exactly this record.  kCorrupt names what differs.
Status ValidateHeader(const shm::RecordHeader& header, const RecordIdentity& expected);

// REQUIRES: CheckHeader(header).ok().
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

}  // namespace terrace
