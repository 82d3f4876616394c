#pragma once

// What the daemon knows of each ready chunk beyond its slot: where its bytes are, in DRAM, on NVMe
// or in both.  Dense: the slots of an index are many more than its chunks.
//
// Threads: belongs to one shard.

#include <cstdint>
#include <deque>
#include <vector>

#include "storage/base/check.h"
#include "storage/engine/chunk_event.h"
#include "storage/index/index.h"
#include "storage/policy/policy.h"
#include "storage/record/record.h"

namespace terrace {

inline constexpr uint32_t kNoChunk = 0;

struct Chunk {
  SlotId slot = 0;
  // In DRAM; no meaning unless in_dram.
  uint32_t segment = 0;
  uint32_t record = 0;  // index into the segment's records
  PolicyHandle policy = 0;
  // On NVMe; no meaning unless on_nvme().
  PolicyHandle nvme_policy = 0;
  uint32_t put_at_s = 0;  // CLOCK_REALTIME; 0: before this life of the daemon
  LogPlace nvme;          // sequence 0: not there
  // Behind the header there; other than the payload's bytes: as frames of the codec.
  uint32_t stored_bytes = 0;
  int64_t lease_until_ns = 0;  // 0: none
  uint64_t serial = 0;         // another one for each chunk that ever was in this place
  bool used = false;
  bool in_dram = false;
  bool queued = false;     // waits to be written
  bool demoting = false;   // is being written
  bool urgent = false;     // somebody waits for its being written
  bool loading = false;    // is being read into DRAM
  bool ungainful = false;  // the codec has tried: it is written as it is
  // Why it is not on NVMe, when it neither is nor waits for it; kNone: nobody asked for it.
  ChunkCause unwritten = ChunkCause::kNone;

  bool on_nvme() const { return nvme.sequence != 0; }
};

// Names a chunk across a time in which it may go.
struct ChunkTicket {
  uint32_t chunk = kNoChunk;
  uint64_t serial = 0;
};

class ChunkTable {
 public:
  void Resize(uint64_t slot_count) { of_slot_.assign(slot_count, kNoChunk); }

  // The ready chunk in a slot, or kNoChunk.
  uint32_t OfSlot(SlotId slot) const { return of_slot_[slot]; }

  uint32_t Add(SlotId slot) {
    if (free_.empty()) {
      chunks_.emplace_back();
      free_.push_back(static_cast<uint32_t>(chunks_.size() - 1));
    }
    const uint32_t chunk = free_.back();
    free_.pop_back();
    chunks_[chunk] = Chunk{};
    chunks_[chunk].slot = slot;
    chunks_[chunk].serial = ++serial_;
    chunks_[chunk].used = true;
    of_slot_[slot] = chunk;
    return chunk;
  }

  void Remove(uint32_t chunk) {
    TERRACE_CHECK(chunks_[chunk].used);
    of_slot_[chunks_[chunk].slot] = kNoChunk;
    chunks_[chunk].used = false;
    free_.push_back(chunk);
  }

  ChunkTicket TicketOf(uint32_t chunk) const {
    return {.chunk = chunk, .serial = chunks_[chunk].serial};
  }
  bool Lives(const ChunkTicket& ticket) const {
    return chunks_[ticket.chunk].used && chunks_[ticket.chunk].serial == ticket.serial;
  }

  Chunk& at(uint32_t chunk) { return chunks_[chunk]; }
  const Chunk& at(uint32_t chunk) const { return chunks_[chunk]; }
  uint64_t size() const { return chunks_.size() - 1 - free_.size(); }

 private:
  std::vector<uint32_t> of_slot_;
  // Deques: growing a vector of millions would stall the shard.
  std::deque<Chunk> chunks_ = std::deque<Chunk>(1);  // place 0 is kNoChunk
  std::deque<uint32_t> free_;
  uint64_t serial_ = 0;
};

}  // namespace terrace
