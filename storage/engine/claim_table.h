#pragma once

// Claims: the rights to fill absent keys.  Ids carry a serial, so an id of an ended claim never
// names a later one.
//
//   open --Commit | Abort--> gone        open --End--> ended --Acknowledge | death--> gone
//
// Threads: belongs to one shard.

#include <cstdint>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "proto/shm/chunk_key.h"
#include "storage/base/limits.h"
#include "storage/index/index.h"
#include "storage/index/pin_tables.h"

namespace terrace {

struct Claim {
  uint64_t id = 0;
  SessionId session = 0;
  SlotId slot = 0;
  uint32_t namespace_id = 0;
  shm::ChunkKey key;
  uint32_t payload_bytes = 0;
  uint32_t segment = 0;
  uint64_t generation = 0;
  uint64_t offset = 0;
  int64_t deadline_ns = 0;
  bool ended = false;
};

class ClaimTable {
 public:
  // Null when the session already has kClaimCountMax.
  Claim* Add(const Claim& claim);

  // The session's claim of this id, open or ended; null when there is none.
  Claim* Find(SessionId session, uint64_t id);

  // From open to ended: its deadline no longer counts.
  void End(Claim& claim);

  void Remove(uint64_t id);

  // An open claim whose deadline has passed, or null.
  Claim* Expired(int64_t now_ns);
  // The earliest deadline of an open claim; 0 without one.
  int64_t NextDeadline() const;

  std::vector<uint64_t> OfSession(SessionId session) const;
  uint32_t CountOf(SessionId session) const;
  uint64_t open_count() const { return deadlines_.size(); }

 private:
  std::unordered_map<uint64_t, Claim> claims_;
  std::unordered_map<SessionId, std::set<uint64_t>> by_session_;
  std::set<std::pair<int64_t, uint64_t>> deadlines_;
  uint64_t next_id_ = 1;
};

}  // namespace terrace
