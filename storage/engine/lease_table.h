#pragma once

// The chunks that must stay until a time, in the order in which that ends, and the room they take.
//
// Threads: belongs to one shard.

#include <cstdint>
#include <set>
#include <utility>

#include "storage/base/check.h"
#include "storage/engine/chunk_table.h"

namespace terrace {

class LeaseTable {
 public:
  // From until_ns = 0 or less than `until_ns` to it.  `record_bytes` is always the chunk's.
  void Extend(ChunkTable& chunks, uint32_t chunk, uint64_t record_bytes, int64_t until_ns) {
    Chunk& leased = chunks.at(chunk);
    if (until_ns <= leased.lease_until_ns) return;
    End(chunks, chunk, record_bytes);
    leased.lease_until_ns = until_ns;
    ends_.emplace(until_ns, chunk);
    bytes_ += record_bytes;
  }

  // Without effect on a chunk that is not leased.
  void End(ChunkTable& chunks, uint32_t chunk, uint64_t record_bytes) {
    Chunk& leased = chunks.at(chunk);
    if (leased.lease_until_ns == 0) return;
    TERRACE_CHECK(ends_.erase({leased.lease_until_ns, chunk}) == 1);
    leased.lease_until_ns = 0;
    bytes_ -= record_bytes;
  }

  // A chunk whose lease ended at `now_ns` or before, or kNoChunk.
  uint32_t Expired(int64_t now_ns) const {
    return ends_.empty() || ends_.begin()->first > now_ns ? kNoChunk : ends_.begin()->second;
  }
  // 0: no lease.
  int64_t NextEnd() const { return ends_.empty() ? 0 : ends_.begin()->first; }

  uint64_t count() const { return ends_.size(); }
  uint64_t bytes() const { return bytes_; }

 private:
  std::set<std::pair<int64_t, uint32_t>> ends_;
  uint64_t bytes_ = 0;
};

}  // namespace terrace
