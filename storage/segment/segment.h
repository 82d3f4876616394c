#pragma once

// One memfd of a tier, filled front to back with records and reclaimed whole, and what the daemon
// keeps of it in private memory: where its records lie and their leaf hashes.
//
// A segment knows nothing of keys' meaning, worth or pins.
//
// Threads: belongs to one shard.

#include <cstdint>
#include <map>
#include <vector>

#include "storage/mem/memory_file.h"

namespace terrace {

// free --Open--> open --Seal--> sealed --Drain--> draining --Free | Replace--> free
// missing: its memfd was given up and the machine has no memory for another yet.
enum class SegmentState : uint8_t { kFree, kOpen, kSealed, kDraining, kMissing };

// Who may write.  A memfd that a client ever mapped writable is never filled by the daemon, and
// the other way round; only a fresh memfd is neither.
enum class SegmentKind : uint8_t { kFresh, kLeased, kDaemonFilled };

// A ready record, in the order of commits.
struct SegmentRecord {
  uint32_t chunk = 0;  // of the chunk table; another chunk or place there: this record is dead
  uint32_t payload_bytes = 0;
  uint64_t offset = 0;      // of the record's header
  uint32_t first_leaf = 0;  // into Segment::leaves
};

struct Segment {
  MemoryFile memory;
  uint64_t generation = 0;
  SegmentState state = SegmentState::kFree;
  SegmentKind kind = SegmentKind::kFresh;

  uint64_t owner = 0;  // the session that appends to it
  uint32_t reuse_class = 0;
  int64_t appended_ns = 0;
  int64_t draining_since_ns = 0;
  // What its reclaim would have cost when it was looked at last; 0: not yet since it was opened.
  double last_loss = 0;

  uint64_t fill_bytes = 0;     // records appended, padding included
  uint64_t live_bytes = 0;     // of them ready, padding included
  uint64_t padding_bytes = 0;  // alignment inside live_bytes
  uint64_t claimed_bytes = 0;  // being written
  uint64_t leased_bytes = 0;   // inside live_bytes: what reclaim may not drop
  uint32_t open_claims = 0;
  uint32_t io_holds = 0;  // writes to a slower tier that still read it

  std::vector<SegmentRecord> records;
  std::vector<uint64_t> leaves;
  std::vector<uint64_t> writers;         // sessions that may have it mapped writable
  std::map<uint64_t, uint32_t> poisons;  // session -> ended claims that it has not acknowledged

  uint64_t dead_bytes() const { return fill_bytes - live_bytes - claimed_bytes; }
};

}  // namespace terrace
