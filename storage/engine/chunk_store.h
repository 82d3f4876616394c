#pragma once

// One tenant's chunks, in DRAM and on NVMe: namespaces, index, segments, policies, claims and
// leases, and the flows between them (docs/architecture.md).  It knows nothing of rings, sockets,
// threads or clocks: time comes in as a value, so that the whole engine runs under a virtual clock.
//
// Life of a key:   absent --BeginPut--> filling --Commit--> ready --Remove | reclaim--> absent
//                                          \--Abort | deadline | death--> absent
//   where it is:   DRAM --write-behind--> DRAM and NVMe --reclaim of DRAM--> NVMe --FindOrLoad-->
//                  DRAM and NVMe.  Reclaim of NVMe leaves DRAM alone, or nothing.
//
// NVMe is a device's log (storage/tier), and there only when a device is given.  Whatever fails
// there costs a replica, or a miss, and never more.
//
// Room is reserved before a key is claimed; what a bounded reclaim cannot give is kBusy.  A claim
// that ended without its session's Commit or Abort poisons its segment: the bytes are never
// reused under that memfd until the session acknowledges the end or its process is dead.
//
// Threads: belongs to one shard.  Everything runs to completion.

#include <atomic>
#include <compare>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "proto/shm/chunk_key.h"
#include "proto/shm/index_layout.h"
#include "storage/base/result.h"
#include "storage/engine/chunk_codec.h"
#include "storage/engine/chunk_event.h"
#include "storage/engine/chunk_history.h"
#include "storage/engine/chunk_table.h"
#include "storage/engine/claim_table.h"
#include "storage/engine/lease_table.h"
#include "storage/engine/namespace_table.h"
#include "storage/engine/nvme_tier.h"
#include "storage/engine/segment_buffers.h"
#include "storage/index/index.h"
#include "storage/index/pin_tables.h"
#include "storage/mem/memory_file.h"
#include "storage/policy/policy.h"
#include "storage/segment/segment_pool.h"

namespace terrace {

struct ChunkStoreOptions {
  std::string tenant = "default";
  uint64_t dram_bytes = 0;  // a multiple of segment_bytes; open segments included
  // A power of two, 2 MiB..1 GiB.  0: the nearest to pool/256 in 16..256 MiB.
  uint64_t segment_bytes = 0;
  uint64_t index_slots = 0;  // a power of two; 0: SlotCountFor(dram_bytes)
  std::string policy = "gittins";
  MemoryFileOptions memory;
  uint64_t boot_epoch = 0;
  uint64_t seed = 0;
  int64_t pin_lease_ns = 30'000'000'000;   // a segment pinned longer is stranded
  int64_t death_grace_ns = 1'000'000'000;  // late DMA of a dead process
  NvmeOptions nvme;
  // Milliseconds since 1970, for people; null: events have no time.
  std::function<int64_t()> wall_ms;
  ChunkListener listener;  // of departures and refusals; null: nobody
};

// Who asks.  Sessions that the daemon runs for itself (RPC) are `trusted`: their claims lie in
// segments that no client may ever write.  They use Address() under their claims and pins from
// another thread, so these hold the daemon's mapping: such a claim lasts at least 30 s, and a
// segment that such a session pins is not stranded.
struct SessionOptions {
  bool trusted = false;
};

struct SessionUse {
  uint32_t pins = 0, claims = 0;
  uint32_t pinned_segments = 0;  // stranded ones included
  uint64_t stranded_bytes = 0;
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

// How urgently a chunk on NVMe is wanted.
struct LoadWish {
  IoClass io_class = IoClass::kDeadline;
  int64_t deadline_ns = INT64_MAX;  // a read that has not begun by then is not made
};

struct Sought {
  StatusCode status = StatusCode::kNotFound;
  // With kBusy: it comes from NVMe; ask again when settled_count() has grown.
  bool loading = false;
  ReadyChunk chunk;  // kOk
};

struct SegmentCounts {
  uint32_t total = 0, free = 0, open = 0, sealed = 0, draining = 0, stranded = 0, missing = 0;
  uint32_t pinned = 0;  // of the total, whatever their state
  uint64_t populated_bytes = 0;
};

struct ChunkStoreStats {
  uint64_t dram_bytes = 0, segment_bytes = 0, page_bytes = 0;
  uint64_t live_bytes = 0;  // records of ready chunks, payload and header
  // Records that left or were never committed, in segments not yet reclaimed.
  uint64_t dead_bytes = 0;
  uint64_t padding_bytes = 0;  // alignment of payloads, and tails of sealed segments
  uint64_t claimed_bytes = 0;  // being written
  uint64_t free_bytes = 0;     // in free segments and behind the fill of open ones
  uint64_t missing_bytes = 0;  // places without a memfd; the seven add up to dram_bytes
  uint64_t chunk_count = 0, filling_count = 0, index_slots = 0, index_used = 0;
  // Bytes put, evicted and moved are payload.
  uint64_t puts = 0, put_bytes = 0, exists = 0, busy = 0, gets = 0, get_misses = 0, touches = 0;
  uint64_t evicted = 0, evicted_bytes = 0, moved = 0, moved_bytes = 0, removed = 0;
  uint64_t claims_ended = 0, stale_commits = 0, corrupt_commits = 0, corrupt_moves = 0;
  uint64_t full = 0;  // searches for room that found none
  uint64_t reclaims = 0, fresh_memfds = 0, leased_keys = 0;
  uint64_t stranded_bytes = 0;
  SegmentCounts segments;
  std::string policy;
  NvmeStats nvme;
};

struct ChunkInfo {
  shm::ChunkKey key;
  std::string namespace_label;
  uint32_t payload_bytes = 0;
  shm::SlotState state = shm::SlotState::kAbsent;
  shm::SlotTier tier = shm::SlotTier::kDram;  // the nearest that holds it
  bool durable = false;                       // on NVMe: it survives kill -9 and loss of power
  shm::Location location;                     // in DRAM; no meaning with another tier
  LogPlace nvme;                              // sequence 0: not there
  uint32_t nvme_bytes = 0;                    // that the payload takes there
  double worth = 0;                           // the policy's, hits a byte
  uint32_t reuse_class = 0;
  int64_t lease_left_ns = 0;  // 0: none
};

// Of one key: whether it is to be had, and why not.
enum class ChunkAnswer : uint8_t {
  kReady,
  kFilling,         // a put is under way
  kLoading,         // it is being read from NVMe
  kGone,            // it left: `cause`
  kRefused,         // it was not taken: `cause`
  kOtherNamespace,  // nothing is known of it here, and it is there under `other_label`
  kNeverPut,        // as far as the history goes
};

struct ChunkExplanation {
  ChunkAnswer answer = ChunkAnswer::kNeverPut;
  bool namespace_known = false;
  // kReady, kFilling, kLoading.
  bool in_dram = false, on_nvme = false;
  uint32_t payload_bytes = 0;
  int64_t put_ms = 0;  // 0: not known
  // The last event, whatever the answer; kNone: none is known.
  ChunkCause cause = ChunkCause::kNone;
  int64_t when_ms = 0;
  // Another namespace in which the key is ready, and the first field of its identity that differs.
  std::string other_label, other_field;
  int64_t history_since_ms = 0;  // departures since then are known
  int64_t begin_ms = 0;          // of this store: what was only in DRAM before is gone
};

class ChunkStore {
 public:
  static Result<std::unique_ptr<ChunkStore>> Create(const ChunkStoreOptions& options);
  // Sets the sizes that `options` leaves open, as Create does; kInvalid for those that it refuses.
  // Takes no memory.
  static Status FillSizes(ChunkStoreOptions* options);
  ~ChunkStore();

  // -- Sessions ------------------------------------------------------------------------------
  // `pins` joins the scanned set; call before the session's descriptors leave the daemon.
  void OpenSession(SessionId session, const SessionOptions& options, std::atomic<uint64_t>* pins,
                   uint32_t pin_count);

  // The process is dead: its claims end now, its pins are swept and its poison is lifted after the
  // grace.  The pin table must live until PinsReleased(session).
  void SessionDied(SessionId session, int64_t now_ns);

  // The connection ended while the process lives on: its claims end (and poison, unless none were
  // open); its pins and its write access stay in force until SessionDied.
  void SessionClosed(SessionId session, int64_t now_ns);

  // After SessionDied and its grace: the store no longer reads the session's pin table.
  bool PinsReleased(SessionId session) const;

  // What the session holds now.
  SessionUse UseOf(SessionId session) const;

  // False once the session strands 1/8 of the pool: it gets no new pins.
  bool MayPin(SessionId session) const;

  // -- Namespaces ----------------------------------------------------------------------------
  Result<NamespaceInfo> RegisterNamespace(const NamespaceSpec& spec);
  std::vector<NamespaceInfo> Namespaces() const;
  Result<NamespaceInfo> FindNamespace(std::string_view label) const;

  // The namespace gets a new id; whatever was kept under the old one can no longer be found.
  Result<NamespaceInfo> BumpEpoch(std::string_view label);

  // Drops the namespace's chunks and keeps its id, a slice of the index a call, from slot *cursor
  // on; *cursor becomes where to go on, 0 at the end.  Answers how many it dropped.
  Result<uint64_t> ClearNamespace(std::string_view label, uint64_t* cursor);

  // -- Puts ----------------------------------------------------------------------------------
  // One grant a want, in order.  kStale for all when the namespace id is not live; a key named
  // twice is claimed once.  REQUIRES: grants.size() == wants.size() <= kBatchKeysMax.
  void BeginPut(SessionId session, uint32_t namespace_id, std::span<const PutWant> wants,
                int64_t deadline_ns, int64_t now_ns, std::span<PutGrant> grants);

  // Publishes what was filled: reads each record's header by guarded copy and checks it against
  // the claim.  kOk, kStale (claim ended, or epoch bumped), kCorrupt (header differs: the room is
  // dead).
  void Commit(SessionId session, std::span<const uint64_t> claims, int64_t now_ns,
              std::span<StatusCode> results);
  void Abort(SessionId session, std::span<const uint64_t> claims);
  void Acknowledge(SessionId session, std::span<const uint64_t> claims);

  // -- Reads ---------------------------------------------------------------------------------
  // Of a chunk that is ready in DRAM.  kNotFound; kBusy while it is being written; kStale.
  Result<ReadyChunk> Find(uint32_t namespace_id, const shm::ChunkKey& key);

  // Find, and stores the pin word before it answers.  kBusy also when the session may not pin.
  Result<ReadyChunk> FindAndPin(SessionId session, uint32_t namespace_id, const shm::ChunkKey& key,
                                std::atomic<uint64_t>* pin);
  // The same for a chunk in any tier: what is on NVMe is loaded, in one read however many ask, and
  // as soon as the most urgent of them wants it.  A wish whose deadline has passed begins no read.
  // Without `pin` it is only brought near.  Besides the codes of Find kBusy when the pool has no
  // room, and kIoError or kDeadline: treat as a miss.
  Sought FindOrLoad(SessionId session, uint32_t namespace_id, const shm::ChunkKey& key,
                    std::atomic<uint64_t>* pin, const LoadWish& wish, int64_t now_ns);
  void Touch(uint64_t touch_word);

  // Whether the chunk survives kill -9 and loss of power.  kBusy: it is being written for that,
  // before all others and whatever admission says; look again when settled_count() has grown.
  // kNotFound; kStale; kUnavailable without an NVMe tier that is ready; kDenied when that is
  // read-only; kInvalid for a chunk that fits no segment there; kIoError while writes pause after
  // an error.
  StatusCode Persist(uint32_t namespace_id, const shm::ChunkKey& key, int64_t now_ns);

  // Grows whenever a key that was being filled, loaded or persisted became what is waited for or
  // absent, or the namespaces were stored: who waits looks again.
  uint64_t settled_count() const { return settled_; }
  // Grows whenever a search for room found none; at most once a millisecond.
  uint64_t full_count() const { return counts_.full; }

  // -- Keys ----------------------------------------------------------------------------------
  // `why`: kRemoved, or kDamagedForClient by who found the bytes so.
  StatusCode Remove(uint32_t namespace_id, const shm::ChunkKey& key,
                    ChunkCause why = ChunkCause::kRemoved);
  // Extends, never shortens.  kNotFound unless ready; kBusy when leases would hold more than half
  // of the pool, which reclaim needs to move them about.
  StatusCode Lease(uint32_t namespace_id, const shm::ChunkKey& key, int64_t until_ns);
  Result<ChunkInfo> Describe(uint32_t namespace_id, const shm::ChunkKey& key, int64_t now_ns) const;
  // Also of a label that is not registered: what is known of it from earlier, and other namespaces.
  ChunkExplanation Explain(std::string_view label, const shm::ChunkKey& key) const;
  // Up to `limit` chunks from slot `cursor` on; *cursor becomes where to go on, 0 at the end.
  std::vector<ChunkInfo> List(uint64_t* cursor, uint32_t limit, int64_t now_ns) const;

  // -- Memory --------------------------------------------------------------------------------
  // Grows whenever some session's set of descriptors changed.
  uint64_t descriptor_epoch() const { return descriptor_epoch_ + pool_->epoch(); }
  // All memfds that exist now, as this session may map them.
  std::vector<SegmentDescriptor> Descriptors(SessionId session) const;
  // A descriptor to send: read-only re-open, or the writable one for the lessee.  kStale when the
  // generation is gone, kDenied when it is not leased to the session.
  Result<UniqueFd> OpenSegment(SessionId session, const SegmentDescriptor& wanted);
  // The daemon's own mapping, for RPC copies and tests; it stays while an open claim or a trusted
  // session's pin holds the segment.  What a client can write is read by GuardedCopy only.  Null
  // when the generation is gone.
  std::byte* Address(const shm::Location& location);
  const Index& index() const { return *index_; }
  uint32_t chunk_bytes_max() const { return chunk_bytes_max_; }
  const ChunkStoreOptions& options() const { return options_; }

  // -- NVMe ----------------------------------------------------------------------------------
  // Serves the tier: what has ended, write-behind, reclaim, the namespace table.  Call it after
  // calls of the above, when the device's event fd is readable, and at NvmeWake().  True when
  // something ended.  Without a tier these do nothing.
  bool PollNvme(int64_t now_ns);
  int64_t NvmeWake() const;  // 0: not before a request ends
  // The namespaces and chunks that the device holds are known, or the tier is off.
  bool NvmeStarted() const;
  // The start took too long: the tier is off for good.
  void GiveUpNvme(const Status& why);
  const Status& nvme_why_off() const;
  // Readable when the codec's threads have ended something, for PollNvme; -1: there are none.
  int codec_event_fd() const { return codec_ == nullptr ? -1 : codec_->event_fd(); }
  // See SegmentLog::LongestWritten.
  SegmentLog::Written NvmeWritten() const;
  // What the log has written since the store began, all of it counted.  May be asked when the
  // sessions are gone.
  uint64_t NvmeBytesWritten() const;
  // Before the end: writes out what waits and seals what is open; true when that is done.  Call it
  // in place of PollNvme.
  bool DrainNvme(int64_t now_ns);

  // Grows with every change of the namespaces.
  uint64_t namespaces_version() const { return namespaces_->version(); }
  // Whether that version survives a restart (without a tier nothing needs to): kBusy while it is
  // being written, kIoError when it cannot be.
  Status NamespacesStored(uint64_t version) const;

  // -- Time ----------------------------------------------------------------------------------
  // Ends expired claims and leases, finishes draining, strands what is pinned for too long, keeps
  // free segments in stock.  Answers when it wants to be called again (ns), 0: no need.
  int64_t Tick(int64_t now_ns);
  ChunkStoreStats stats() const;

 private:
  struct SessionEntry;
  struct Victim;
  struct Sampled;

  explicit ChunkStore(ChunkStoreOptions options);
  Status Prepare();

  // Puts (chunk_store_put.cc).
  StatusCode Grant(SessionEntry& session, uint32_t namespace_id, const PutWant& want,
                   int64_t deadline_ns, int64_t now_ns, PutGrant* grant);
  StatusCode CommitOne(Claim& claim, int64_t now_ns);
  void PublishClaim(Claim& claim, const shm::RecordHeader& header);
  // The key is absent again and the room dead; the claim stays known until it is acknowledged
  // when `poison`, else it is forgotten.
  void EndClaim(Claim& claim, bool poison, ChunkCause why);
  void EndClaimsOf(SessionId session, bool poison);

  // Room (chunk_store_room.cc).
  struct Room {
    uint32_t segment = 0;
    uint64_t offset = 0;
  };
  // Whose open segment it is: a session's, or one of the two groups that the daemon fills itself.
  struct OpenKey {
    uint64_t owner = 0;
    uint32_t reuse_class = 0;
    auto operator<=>(const OpenKey&) const = default;
  };
  Result<Room> Reserve(uint64_t owner, uint32_t reuse_class, uint64_t record_bytes, int64_t now_ns);
  bool Append(const OpenKey& key, uint64_t record_bytes, int64_t now_ns, Room* room);
  Status OpenAnother(const OpenKey& key, int64_t now_ns);
  Status MakeRoom(int64_t now_ns);
  bool Crowded() const;
  void Seal(const OpenKey& key);
  void SealIdleTails(int64_t now_ns);
  void SealTailsOf(SessionId session);
  bool SealOldestTail();
  void PublishSegments();

  // Reclaim (chunk_store_reclaim.cc).
  bool ReclaimOne(int64_t now_ns);
  bool ReclaimUnpinned(int64_t now_ns);
  bool EvacuatePinned(int64_t now_ns);
  uint64_t NextRandom();
  std::vector<uint32_t> Candidates() const;
  Sampled Sample(std::vector<uint32_t>* candidates);
  Victim Appraise(uint32_t segment);
  bool Evacuate(const Victim& victim, double price, int64_t now_ns);
  bool CarryLeased(uint32_t segment, int64_t now_ns);
  bool CarryOver(uint32_t segment, const SegmentRecord& record, int64_t now_ns);
  void DropDamaged(uint32_t segment, uint32_t chunk);
  void Drain(uint32_t segment, int64_t now_ns);
  bool FinishDraining(int64_t now_ns);
  void Release(uint32_t segment);
  bool WaitsForPins() const;
  bool MayStrand(const std::vector<SessionId>& sessions) const;
  void Strand(uint32_t segment);
  void ReviewStranded(const PinCensus& pinned);

  // Out to NVMe (chunk_store_nvme.cc).
  Status PrepareNvme();
  Status Named(const std::vector<std::string>& blobs);
  void RecoverRecord(const RecoveredRecord& record);
  void StoreNamespaces(int64_t now_ns);
  bool NamespaceStored(uint32_t namespace_id) const;
  void AddReplica(uint32_t chunk, const LogPlace& place, uint32_t stored_bytes);
  void ForgetReplica(uint32_t chunk, Departure why);
  // The chunk goes with its last replica: true.
  bool DropReplica(uint32_t chunk, ChunkCause why);
  void LeaveDram(uint32_t chunk);
  bool Resides(const NvmeTier::Resident& resident, uint32_t segment) const;
  void DropQuarantined();
  void QueueDemotion(uint32_t chunk);
  StatusCode CheckPersist(uint32_t namespace_id, uint32_t payload_bytes, int64_t now_ns) const;
  void Demote(int64_t now_ns);
  bool DemotionHasRoom() const;
  bool DemoteOne(uint32_t chunk, int64_t now_ns);
  bool AppendOrWait(uint32_t chunk, int64_t now_ns);
  Status AppendRecord(uint32_t chunk, int64_t now_ns);
  void RetryDemotion(ChunkTicket ticket);
  struct DemotedBytes {
    uint32_t payload = 0, stored = 0;
  };
  void DemoteDone(ChunkTicket ticket, uint32_t segment, const DemotedBytes& bytes,
                  const LogPlace& place, const Status& status);
  bool VerifyRecordInDram(uint32_t segment, const SegmentRecord& record) const;

  // Back into DRAM (chunk_store_load.cc).
  struct Load {
    ChunkTicket chunk;
    uint32_t segment = 0;
    uint64_t offset = 0;
    LogPlace place;
    RecordIdentity identity;
    std::span<uint8_t> encoded = {};  // where an encoded record is read, to be decoded from there
  };
  struct LoadUnderWay {
    LoadWish wish;  // of all who want it
    LogPlace place;
  };
  StatusCode StartLoad(uint32_t chunk, const LoadWish& wish, int64_t now_ns);
  void Hasten(uint32_t chunk, const LoadWish& wish);
  Status BeginLoad(const Load& load, const LoadWish& wish, int64_t now_ns);
  void LoadDone(const Load& load, const Status& read);
  void EndLoad(const Load& load, const Status& status);
  void TakeIntoDram(const Load& load);

  // Through the codec (chunk_store_codec.cc).
  bool PrepareCodec();
  bool IsEncoded(uint32_t chunk) const;
  ChunkCodec::Begun StartEncoding(uint32_t chunk);
  bool MayWaitForCodec(uint32_t chunk) const;
  bool PollCodec(int64_t now_ns);
  int64_t CodecWake() const;
  void EncodingDone(ChunkCodec::Encoding& encoding, int64_t now_ns);
  void WriteUngainful(ChunkCodec::Encoding& encoding, int64_t now_ns);
  void AppendEncoded(ChunkCodec::Encoding& encoding, int64_t now_ns);
  void EndEncoding(ChunkCodec::Encoding& encoding);
  void StartDecoding(const Load& load);

  // Reclaim on NVMe (chunk_store_nvme_reclaim.cc).
  struct LogVictim;
  enum class Leaving : uint8_t { kLeft, kWaits };
  bool NvmeWantsRoom() const;
  LogVictim AppraiseLog(uint32_t segment);
  void ReclaimNvme(int64_t now_ns);
  bool BeginReclaimNvme();
  void EndReclaimNvme(int64_t now_ns);
  void AbandonReclaim(int64_t now_ns);
  Leaving LeaveLogSegment(uint32_t chunk, int64_t now_ns);
  NvmeTier::Carry* TakeCarry(uint32_t chunk);
  void ReleaseCarry(NvmeTier::Carry& carry);
  Leaving CarryFromDram(uint32_t chunk);
  Leaving CarryFromLog(uint32_t chunk, int64_t now_ns);
  void CarriedRead(NvmeTier::Carry& carry, const Status& read);
  bool IsCurrent(const NvmeTier::Carry& carry) const;
  void AppendCarried(NvmeTier::Carry& carry, int64_t now_ns);
  void CarriedHasNoRoom(NvmeTier::Carry& carry, int64_t now_ns);
  void CarriedAppended(NvmeTier::Carry& carry, const LogPlace& place, const Status& status);

  // The scrubber (chunk_store_scrub.cc).
  int64_t ScrubPauseNs() const;
  int64_t ScrubWake() const;  // 0: nothing to do before something else happens
  void ScrubNvme(int64_t now_ns);
  uint32_t NextToScrub();
  bool ReadScrubbed(uint32_t chunk, int64_t now_ns);
  void ScrubbedRead(const Status& read);

  // Why chunks are not to be had (chunk_store_explain.cc).
  void Note(const shm::ChunkKey& key, uint32_t namespace_id, uint32_t payload_bytes,
            ChunkCause cause);
  uint32_t TagOf(uint32_t namespace_id);
  // What it means that the chunk leaves DRAM and is nowhere else.
  ChunkCause CauseOfLeavingDram(const Chunk& chunk) const;
  bool FindEnded(uint32_t label_tag, const shm::ChunkKey& key, ChunkExplanation* found) const;
  void FindElsewhere(std::string_view label, const shm::ChunkKey& key,
                     ChunkExplanation* found) const;

  // Chunks.
  bool IsCurrent(uint32_t segment, uint32_t record_index) const;
  // Retires the slot, accounts, notes, forgets.  The bytes stay until the segment is reclaimed.
  void DropChunk(uint32_t chunk, ChunkCause why);
  // What DRAM knows of it; its bytes are dead there.
  void ForgetRecord(uint32_t chunk, Departure why);
  void EndLease(uint32_t chunk);
  void Sweep();
  void BuryTheDead(int64_t now_ns);
  int64_t NextTick(int64_t now_ns) const;

  // Constant after construction.
  ChunkStoreOptions options_;
  uint32_t chunk_bytes_max_ = 0;

  // Owned by the shard's thread.
  std::unique_ptr<Index> index_;
  std::unique_ptr<SegmentPool> pool_;
  std::unique_ptr<Policy> policy_;
  PinTables pins_;
  ClaimTable claims_;
  ChunkTable chunks_;
  LeaseTable leases_;
  std::unique_ptr<NamespaceTable> namespaces_;
  // Slots still to be looked at for chunks of namespaces that ended, from the cursor on.
  uint64_t sweep_left_ = 0;
  uint64_t sweep_cursor_ = 0;

  std::map<OpenKey, uint32_t> open_;
  std::map<SessionId, SessionEntry> sessions_;
  struct Stranded {
    uint32_t segment = 0;
    uint64_t generation = 0;
  };
  std::vector<Stranded> stranded_;
  uint64_t random_ = 0;  // state of the sampler
  double last_price_ =
      std::numeric_limits<double>::max();  // of room, a byte, when it was last known
  uint64_t published_epoch_ = 0;           // of the pool, as clients were told
  int64_t stock_retry_ns_ = 0;             // when reclaim ahead of need may look for a victim again
  int64_t search_retry_ns_ = 0;            // when a put may, after one that found none
  int64_t pins_look_ns_ = 0;               // when a tick may look at the pin words again
  // NVMe.
  uint64_t loading_bytes_ = 0;              // claimed for loads
  std::map<uint64_t, LoadUnderWay> loads_;  // by the chunk's serial
  uint32_t held_segments_ = 0;              // with io_holds
  int64_t nvme_now_ns_ = 0;                 // of the last PollNvme
  int64_t demote_wake_ns_ = 0;              // 0: demotion goes on when a request ends
  uint32_t stored_next_id_ = 1;             // as the device's table says
  uint64_t stored_version_ = 0;             // of the namespaces there
  uint64_t tried_version_ = 0;              // that was last tried to be written
  int64_t store_namespaces_ns_ = 0;         // not before, after an error
  int64_t store_namespaces_backoff_ns_ = 0;
  Status store_namespaces_error_;  // of the last try
  bool storing_namespaces_ = false;
  bool draining_nvme_ = false, sealed_nvme_ = false;
  uint64_t settled_ = 0;
  ChunkHistory history_;
  std::map<uint32_t, uint32_t> tags_;  // of namespaces by id, ended ones too; bounded
  uint64_t descriptor_epoch_ = 0;
  ChunkStoreStats counts_;
  std::unique_ptr<SegmentBuffers> segment_buffers_;  // with a tier
  // Where something is encoded; its memory is the device's until the tier is gone.
  std::unique_ptr<ChunkCodec> codec_;
  std::vector<ChunkCodec::Encoding*> to_append_;  // the log took no more
  std::unique_ptr<NvmeTier> nvme_;                // null: no such tier
};

}  // namespace terrace
