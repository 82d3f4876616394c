#pragma once

// One session's shared memory: rings, request blocks, pin table, touch ring.  Written by the client
// and the daemon, each word by one of them (said beside it), except pin words named in a
// submission: those belong to the daemon until the completion has been consumed.  Drawn in
// docs/format.md; pinned by a golden test.
//
// A request is a numbered block of keys (client) and results (daemon).  The client fills a free
// block, pushes an entry that names it, and may not touch it until the completion that names it has
// been consumed.  There are as many completion entries as blocks, so an accepted submission always
// has a completion entry: each completes exactly once, by its deadline at the latest.
//
// To the daemon everything here is hostile: it copies an entry, then checks the copy.  Its own
// counters and the completions it wrote lie in memory that the client can change too, so it goes
// by copies of its own and only ever stores them here.
//
// An entry is written before the release store of the counter that covers it, and read after an
// acquire load of that counter.  Two pairs decide about sleep and are therefore seq_cst, each side
// storing its own word before it loads the other's: submit_tail | daemon_sleeping, and
// complete_tail | client_waiting.  With less, both may miss each other, and nobody wakes.
//
// Threads: see above; rings are single-producer single-consumer between the two processes, the
// library serialises its own threads.

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "proto/shm/chunk_key.h"

namespace terrace::shm {

inline constexpr uint64_t kSessionMagic = 0x3153455352524554;  // "TERRSES1"
inline constexpr uint32_t kSessionLayoutVersion = 1;
inline constexpr uint32_t kRequestCount = 64;   // a power of two
inline constexpr uint32_t kBatchKeysMax = 256;  // keys a request
inline constexpr uint32_t kPinCount = 4096;
inline constexpr uint32_t kTouchCount = 8192;  // a power of two

enum class Op : uint8_t {
  kBeginPut = 1,     // claim absent keys: a location to fill for each
  kCommit = 2,       // publish filled claims
  kAbort = 3,        // give claims up; the client has stopped writing to them
  kGet = 4,          // pin; may wait for keys that are being written
  kPrefetch = 5,     // bring nearer; holds nothing
  kRemove = 6,       // forget keys
  kLease = 7,        // keep keys until a time to live has passed, whatever becomes of the client
  kCancel = 8,       // end the request `argument` early
  kAcknowledge = 9,  // the client has seen that its claims ended and has stopped writing
  kPersist = 10,     // keys that survive kill -9 and loss of power; waits for their being written
};

enum RequestFlags : uint16_t {
  kWaitForFilling = 1,  // kGet: keys being written are waited for until the deadline
  kFoundDamaged = 2,    // kRemove: the client has found that the bytes are not those of the commit
};

struct SubmissionEntry {
  uint8_t op;  // Op
  uint8_t reserved0;
  uint16_t flags;    // RequestFlags
  uint32_t request;  // block number, < kRequestCount
  uint32_t namespace_id;
  uint32_t key_count;   // 0..kBatchKeysMax
  int64_t deadline_ns;  // CLOCK_MONOTONIC; 0: the operation's default
  uint64_t tag;         // comes back in the completion
  uint64_t argument;    // kLease: time to live in ns; kCancel: the tag of the request to end
  uint8_t reserved[24];
};
static_assert(sizeof(SubmissionEntry) == 64);

struct CompletionEntry {
  uint32_t request;  // block number
  uint8_t status;    // StatusCode of the request as a whole
  uint8_t reserved[3];
  uint64_t tag;
  uint32_t key_count;  // results written
  uint32_t ok_count;   // of them kOk
  uint64_t reserved1;
};
static_assert(sizeof(CompletionEntry) == 32);

// Clients wait on complete_tail with FUTEX_WAIT_BITSET, and a completion wakes with the bit of its
// block: of the threads that wait it wakes the one whose answer it is.
constexpr uint32_t WakeBit(uint32_t request) { return uint32_t{1} << (request % 32); }

// One key of a request, written by the client.
struct KeyEntry {
  uint64_t key[4];  // ChunkKey::words
  uint64_t claim;   // kCommit, kAbort, kAcknowledge: from the result of kBeginPut
  uint32_t length;  // kBeginPut: payload bytes
  uint32_t pin;     // kGet: index of a pin word that is 0
  uint16_t part;
  uint8_t key_length;
  uint8_t reserved[13];
};
static_assert(sizeof(KeyEntry) == 64);

// One key's answer, written by the daemon.
struct ResultEntry {
  uint64_t location;  // Location::Pack(): kBeginPut, kGet
  uint64_t claim;     // kBeginPut
  uint64_t touch;     // kGet: TouchWord of what was found
  uint32_t length;    // kGet: payload bytes
  uint8_t status;     // StatusCode
  uint8_t reserved[3];
};
static_assert(sizeof(ResultEntry) == 32);

struct RequestBlock {
  KeyEntry keys[kBatchKeysMax];
  ResultEntry results[kBatchKeysMax];
};
static_assert(sizeof(RequestBlock) == 24 * 1024);

// A use of a key, told without a system call: slot in the low half, the low half of the slot's
// version above it.  Only a hint: the daemon drops a word that no longer fits.
constexpr uint64_t TouchWord(uint32_t slot, uint64_t version) {
  return uint64_t{slot} | (version << 32);
}

enum class SessionState : uint32_t {
  kOpen = 0,
  kClosed = 1,  // ended by the daemon: every call answers *unavailable*
  kNoPins = 2,  // has stranded too much: gets answer *busy* until its old pins are cleared
};

struct SessionMemory {
  // Constant after the daemon made it.
  uint64_t magic;           // kSessionMagic
  uint32_t layout_version;  // kSessionLayoutVersion
  uint32_t request_count;   // kRequestCount
  uint32_t batch_keys_max;  // kBatchKeysMax
  uint32_t pin_count;       // kPinCount
  uint32_t touch_count;     // kTouchCount
  uint32_t reserved0;
  uint64_t session_id;
  uint64_t boot_epoch;
  uint8_t reserved1[4096 - 48];

  // Counters that only grow (modulo 2^32); the entry is counter % size.
  alignas(64) std::atomic<uint32_t> submit_tail;      // client
  alignas(64) std::atomic<uint32_t> submit_head;      // daemon
  alignas(64) std::atomic<uint32_t> daemon_sleeping;  // daemon: ring the doorbell
  alignas(64) std::atomic<uint32_t> complete_tail;    // daemon; clients futex-wait on it
  alignas(64) std::atomic<uint32_t> complete_head;    // client
  alignas(64) std::atomic<uint32_t> client_waiting;   // client: threads in a futex wait
  alignas(64) std::atomic<uint32_t> touch_tail;       // client
  alignas(64) std::atomic<uint32_t> touch_head;       // daemon
  alignas(64) std::atomic<uint64_t> touches_dropped;  // client: the ring was full
  alignas(64) std::atomic<uint32_t> state;            // daemon: SessionState

  alignas(4096) SubmissionEntry submissions[kRequestCount];
  alignas(4096) CompletionEntry completions[kRequestCount];
  alignas(4096) std::atomic<uint64_t> pins[kPinCount];       // client; daemon see above
  alignas(4096) std::atomic<uint64_t> touches[kTouchCount];  // client
  alignas(4096) RequestBlock requests[kRequestCount];
};
static_assert(offsetof(SessionMemory, session_id) == 32);
static_assert(offsetof(SessionMemory, submit_tail) == 4096);
static_assert(offsetof(SessionMemory, state) == 4096 + 9 * 64);
static_assert(offsetof(SessionMemory, submissions) == 8192);
static_assert(offsetof(SessionMemory, completions) == 12288);
static_assert(offsetof(SessionMemory, pins) == 16384);
static_assert(offsetof(SessionMemory, touches) == 16384 + 32768);
static_assert(offsetof(SessionMemory, requests) == 16384 + 32768 + 65536);
static_assert(sizeof(SessionMemory) == 114688 + kRequestCount * sizeof(RequestBlock));

}  // namespace terrace::shm
