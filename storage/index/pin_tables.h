#pragma once

// Every pin word that may hold a segment back: the sessions' tables and the daemon's own.
//
// Threads: belongs to one shard; the words themselves are written by clients at any time.

#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "proto/shm/index_layout.h"

namespace terrace {

using SessionId = uint64_t;

// What was pinned at one look at all the words.
class PinCensus {
 public:
  bool Has(uint32_t segment, uint64_t generation) const;
  std::vector<SessionId> SessionsOf(uint32_t segment, uint64_t generation) const;

 private:
  friend class PinTables;
  std::vector<std::pair<uint64_t, SessionId>> pins_;  // word and session, sorted, each once
};

class PinTables {
 public:
  // A table joins before its index descriptor leaves the daemon.  `words` must outlive it here.
  void Add(SessionId session, std::atomic<uint64_t>* words, uint32_t count);

  // REQUIRES: the process is dead, or never saw the table.  The words are cleared.
  void Remove(SessionId session);

  // Any pin on this memfd?  Call after the seq_cst store that took the last slot away.
  bool IsPinned(uint32_t segment, uint64_t generation) const;

  // One look for questions about many memfds.  What IsPinned says of its time holds here too.
  PinCensus Census() const;

  // Pins of one session.
  uint32_t CountPins(SessionId session) const;
  // The memfds under them, each once.
  uint32_t CountPinnedSegments(SessionId session) const;

 private:
  struct Table {
    SessionId session;
    std::atomic<uint64_t>* words;
    uint32_t count;
  };
  std::vector<Table> tables_;
};

}  // namespace terrace
