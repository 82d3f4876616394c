#pragma once

// One tenant's chunks in DRAM: namespaces, index, segments, policy, claims and leases, and the
// flows between them (docs/architecture.md).  It knows nothing of rings, sockets, threads or
// clocks: time comes in as a value, so that the whole engine runs under a virtual clock.
//
// Life of a key:   absent --BeginPut--> filling --Commit--> ready --Remove | reclaim--> absent
//                                          \--Abort | deadline | death--> absent
//
// Room is reserved before a key is claimed; what cannot be had after one reclaim is kBusy.  A claim
// that ended without its session's Commit or Abort poisons its segment: the bytes are never
// reused under that memfd until the session acknowledges the end or its process is dead.
//
// Threads: belongs to one shard.  Everything runs to completion.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "proto/shm/chunk_key.h"
#include "proto/shm/index_layout.h"
#include "storage/base/result.h"
#include "storage/engine/namespace_table.h"
#include "storage/index/index.h"
#include "storage/index/pin_tables.h"
#include "storage/mem/memory_file.h"
#include "storage/policy/policy.h"

namespace terrace {

struct ChunkStoreOptions {
  std::string tenant = "default";
  uint64_t dram_bytes = 0;  // a multiple of segment_bytes; open segments included
  uint64_t segment_bytes =
      0;  // a power of two, 2 MiB..1 GiB; 0: the nearest to pool/256 in 16..256 MiB
  uint64_t index_slots = 0;  // a power of two; 0: SlotCountFor(dram_bytes)
  std::string policy = "gittins";
  MemoryFileOptions memory;
  uint64_t boot_epoch = 0;
  uint64_t seed = 0;
  int64_t pin_lease_ns = 30'000'000'000;   // a segment pinned longer is stranded
  int64_t death_grace_ns = 1'000'000'000;  // late DMA of a dead process
};

// Who asks.  Sessions that the daemon runs for itself (RPC) are `trusted`: their claims lie in
// segments that no client may ever write.
struct SessionOptions {
  bool trusted = false;
};

struct PutWant {
  shm::ChunkKey key;
  uint32_t payload_bytes = 0;
};

struct PutGrant {
  StatusCode status = StatusCode::kBusy;  // kOk: fill it; kExists: ready or being written
  shm::Location location;                 // of the record: header first
  uint64_t claim = 0;
};

// A memfd that a session has to map before it can use a location in it.
struct SegmentDescriptor {
  uint32_t segment = 0;
  uint64_t generation = 0;
  uint64_t bytes = 0;
  bool writable = false;  // leased to this session
};

struct ReadyChunk {
  shm::Location location;
  uint32_t payload_bytes = 0;
  uint64_t touch = 0;  // shm::TouchWord
};

struct SegmentCounts {
  uint32_t total = 0, free = 0, open = 0, sealed = 0, draining = 0, stranded = 0, missing = 0;
  uint64_t populated_bytes = 0;
};

struct ChunkStoreStats {
  uint64_t dram_bytes = 0, segment_bytes = 0, page_bytes = 0;
  uint64_t live_bytes = 0;  // records of ready chunks, payload and header
  uint64_t dead_bytes =
      0;  // records that left or were never committed, in segments not yet reclaimed
  uint64_t padding_bytes = 0;  // alignment of payloads, and tails of sealed segments
  uint64_t claimed_bytes = 0;  // being written
  uint64_t chunk_count = 0, filling_count = 0, index_slots = 0, index_used = 0;
  uint64_t puts = 0, put_bytes = 0, exists = 0, busy = 0, gets = 0, get_misses = 0, touches = 0;
  uint64_t evicted = 0, evicted_bytes = 0, moved = 0, moved_bytes = 0, removed = 0;
  uint64_t claims_ended = 0, stale_commits = 0, corrupt_commits = 0, corrupt_moves = 0;
  uint64_t reclaims = 0, fresh_memfds = 0, leased_keys = 0;
  uint64_t stranded_bytes = 0;
  SegmentCounts segments;
  std::string policy;
};

struct ChunkInfo {
  shm::ChunkKey key;
  std::string namespace_label;
  uint32_t payload_bytes = 0;
  shm::SlotState state = shm::SlotState::kAbsent;
  shm::Location location;
  double worth = 0;  // the policy's, hits a byte
  uint32_t reuse_class = 0;
  int64_t lease_left_ns = 0;  // 0: none
};

class ChunkStore {
 public:
  static Result<std::unique_ptr<ChunkStore>> Create(const ChunkStoreOptions& options);
  virtual ~ChunkStore() = default;

  // -- Sessions ------------------------------------------------------------------------------
  // `pins` joins the scanned set; call before the session's descriptors leave the daemon.
  virtual void OpenSession(SessionId session, const SessionOptions& options,
                           std::atomic<uint64_t>* pins, uint32_t pin_count) = 0;

  // The process is dead: its claims end now, its pins are swept and its poison is lifted after the
  // grace.  The pin table must live until PinsReleased(session).
  virtual void SessionDied(SessionId session, int64_t now_ns) = 0;

  // The connection ended while the process lives on: its claims end (and poison, unless none were
  // open); its pins and its write access stay in force until SessionDied.
  virtual void SessionClosed(SessionId session, int64_t now_ns) = 0;

  // After SessionDied and its grace: the store no longer reads the session's pin table.
  virtual bool PinsReleased(SessionId session) const = 0;

  // False once the session strands more than 1/8 of the pool: it gets no new pins.
  virtual bool MayPin(SessionId session) const = 0;

  // -- Namespaces ----------------------------------------------------------------------------
  virtual Result<NamespaceInfo> RegisterNamespace(const NamespaceSpec& spec) = 0;
  virtual std::vector<NamespaceInfo> Namespaces() const = 0;
  virtual Result<NamespaceInfo> FindNamespace(std::string_view label) const = 0;

  // The namespace gets a new id; whatever was kept under the old one can no longer be found.
  virtual Result<NamespaceInfo> BumpEpoch(std::string_view label) = 0;

  // Drops the namespace's chunks and keeps its id.  Answers how many.
  virtual Result<uint64_t> ClearNamespace(std::string_view label) = 0;

  // -- Puts ----------------------------------------------------------------------------------
  // One grant a want, in order.  kStale for all when the namespace id is not live; a key named
  // twice is claimed once.  REQUIRES: grants.size() == wants.size() <= kBatchKeysMax.
  virtual void BeginPut(SessionId session, uint32_t namespace_id, std::span<const PutWant> wants,
                        int64_t deadline_ns, int64_t now_ns, std::span<PutGrant> grants) = 0;

  // Publishes what was filled: reads each record's header by guarded copy and checks it against
  // the claim.  kOk, kStale (claim ended, or epoch bumped), kCorrupt (header differs: the room is
  // dead).
  virtual void Commit(SessionId session, std::span<const uint64_t> claims, int64_t now_ns,
                      std::span<StatusCode> results) = 0;
  virtual void Abort(SessionId session, std::span<const uint64_t> claims) = 0;
  virtual void Acknowledge(SessionId session, std::span<const uint64_t> claims) = 0;

  // -- Reads ---------------------------------------------------------------------------------
  // Of a ready chunk.  kNotFound; kBusy while it is being written; kStale.
  virtual Result<ReadyChunk> Find(uint32_t namespace_id, const shm::ChunkKey& key) = 0;

  // Find, and stores the pin word before it answers.  kBusy also when the session may not pin.
  virtual Result<ReadyChunk> FindAndPin(SessionId session, uint32_t namespace_id,
                                        const shm::ChunkKey& key, std::atomic<uint64_t>* pin) = 0;
  virtual void Touch(uint64_t touch_word) = 0;

  // Grows whenever a filling key became ready or absent: waiting gets look again.
  virtual uint64_t settled_count() const = 0;

  // -- Keys ----------------------------------------------------------------------------------
  virtual StatusCode Remove(uint32_t namespace_id, const shm::ChunkKey& key) = 0;
  // Extends, never shortens.  kNotFound unless ready.
  virtual StatusCode Lease(uint32_t namespace_id, const shm::ChunkKey& key, int64_t until_ns) = 0;
  virtual Result<ChunkInfo> Describe(uint32_t namespace_id, const shm::ChunkKey& key,
                                     int64_t now_ns) const = 0;
  // Up to `limit` chunks from slot `cursor` on; *cursor becomes where to go on, 0 at the end.
  virtual std::vector<ChunkInfo> List(uint64_t* cursor, uint32_t limit, int64_t now_ns) const = 0;

  // -- Memory --------------------------------------------------------------------------------
  // Grows whenever some session's set of descriptors changed.
  virtual uint64_t descriptor_epoch() const = 0;
  // All memfds that exist now, as this session may map them.
  virtual std::vector<SegmentDescriptor> Descriptors(SessionId session) const = 0;
  // A descriptor to send: read-only re-open, or the writable one for the lessee.  kStale when the
  // generation is gone, kDenied when it is not leased to the session.
  virtual Result<UniqueFd> OpenSegment(SessionId session, const SegmentDescriptor& wanted) = 0;
  // The daemon's own mapping, for RPC copies and tests.  Null when the generation is gone.
  virtual std::byte* Address(const shm::Location& location) = 0;
  virtual const Index& index() const = 0;

  // -- Time ----------------------------------------------------------------------------------
  // Ends expired claims and leases, finishes draining, strands what is pinned for too long, keeps
  // free segments in stock.  Answers when it wants to be called again (ns), 0: no need.
  virtual int64_t Tick(int64_t now_ns) = 0;
  virtual ChunkStoreStats stats() const = 0;
};

}  // namespace terrace
