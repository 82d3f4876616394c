#include "storage/index/pin_tables.h"

#include <algorithm>

namespace terrace {

void PinTables::Add(SessionId session, std::atomic<uint64_t>* words, uint32_t count) {
  tables_.push_back(Table{session, words, count});
}

void PinTables::Remove(SessionId session) {
  for (const Table& table : tables_) {
    if (table.session != session) continue;
    for (uint32_t word = 0; word < table.count; ++word) {
      // Relaxed: nobody else is left who reads or writes it.
      table.words[word].store(0, std::memory_order_relaxed);
    }
  }
  std::erase_if(tables_, [&](const Table& table) { return table.session == session; });
}

// seq_cst, the second half of the agreement in lookup.h: with acquire a load may be answered before
// the store that took the slot away is seen.  They also are acquire towards Unpin: what a reader
// read under a word that is gone now was read before the bytes are rewritten.
bool PinTables::IsPinned(uint32_t segment, uint64_t generation) const {
  const uint64_t wanted = shm::PinWord(segment, generation);
  for (const Table& table : tables_) {
    for (uint32_t word = 0; word < table.count; ++word) {
      if (table.words[word].load(std::memory_order_seq_cst) == wanted) return true;
    }
  }
  return false;
}

std::vector<SessionId> PinTables::PinnedBy(uint32_t segment, uint64_t generation) const {
  const uint64_t wanted = shm::PinWord(segment, generation);
  std::vector<SessionId> sessions;
  for (const Table& table : tables_) {
    const bool pins =
        std::any_of(table.words, table.words + table.count, [&](const std::atomic<uint64_t>& word) {
          return word.load(std::memory_order_seq_cst) == wanted;
        });
    if (pins) sessions.push_back(table.session);
  }
  return sessions;
}

uint32_t PinTables::CountPins(SessionId session) const {
  uint32_t pins = 0;
  for (const Table& table : tables_) {
    if (table.session != session) continue;
    for (uint32_t word = 0; word < table.count; ++word) {
      // Relaxed: a count for status, nothing follows from it.
      if (table.words[word].load(std::memory_order_relaxed) != 0) ++pins;
    }
  }
  return pins;
}

}  // namespace terrace
