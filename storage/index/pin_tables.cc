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

PinCensus PinTables::Census() const {
  PinCensus census;
  for (const Table& table : tables_) {
    for (uint32_t word = 0; word < table.count; ++word) {
      const uint64_t pin = table.words[word].load(std::memory_order_seq_cst);
      if (pin != 0) census.pins_.emplace_back(pin, table.session);
    }
  }
  std::sort(census.pins_.begin(), census.pins_.end());
  census.pins_.erase(std::unique(census.pins_.begin(), census.pins_.end()), census.pins_.end());
  return census;
}

bool PinCensus::Has(uint32_t segment, uint64_t generation) const {
  const std::pair wanted(shm::PinWord(segment, generation), SessionId{0});
  const auto at = std::lower_bound(pins_.begin(), pins_.end(), wanted);
  return at != pins_.end() && at->first == wanted.first;
}

std::vector<SessionId> PinCensus::SessionsOf(uint32_t segment, uint64_t generation) const {
  const std::pair wanted(shm::PinWord(segment, generation), SessionId{0});
  std::vector<SessionId> sessions;
  for (auto at = std::lower_bound(pins_.begin(), pins_.end(), wanted);
       at != pins_.end() && at->first == wanted.first; ++at) {
    sessions.push_back(at->second);
  }
  return sessions;
}

uint32_t PinTables::CountPinnedSegments(SessionId session) const {
  std::vector<uint64_t> pinned;
  for (const Table& table : tables_) {
    if (table.session != session) continue;
    for (uint32_t word = 0; word < table.count; ++word) {
      // Relaxed: as for CountPins.
      const uint64_t pin = table.words[word].load(std::memory_order_relaxed);
      if (pin != 0) pinned.push_back(pin);
    }
  }
  std::sort(pinned.begin(), pinned.end());
  return static_cast<uint32_t>(std::unique(pinned.begin(), pinned.end()) - pinned.begin());
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
