#pragma once

// The NVMe log of one tenant on a block device: space and bytes.  It has no policy and no index:
// who asks for a record says where it lies, and what leaves is the engine's choice.  The device
// alone is enough to recover all of it.
//
//   Create --Open--> namespaces() are known --Recover--> ready for appends
//
//   segment: free --first Append--> open --Seal | no room--> sealed --BeginReclaim--> reclaiming
//            --Free--> free.  Quarantined instead of free or sealed once it has failed too often.
//
// Promised: an append that is done with Ok is found by the next Recover, after any crash, with the
// same bytes; a record is never read as another one, nor as one of a former life of its place, when
// VerifyRecord is asked.  Not promised: that what is not done is gone after a crash; that a freed
// or dead record stays away after a restart (its bytes are right, its namespace must be live).
//
// Call Poll after every Poll of the device and at next_wake_ns().  All callbacks come from it,
// except on_record, which comes from the device's Poll; they may call anything here but Poll.
//
// Threads: belongs to the device's thread.  Time comes in as a value.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "storage/base/result.h"
#include "storage/io/block_device.h"
#include "storage/tier/log_format.h"
#include "storage/tier/log_reader.h"
#include "storage/tier/log_recovery.h"
#include "storage/tier/log_segments.h"
#include "storage/tier/log_verify.h"
#include "storage/tier/log_writer.h"
#include "storage/tier/namespace_store.h"

namespace terrace {

struct SegmentLogOptions {
  LogSetId set_id{};
  std::string tenant = "default";
  uint32_t device_index = 0;
  uint32_t device_count = 1;
  uint64_t segment_bytes = 256 * kMiB;  // a power of two, 2 MiB..1 GiB
  uint32_t segment_count = 0;           // 0: what the device says, and more where it has room
  // Larger with every opening (CLOCK_REALTIME in ns): segments' sequences begin so far above the
  // log_id or later, and one that a damaged head hides is never given a second time.
  uint64_t sequence_floor = 1;
  // Of the log that an empty device becomes; 0: drawn.  For simulations, which draw it themselves.
  uint64_t new_log_id = 0;
  bool discard = false;  // tell the device of freed segments
  LogWriteOptions write;
  BreakerOptions read_breaker{.failures = 8};
};

// A record that the log holds.  Its identity is proven; its payload is not, as with any read.
struct RecoveredRecord {
  RecordIdentity identity;
  uint32_t stored_bytes = 0;
  LogPlace place;
  uint64_t header_checksum = 0;
  uint64_t append_number = 0;  // of several records of a key the highest is the last
};

struct SegmentLogStats {
  LogIdentity identity;
  LogSegmentCounts segments;
  LogWriteStats writes;
  LogReadStats reads;
  RecoveryProgress recovery;
  bool formatted = false;
  uint32_t healed_copies = 0;
  std::vector<std::string> damage;
  uint64_t corrupt_records = 0;  // as NoteCorrupt said
  uint64_t discards = 0, failed_discards = 0;
};

class SegmentLog {
 public:
  using Done = std::function<void(const Status& status)>;
  using OnRecord = std::function<void(const RecoveredRecord& record)>;

  // Memory for write buffers that a log of these options takes.
  static uint64_t MemoryBytes(const SegmentLogOptions& options);

  // kInvalid naming the option that is out of bounds.  Starts no I/O.
  // REQUIRES: `memory` is page-aligned, MemoryBytes(options) long, and outlives the log as the
  // device does.
  static Result<std::unique_ptr<SegmentLog>> Create(BlockDevice& device,
                                                    const SegmentLogOptions& options,
                                                    std::span<uint8_t> memory);
  // REQUIRES: nothing of it is outstanding in the device (BlockDevice::Drain).  What was not done
  // by the last Poll never is.
  ~SegmentLog();

  // Opens the device's log, or formats a device that is empty.  Errors as NamespaceStore::Open; the
  // device is then as it was, and Open may be called again.
  void Open(Done done);

  // Of Open: as many as were in the last Replace that was done.
  const std::vector<std::string>& namespaces() const { return store_.blobs(); }

  // All namespaces that may be found again: what is not in here never resurrects.  Errors as
  // NamespaceStore::Replace.  REQUIRES: Open was done with Ok.
  Status ReplaceNamespaces(std::vector<std::string> blobs, Done done);

  // Every record that the log holds, once, in no order; of several with one key the one with the
  // highest append_number is right, for the others were dropped before it was appended.  Each
  // counts as live until MarkDead.  The engine drops those whose namespace is not live. REQUIRES:
  // Open was done with Ok; called once.
  void Recover(OnRecord on_record, Done done);
  const RecoveryProgress* recovery_progress() const;

  // See LogWriter::Append; kBusy before Recover is done.  The record's place becomes live with
  // `done(place, Ok)`.
  Status Append(const LogAppend& append, LogAppendDone done, int64_t now_ns);
  // The longest record that a segment takes, header included.
  uint64_t record_bytes_max() const { return LogWriter::RecordBytesMax(options_.segment_bytes); }
  // Append refuses until then, after an error; 0: it does not.
  int64_t writes_pause_until_ns() const;
  // Ends the class' open segment; it is sealed when its footer is written.
  void Seal(uint32_t reuse_class);

  // See LogReader::Read.  Answers are unproven until VerifyRecord or VerifyRange.
  Status Read(const LogRead& read, LogReadDone done, int64_t now_ns);

  // See LogReader::Hasten.
  void Hasten(const LogPlace& place, IoClass io_class, int64_t deadline_ns);

  // A record read from here failed its check: counts against its segment.
  void NoteCorrupt(const LogPlace& place);

  // The engine refers to it no more.  A place of a former life is ignored.
  void MarkDead(const LogPlace& place, uint64_t stored_bytes);

  // Nothing new is read in it: kInvalid unless sealed.
  Status BeginReclaim(uint32_t segment);
  // Open again for appends.  kBusy while reads are under way or its discard is; kInvalid unless
  // reclaiming.  With `discard` the segment is free when the device has answered.
  Status Free(uint32_t segment);
  // Segments given up since the last call: the engine drops what it has in them.
  std::vector<uint32_t> TakeQuarantined() { return segments_->TakeQuarantined(); }

  void Poll(int64_t now_ns);
  // INT64_MAX: not before a request ends.
  int64_t next_wake_ns() const;
  // Nothing is queued or under way, footers included.
  bool idle() const;

  // The longest run of the device that was certainly written, in whole segments but the last; empty
  // when there is none.
  struct Written {
    uint64_t offset = 0, bytes = 0;
  };
  Written LongestWritten() const;

  // Null before Open was done.
  const LogSegments* segments() const { return segments_.get(); }
  SegmentLogStats stats() const;

 private:
  struct DiscardRequest : IoRequest {
    SegmentLog* log = nullptr;
    uint32_t segment = 0;
  };

  SegmentLog(BlockDevice& device, const SegmentLogOptions& options, std::span<uint8_t> memory);
  void Opened(const Status& status, Done done);
  void Recovered(LogRecovery::Segment found, const OnRecord& on_record);
  void Defer(Done done, const Status& status);
  void StartDiscard();
  void DiscardDone();
  bool Lives(const LogPlace& place) const;

  // Constant after construction.
  BlockDevice& device_;
  const SegmentLogOptions options_;
  const std::span<uint8_t> memory_;
  BufferId buffer_ = kNoBuffer;

  // Owned by the device's thread.
  NamespaceStore store_;
  LogIdentity identity_;  // constant once opened
  std::unique_ptr<LogSegments> segments_;
  std::unique_ptr<LogWriter> writer_;
  std::unique_ptr<LogReader> reader_;
  std::unique_ptr<LogRecovery> recovery_;
  RecoveryProgress recovered_;
  bool recovering_ = false;
  bool ready_ = false;  // for appends
  struct Deferred {
    Done done;
    Status status;
  };
  std::vector<Deferred> deferred_;
  DiscardRequest discard_;
  std::vector<uint32_t> to_discard_;
  uint64_t corrupt_records_ = 0, discards_ = 0, failed_discards_ = 0;
};

}  // namespace terrace
