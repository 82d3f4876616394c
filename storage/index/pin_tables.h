#pragma once

// Every pin word that may hold a segment back: the sessions' tables and the daemon's own.
//
// Threads: belongs to one shard; the words themselves are written by clients at any time.

#include <atomic>
#include <cstdint>
#include <vector>

#include "proto/shm/index_layout.h"

namespace terrace {

using SessionId = uint64_t;

class PinTables {
 public:
  // A table joins before its index descriptor leaves the daemon.  `words` must outlive it here.
  void Add(SessionId session, std::atomic<uint64_t>* words, uint32_t count);

  // REQUIRES: the process is dead, or never saw the table.  The words are cleared.
  void Remove(SessionId session);

  // Any pin on this memfd?  Call after the seq_cst store that took the last slot away.
  bool IsPinned(uint32_t segment, uint64_t generation) const;

  // The sessions that pin it, for status.
  std::vector<SessionId> PinnedBy(uint32_t segment, uint64_t generation) const;

  // Pins of one session.
  uint32_t CountPins(SessionId session) const;

 private:
  struct Table {
    SessionId session;
    std::atomic<uint64_t>* words;
    uint32_t count;
  };
  std::vector<Table> tables_;
};

}  // namespace terrace
