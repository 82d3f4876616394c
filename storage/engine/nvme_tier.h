#pragma once

// One tenant's NVMe tier as the engine keeps it: the segment log, what lies in each of its
// segments, what that is worth, and which chunks wait to be written.  It knows nothing of slots,
// sessions or DRAM segments: the flows between the tiers are the ChunkStore's
// (chunk_store_nvme.cc).
//
//   opening --the namespaces are known--> recovering --> ready        any of them --> off
//
// Off: the device could not be opened, or is not ours.  Nothing is written to it then.
//
// Threads: belongs to one shard, as its device does.  Time comes in as a value.

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "storage/base/result.h"
#include "storage/engine/chunk_table.h"
#include "storage/io/block_device.h"
#include "storage/policy/policy.h"
#include "storage/tier/aligned_bytes.h"
#include "storage/tier/segment_log.h"

namespace terrace {

class CodecPool;

// Which chunks are worth a write.
enum class NvmeAdmission : uint8_t { kAlways, kSecondHit, kBytesADay };

struct NvmeOptions {
  BlockDevice* device = nullptr;  // null: no such tier.  Outlives the store.
  Status unavailable;             // without a device: not Ok where one is wished, and why it is not
  std::string note;               // for status, behind the device
  uint64_t segment_bytes = 256 * kMiB;
  NvmeAdmission admission = NvmeAdmission::kAlways;
  uint64_t bytes_a_day = 0;      // of kBytesADay: records, headers included
  uint64_t overdrawn_bytes = 0;  // of these, written before this start and not earned yet
  int64_t scrub_pass_ns = 0;     // in which all that is sealed is read and checked once; 0: never
  uint64_t sequence_floor = 1;   // SegmentLogOptions
  uint64_t new_log_id = 0;
  LogWriteOptions write;
  // Who encodes and decodes; null: nothing is encoded, and encoded records are of no use.  Outlives
  // the store.
  CodecPool* codec_pool = nullptr;
  bool encode = false;  // what gains from it, as it is written
};

enum class NvmeState : uint8_t { kOpening, kRecovering, kReady, kOff };
const char* NvmeStateName(NvmeState state);

// Of a tenant's log: the same for every start of it, and for no other tenant's.
LogSetId NvmeSetId(const std::string& tenant);

// Chunks that wait to be written; who comes later is left to its luck in DRAM.
inline constexpr size_t kDemoteQueueMax = 16384;
// Records that reclaim carries at once: the device is kept busy, and one sync serves several.
inline constexpr uint32_t kNvmeCarriesMax = 8;
// A log whose superblocks or namespaces cannot be read is opened again, after so long, twice that,
// and so on: a path to the device may come back.
inline constexpr uint32_t kNvmeReopensMax = 3;
inline constexpr int64_t kNvmeReopenNs = 250 * kNsPerMs;
// Fewer cannot be filled and emptied at once.
inline constexpr uint32_t kNvmeSegmentsMin = 4;

struct NvmeStats {
  bool configured = false;
  NvmeState state = NvmeState::kOff;
  std::string why_off, device;  // for people
  uint64_t bytes = 0;           // all segments
  uint64_t allocated_bytes = 0;
  uint64_t chunk_count = 0;  // that have a replica there
  uint64_t demoting = 0, demote_queue = 0, loading = 0;
  uint64_t demoted = 0, demoted_bytes = 0, demote_failed = 0, demote_declined = 0;
  uint64_t loads = 0, load_bytes = 0, load_failed = 0, load_corrupt = 0;
  uint64_t evicted = 0, evicted_bytes = 0, moved = 0, moved_bytes = 0, reclaims = 0;
  uint64_t recovered = 0, refused = 0;  // records found at start
  uint64_t scrubbed = 0, scrubbed_bytes = 0, scrub_damaged = 0, scrub_passes = 0;
  std::string medium_error;  // empty: the files are there, as long as they were
  // As frames of the codec: on NVMe now, and what they would take as they are; since the start.
  uint64_t encoded_chunks = 0, encoded_bytes = 0, encoded_payload_bytes = 0;
  uint64_t encodes = 0, encodes_ungainful = 0, encodes_skipped = 0;  // skipped: too much to do
  uint64_t decodes = 0, decodes_failed = 0;
  std::string namespaces_error;  // empty: the table on the device is the one in use
  SegmentLogStats log;
  IoStats io;
  IoBudgets budgets;
};

// Survivors on their way at once: enough that they share a sync.
inline constexpr size_t kCarriesMax = 16;
inline constexpr uint64_t kCarryBytesMax = 8 * kMiB;

class NvmeTier {
 public:
  struct Resident {
    ChunkTicket chunk;
    uint32_t offset_units = 0;
  };
  // A survivor of reclaim on its way to another segment: read first unless it lies in DRAM.
  struct Carry {
    enum class Step : uint8_t { kNone, kReading, kThere, kAppending };
    Step step = Step::kNone;
    bool from_dram = false;
    uint32_t dram_segment = 0;  // held while it is appended from there
    ChunkTicket chunk;          // from `place`
    LogPlace place;
    RecordIdentity identity;
    uint32_t stored_bytes = 0;  // at `place`, and where it goes
    AlignedBytes buffer;        // holds it verified; empty when it comes from DRAM
  };
  // A reclaim under way; one at a time.  What it carries may outlast it.
  struct Reclaim {
    bool active = false;
    uint32_t segment = 0;
    double price = 0;
    size_t next = 0;  // of the residents
    uint64_t carried_bytes = 0;
    int64_t retry_ns = 0;                    // after one that could not be ended
    uint32_t failed_segment = UINT32_MAX;    // that one's: another is tried first
    std::array<Carry, kCarriesMax> carries;  // their buffers: kCarryBytesMax, or one record
    uint64_t buffer_bytes = 0;

    bool carrying() const {
      return std::any_of(carries.begin(), carries.end(),
                         [](const Carry& carry) { return carry.step != Carry::Step::kNone; });
    }
  };
  // The scrubber's place.
  struct Scrub {
    bool reading = false;
    uint32_t segment = 0;
    size_t next = 0;  // of its residents
    uint64_t burst_bytes = 0;
    int64_t due_ns = 0;  // when it may go on; 0: not since the start
    ChunkTicket chunk;   // that is being read, from `place`
    LogPlace place;
    RecordIdentity identity;
    uint64_t record_bytes = 0;
    AlignedBytes buffer;
  };
  struct Start {
    // The table of the device; an error turns the tier off.
    std::function<Status(const std::vector<std::string>& blobs)> named;
    std::function<void(const RecoveredRecord& record)> recovered;
    std::function<void()> ended;  // ready or off
  };

  // kInvalid naming the option that is out of bounds.
  static Result<std::unique_ptr<NvmeTier>> Create(const NvmeOptions& options,
                                                  const std::string& tenant,
                                                  std::string_view policy);
  // Ends what is under way in the device; blocks as long as that does.
  ~NvmeTier();

  // Begins; what follows comes from Poll.
  void Begin(Start start);
  void TurnOff(const Status& why);

  // Polls the device and the log.  True when something ended.
  bool Poll(int64_t now_ns);
  // When Poll opens a log again that could not be read; 0: it does not.
  int64_t reopen_ns() const { return reopen_ns_; }

  NvmeState state() const { return state_; }
  bool ready() const { return state_ == NvmeState::kReady; }
  const Status& why_off() const { return why_off_; }
  BlockDevice& device() { return *options_.device; }
  const BlockDevice& device() const { return *options_.device; }
  SegmentLog& log() { return *log_; }
  const SegmentLog& log() const { return *log_; }
  Policy& policy() { return *policy_; }
  const NvmeOptions& options() const { return options_; }

  // Few segments are not parted by reuse class, and less of them is kept in stock.
  uint32_t ClassOf(uint32_t reuse_class) const { return Roomy() ? reuse_class : 0; }
  uint32_t stock_segments() const { return Roomy() ? 3 : 2; }

  std::vector<Resident>& residents(uint32_t segment) { return residents_[segment]; }

  // -- While it recovers: the append_number of the record that a chunk was made of ------------
  void NoteRecovered(uint32_t chunk, uint64_t append_number);
  uint64_t recovered_number(uint32_t chunk) const { return recovered_numbers_[chunk]; }

  // -- Chunks that wait to be written, the first in first --------------------------------------
  // False when too many wait.
  bool Queue(ChunkTicket chunk);
  // Before all of those, in the order of their coming: somebody waits for it.
  bool QueueUrgent(ChunkTicket chunk);
  // Whose front is next; null when nothing waits.
  std::deque<ChunkTicket>* next_queue();
  size_t queued() const { return queue_.size() + urgent_.size(); }

  // Takes `bytes` of what a day may write; false when they are used up.
  bool Admits(uint64_t bytes, int64_t now_ns);
  // Takes them though they may be used up: what is carried over is written as well.
  void Charge(uint64_t bytes) { tokens_ -= static_cast<double>(bytes); }
  // They were not written after all.
  void Refund(uint64_t bytes) { tokens_ += static_cast<double>(bytes); }

  Reclaim& reclaim() { return reclaim_; }
  const Reclaim& reclaim() const { return reclaim_; }
  Scrub& scrub() { return scrub_; }
  NvmeStats stats() const;
  NvmeStats counts;  // what the flows count

 private:
  NvmeTier(const NvmeOptions& options, std::unique_ptr<Policy> policy)
      : options_(options), policy_(std::move(policy)) {}
  bool Roomy() const;
  void Opened(const Status& status);

  // Constant after construction.
  const NvmeOptions options_;

  // Owned by the shard's thread.
  AlignedBytes memory_;
  std::unique_ptr<SegmentLog> log_;
  std::unique_ptr<Policy> policy_;
  NvmeState state_ = NvmeState::kOpening;
  Status why_off_;
  uint32_t reopens_ = 0;
  bool reopen_ = false;
  int64_t reopen_ns_ = 0;
  Start start_;
  std::vector<std::vector<Resident>> residents_;  // by segment, in the order of their coming
  std::vector<uint64_t> recovered_numbers_;       // by chunk; empty once it is ready
  std::deque<ChunkTicket> queue_, urgent_;
  int64_t tokens_ns_ = 0;
  double tokens_ = 0;  // bytes that may be written now
  Reclaim reclaim_;
  Scrub scrub_;
};

}  // namespace terrace
