#pragma once

// What became of a chunk that is not to be had, and why: the words between the flows that know it
// and those who keep it (chunk_history.h, and whoever listens).
//
// Threads: values.

#include <cstdint>
#include <functional>

#include "proto/shm/chunk_key.h"
#include "storage/base/status.h"
#include "storage/policy/policy.h"

namespace terrace {

// Stored by the catalog and sent to clients: never renumber.
enum class ChunkCause : uint8_t {
  kNone = 0,              // nothing to tell
  kEvictedDram = 1,       // its room in DRAM was worth more, and there is no NVMe tier to write to
  kRemoved = 2,           // by name
  kCleared = 3,           // with its namespace
  kEpochEnded = 4,        // its namespace was bumped
  kDamagedDram = 5,       // its bytes in DRAM were no longer those of the commit
  kAbandoned = 6,         // a put began and never ended: deadline, or its process died
  kNoRoom = 7,            // refused: the pool gave no room for it
  kEvictedNvme = 8,       // its room on NVMe was worth more
  kEvictedUnwritten = 9,  // left DRAM while it still waited to be written to NVMe
  kEvictedNotAdmitted = 10,  // left DRAM, and admission had declined to write it
  kEvictedQueueFull = 11,    // left DRAM, and too many others waited to be written
  kEvictedTooLarge = 12,     // left DRAM, and fits no segment of the log
  kEvictedBoth = 13,         // left NVMe, then DRAM before it was written again
  kDamagedNvme = 14,         // its bytes on NVMe were not those that were written
  kDamagedForClient = 15,    // a client compared the bytes and found them damaged
  kReadFailed = 16,          // it could not be read from NVMe
  kQuarantined = 17,         // its segment of the log failed too often
  kHeaderDiffers = 18,       // refused at commit: the header was not the one of its claim
  kAborted = 19,             // its put was taken back
  kIndexFull = 20,           // refused: no slot of the index near its place
  kClaimsFull = 21,          // refused: the session had as many puts open as it may
  kNoRoomToLoad = 22,        // on NVMe, but no room in DRAM to read it into
};
inline constexpr uint8_t kChunkCauseLast = 22;

// Refused at the door: nothing left.
constexpr bool IsRefusal(ChunkCause cause) {
  return cause == ChunkCause::kNoRoom || cause == ChunkCause::kIndexFull ||
         cause == ChunkCause::kClaimsFull || cause == ChunkCause::kNoRoomToLoad;
}

// What the policy makes of it: whether its key is worth remembering.
constexpr Departure DepartureOf(ChunkCause cause) {
  switch (cause) {
    case ChunkCause::kEvictedDram:
    case ChunkCause::kEvictedNvme:
    case ChunkCause::kEvictedUnwritten:
    case ChunkCause::kEvictedNotAdmitted:
    case ChunkCause::kEvictedQueueFull:
    case ChunkCause::kEvictedTooLarge:
    case ChunkCause::kEvictedBoth: return Departure::kEvicted;
    case ChunkCause::kNone:
    case ChunkCause::kRemoved:
    case ChunkCause::kCleared:
    case ChunkCause::kEpochEnded:
    case ChunkCause::kDamagedDram:
    case ChunkCause::kAbandoned:
    case ChunkCause::kNoRoom:
    case ChunkCause::kDamagedNvme:
    case ChunkCause::kDamagedForClient:
    case ChunkCause::kReadFailed:
    case ChunkCause::kQuarantined:
    case ChunkCause::kHeaderDiffers:
    case ChunkCause::kAborted:
    case ChunkCause::kIndexFull:
    case ChunkCause::kClaimsFull:
    case ChunkCause::kNoRoomToLoad: return Departure::kRemoved;
  }
  return Departure::kRemoved;
}

inline ChunkCause CauseOfFailedRead(const Status& read) {
  return read.code() == StatusCode::kCorrupt ? ChunkCause::kDamagedNvme : ChunkCause::kReadFailed;
}

struct ChunkEvent {
  shm::ChunkKey key;
  uint32_t label_tag = 0;  // LabelTag (chunk_history.h)
  uint32_t namespace_id = 0;
  uint32_t payload_bytes = 0;
  ChunkCause cause = ChunkCause::kNone;
  int64_t wall_ms = 0;  // since 1970; 0: not known
};

// Called on the shard's thread, in the midst of a flow: it must return at once and call nothing of
// the store.
using ChunkListener = std::function<void(const ChunkEvent& event)>;

}  // namespace terrace
