#pragma once

// The appending half of the segment log: one open segment for each reuse class, write buffers,
// groups of writes under one sync, footers.  Knows nothing of reads, namespaces or recovery.
//
//   record:  assigned --copied--> in buffers --written--> --synced--> durable: done(place, Ok)
//            long payloads go out from where they lie, and are judged meanwhile
//   segment: head written, synced --> records --Seal | no room--> all durable --> footer --> sealed
//
// A record is done only when it and everything before it in its segment are on stable storage, so
// that a walk over headers finds it after any crash.  A segment whose head, data or sync failed is
// abandoned: what was done stays readable, everything else in it answers the error.
//
// Threads: belongs to the device's thread.  `done` is called from Poll only.

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "storage/base/limits.h"
#include "storage/io/block_device.h"
#include "storage/tier/breaker.h"
#include "storage/tier/log_format.h"
#include "storage/tier/log_segments.h"

namespace terrace {

// Appends that wait for their sync, in all classes; kBusy beyond.
inline constexpr uint32_t kLogAppendsMax = 64;
// Bytes of one segment on their way to stable storage.  Whatever a crash can tear lies within so
// much of a segment's last record: recovery checks payloads from there on.
inline constexpr uint64_t kLogUnsyncedBytesMax = 32 * kMiB;
static_assert(kLogUnsyncedBytesMax >= shm::RecordBytes(kChunkBytesMax));
// Payloads written from the caller's memory, on their way at once.
inline constexpr uint32_t kLogDirectMax = 16;
// Segments being filled, and being sealed meanwhile.
inline constexpr uint32_t kLogOpenMax = 2 * kReuseClassCount;

struct LogWriteOptions {
  uint32_t buffer_bytes = 1 * kMiB;  // a multiple of 4 KiB; one write each
  uint32_t buffer_count = 8;
  // Payloads of so much and more, in whole pages of memory, are written from where they lie: a copy
  // of less costs no more than a write of its own.  At least kLogBlockBytes.
  uint64_t direct_bytes_min = 256 * kKiB;
  uint64_t sync_bytes = 16 * kMiB;    // written, that are worth a sync of their own
  int64_t linger_ns = 20 * kNsPerMs;  // how long a record waits for company
  BreakerOptions breaker{.failures = 1};
};

// Memory that the writer needs.
constexpr uint64_t LogWriterBytes(const LogWriteOptions& options) {
  return uint64_t{options.buffer_bytes} * options.buffer_count +
         uint64_t{kLogOpenMax} * kLogBlockBytes;
}

struct LogAppend {
  const shm::RecordHeader* header = nullptr;  // as in DRAM, without a place; copied by Append
  // What follows the header, header->stored_bytes of it; stays mapped until `done`.  May be memory
  // that clients write: the writer's own reads are guarded.  Who changes it meanwhile may find that
  // the log holds something else, which every read of it judges.
  std::span<const uint8_t> stored;
  uint32_t reuse_class = 0;  // below kReuseClassCount
  bool urgent = false;       // someone waits: written and synced without lingering
  // `stored` is the plain payload, and is compared with the header's leaf table while it is copied
  // or written: one that differs ends with kCorrupt.  REQUIRES: write buffers of a leaf or more.
  bool verify = false;
};

using LogAppendDone = std::function<void(const LogPlace& place, const Status& status)>;

struct LogWriteStats {
  uint64_t records = 0, payload_bytes = 0;  // durable; stored bytes without headers
  uint64_t written_bytes = 0;               // heads, headers, padding and footers included
  uint64_t writes = 0, syncs = 0;
  uint64_t failed_records = 0, failed_segments = 0, unreadable_sources = 0;
  uint64_t sealed = 0;
  uint32_t waiting = 0;         // appends, now
  uint64_t unsynced_bytes = 0;  // now
  bool breaker_open = false;
  uint64_t breaker_opened = 0;
};

class LogWriter {
 public:
  // Borrows all but the options.  REQUIRES: `memory` is page-aligned, LogWriterBytes(options) long.
  LogWriter(BlockDevice& device, const LogIdentity& identity, LogSegments& segments,
            const LogWriteOptions& options, std::span<uint8_t> memory, BufferId buffer);

  // The longest record that a segment of this size takes, header included.
  static uint64_t RecordBytesMax(uint64_t segment_bytes);

  // Before the first append: of a record that the log holds.
  void RaiseAppendNumber(uint64_t number) { append_number_ = std::max(append_number_, number); }
  // So many more may have been given beyond those that are known.
  void SkipAppendNumbers(uint64_t count) { skipped_numbers_ = std::max(skipped_numbers_, count); }

  // Gives the record its place and queues it; starts no I/O.  Only after Ok is `done` called, once.
  //   kBusy: too many wait, or no slot for another open segment      kNoSpace: no free segment
  //   kIoError: writes pause after an error      kDenied: read-only      kInvalid: never will fit
  // REQUIRES: stored.size() == header->stored_bytes; reuse_class < kReuseClassCount.
  Status Append(const LogAppend& append, LogAppendDone done, int64_t now_ns);

  // Ends the class' open segment; its footer follows once everything in it is durable.
  void Seal(uint32_t reuse_class);

  // Writes the footer of a segment that recovery walked.  False when no slot is left for it: it
  // stays without.  REQUIRES: the segment is open in `segments`, its entries are durable.
  bool SealRecovered(uint32_t segment, std::vector<FooterEntry> entries, uint64_t fill_bytes);

  // Calls what is done, copies, writes, syncs.
  void Poll(int64_t now_ns);

  // When Poll has something to do though no request ends; INT64_MAX: not before one does.
  int64_t next_wake_ns() const;

  bool idle() const;
  const Breaker& breaker() const { return breaker_; }
  LogWriteStats stats() const;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  struct Pending {
    shm::RecordHeader header;
    std::span<const uint8_t> stored;
    LogAppendDone done;
    LogPlace place;
    uint64_t record_bytes = 0, copied = 0, end = 0;  // end: in the segment
    int64_t since_ns = 0;
    bool urgent = false;
    bool verify = false;
    bool direct = false;     // the payload's whole pages are written from where they lie
    uint64_t to_verify = 0;  // direct: of the payload, from here on not yet compared
    Status status;

    bool judged() const { return !direct || !verify || to_verify >= stored.size(); }
  };
  enum class BufferState : uint8_t { kFree, kFilling, kReady, kWriting, kDone };
  struct Buffer : IoRequest {
    LogWriter* writer = nullptr;
    uint32_t open = 0;  // which of opens_
    BufferState state = BufferState::kFree;
    uint8_t* memory = nullptr;      // that is copied to; null: none of its own
    const uint8_t* data = nullptr;  // that is written
    uint32_t pending = kNone;       // without memory of its own: whose payload it writes
    uint64_t from = 0;              // in the segment
    uint64_t fill = 0;
  };
  enum class Life : uint8_t { kNone, kRecords, kFooter, kAbandoned };
  struct Open : IoRequest {  // the request writes the head
    LogWriter* writer = nullptr;
    uint8_t* head = nullptr;  // 4 KiB
    Life life = Life::kNone;
    uint32_t segment = 0;
    uint64_t sequence = 0;
    bool sealing = false;
    bool head_started = false;
    // Offsets in the segment: given to records, copied, written without a gap, durable.
    uint64_t assigned = 0, copied = 0, written = 0, durable = 0, sync_upto = 0;
    uint64_t record_count = 0;     // assigned
    std::deque<uint32_t> pending;  // of pending_, in order
    size_t to_copy = 0;            // of `pending`: the first not wholly copied
    Buffer* filling = nullptr;
    std::deque<Buffer*> queue;         // in order, ready or further
    std::vector<FooterEntry> entries;  // of durable records
    Status cause;                      // of kAbandoned
    SegmentTrailer trailer;
    uint64_t tail_copied = 0, tail_written = 0;
  };
  struct Finished {
    LogAppendDone done;
    LogPlace place;
    Status status;
  };

  Status CheckAppend(const LogAppend& append, uint64_t record_bytes, int64_t now_ns) const;
  Result<uint32_t> OpenFor(uint32_t reuse_class, uint64_t record_bytes);
  bool Fits(const Open& open, uint64_t record_bytes) const;
  uint32_t FreeOpen() const;
  void BeginLife(Open& open, uint32_t segment);
  void Detach(const Open& open);

  void StartHead(Open& open);
  void Copy(Open& open);
  bool CopyRecord(Open& open, uint32_t index);
  bool BeginDirect(Open& open, uint32_t index);
  bool MayCopy(const Open& open, uint64_t bytes) const;
  static uint64_t PieceBytes(const Pending& pending, uint64_t room);
  void CopyPiece(Pending& pending, uint8_t* into, uint64_t bytes);
  static void VerifyLeaf(Pending& pending, const uint8_t* leaf, uint64_t at);
  static void VerifyDirect(Pending& pending, uint64_t bytes);
  void VerifySome();
  void BeginFooter(Open& open);
  void CopyFooter(Open& open);
  Buffer* BufferFor(Open& open, uint64_t from);
  void Take(Buffer& buffer, const Open& open, uint64_t from);
  void MakeReady(Open& open);
  bool PartialDue(const Open& open) const;
  void SubmitReady(Open& open);
  void MaybeSync();
  bool SyncDue(const Open& open) const;

  void HeadDone(Open& open);
  void BufferDone(Buffer& buffer);
  bool SourceFailed(const Buffer& buffer);
  void SyncDone();
  void Advance(Open& open);
  void Acknowledge(Open& open);
  void Finish(uint32_t pending, const Status& status);
  void Abandon(Open& open, const Status& cause);
  void EndIfQuiet(Open& open);
  void EndLife(Open& open);
  void Release(Buffer* buffer);

  // Constant after construction.
  BlockDevice& device_;
  const LogIdentity& identity_;
  LogSegments& segments_;
  const LogWriteOptions options_;
  const BufferId buffer_id_;

  // Owned by the device's thread.
  struct SyncRequest : IoRequest {
    LogWriter* writer = nullptr;
  };
  SyncRequest sync_;
  std::vector<std::unique_ptr<Buffer>> buffers_;
  std::vector<Buffer*> free_buffers_;
  std::array<Buffer, kLogDirectMax> directs_;
  std::vector<Buffer*> free_directs_;
  std::array<Open, kLogOpenMax> opens_;
  std::array<uint32_t, kReuseClassCount> current_;  // of opens_
  std::unique_ptr<std::array<Pending, kLogAppendsMax>> pending_;
  std::vector<uint32_t> free_pending_;
  std::vector<Finished> finished_, calling_;
  uint32_t writing_ = 0;
  uint32_t first_ = 0;            // which segment is served first, in turns
  uint64_t append_number_ = 0;    // of the last record
  uint64_t skipped_numbers_ = 0;  // to be added to it
  bool work_ = false;             // since the last Poll
  int64_t now_ns_ = 0;
  Breaker breaker_;
  LogWriteStats stats_;
};

}  // namespace terrace
