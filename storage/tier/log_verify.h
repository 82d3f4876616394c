#pragma once

// Whether what was read from the log is the record that was asked for.  Nothing read from a device
// may be used before one of these said Ok.
//
// Threads: pure functions, safe from any thread.

#include <cstdint>
#include <span>

#include "proto/shm/record_layout.h"
#include "storage/base/status.h"
#include "storage/record/record.h"

namespace terrace {

// A whole record as it is stored, header first: an encoded one by its frame table and the hashes
// of its frames, so that what they decode to is still to be judged by the leaves.  kCorrupt names
// what differs.
Status VerifyRecord(std::span<const uint8_t> record, const RecordIdentity& expected,
                    const LogPlace& place);

// A part of the stored payload that begins at a leaf and ends at a leaf's end or the payload's,
// under a header that was read apart.  `offset` is from the payload's start.
Status VerifyRange(const shm::RecordHeader& header, const RecordIdentity& expected,
                   const LogPlace& place, uint64_t offset, std::span<const uint8_t> bytes);

// The leaves alone, under a header that has been checked.  kInvalid for an encoded record.
Status VerifyLeaves(const shm::RecordHeader& header, uint64_t offset,
                    std::span<const uint8_t> bytes);

}  // namespace terrace
