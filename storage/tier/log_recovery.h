#pragma once

// Finds what a log holds: of each segment the head, and the trailer with the footer; where the
// footer is not there or not whole, the chain of record headers.  Many segments at once.
//
//   head and trailer of one sequence, footer whole: sealed, its entries are its records
//   head alone, or a damaged footer: the headers are walked; the first that does not fit ends it.
//   Of what a crash can have torn (kLogUnsyncedBytesMax at the end) the payloads are checked too.
//   head gone, trailer whole: walked under the trailer's sequence, every payload checked.  A later
//   life may have begun there: footer and head are written anew, synced, before a record counts.
//   neither: free
//   withheld: not read, not written, until the next start.  So is what one transient error would
//   otherwise lose or resurrect: a segment whose ends or headers cannot be read, a head that cannot
//   be written anew.
//
// Before it reads, it syncs: what a dead daemon had written and not synced could be there now and
// be gone after the next loss of power.  Where that fails, what no trailer vouches for is withheld:
// a later sync would not say what became of it.
//
// Threads: belongs to the device's thread.  Both callbacks come from the device's Poll.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "storage/codec/frame_check.h"
#include "storage/io/block_device.h"
#include "storage/tier/aligned_bytes.h"
#include "storage/tier/log_format.h"
#include "storage/tier/log_segments.h"

namespace terrace {

// Segments under examination at once.
inline constexpr uint32_t kLogRecoveryDepth = 32;
// Repeats of one failed read, and of all: a cable's hiccup is waited out, a dead device is not.
inline constexpr uint32_t kLogReadRetries = 2;
inline constexpr uint32_t kLogRecoveryRetriesMax = 256;

struct RecoveryProgress {
  uint32_t segments = 0, segments_done = 0;
  uint32_t from_footers = 0, walked = 0;  // of these
  uint32_t damaged_heads = 0, damaged_footers = 0, unreadable = 0, foreign = 0;
  uint32_t withheld = 0, mended_heads = 0;
  uint64_t records = 0, record_bytes = 0;
  uint64_t damaged_headers = 0;  // that ended a walk: rotten, or torn
  uint64_t torn_records = 0;     // walked, with a payload that never got there whole
};

class LogRecovery {
 public:
  struct Segment {
    uint32_t segment = 0;
    uint64_t sequence = 0;
    uint64_t fill_bytes = 0;
    bool walked = false;               // its footer is missing on the device
    bool unread = false;               // some of it could not be read, so it may hold more
    bool withheld = false;             // nothing in it counts, and nothing is written over it
    std::vector<FooterEntry> entries;  // of a withheld one, what is known
  };
  using OnSegment = std::function<void(Segment found)>;
  using Done = std::function<void(const Status& status)>;

  LogRecovery(BlockDevice& device, const LogIdentity& identity, LogSegments& segments);

  // `on_segment` for each segment that holds records, with all of them, all on stable storage where
  // the device can be written; and for each that is withheld.  Done with an error only
  // when cancelled; what cannot be read is counted in progress().
  void Start(OnSegment on_segment, Done done);

  const RecoveryProgress& progress() const { return progress_; }

 private:
  enum class Step : uint8_t { kEnds, kFooter, kWalk, kVerify, kMend };
  struct Slot;
  struct Request : IoRequest {
    Slot* slot = nullptr;
    uint32_t index = 0;
    uint32_t retries = 0;
  };
  struct Slot {
    LogRecovery* recovery = nullptr;
    Step step = Step::kEnds;
    uint32_t segment = 0;
    uint64_t sequence = 0;
    AlignedBytes head, memory;
    AlignedBytes footer;  // where it is longer than `memory`; with its trailer, that is mended
    SegmentTrailer trailer;
    Request requests[2];
    uint32_t outstanding = 0;
    Status refused[2];         // by the device's Submit
    bool headless = false;     // its life is the trailer's
    bool vouched = false;      // head and trailer agree: its records were synced
    bool unread_head = false;  // an error, rather than damage
    bool unread = false;       // so some of what was read since

    std::vector<FooterEntry> entries;
    uint64_t walked = 0;                      // offset of the next header
    uint64_t window_from = 0, window_to = 0;  // what `memory` holds of the segment
    bool narrow = false;                      // a wide window could not be read
    shm::RecordHeader header;                 // of the record whose payload is checked
    size_t verifying = 0, kept = 0;           // of entries
    uint64_t verified = 0;                    // stored bytes of it
    FrameCheck frames;                        // where it is encoded
    uint32_t mended = 0;                      // steps
  };

  void Begin();
  void Next(Slot& slot);
  void Read(Slot& slot, uint32_t request, uint64_t offset, uint8_t* into, uint64_t bytes);
  void Submit(Slot& slot, uint32_t request);
  bool Retry(Request& request);
  void RequestDone(Request& request);
  bool ReadWorked(Slot& slot, uint32_t request);
  void StepDone(Slot& slot);
  void JudgeEnds(Slot& slot);
  void ReadFooter(Slot& slot);
  void JudgeFooter(Slot& slot, std::span<const uint8_t> bytes);
  void BeginWalk(Slot& slot);
  void Walk(Slot& slot);
  bool WalkRecord(Slot& slot);
  void WindowUnread(Slot& slot);
  void BeginVerify(Slot& slot);
  void ReadPayload(Slot& slot);
  void JudgePayload(Slot& slot);
  static bool TakePiece(Slot& slot, std::span<const uint8_t> bytes);
  void VerifyNext(Slot& slot, bool whole);
  void Walked(Slot& slot);
  void BeginMend(Slot& slot);
  void MendNext(Slot& slot);
  void MendDone(Slot& slot);
  void Report(Slot& slot, uint64_t fill_bytes, bool walked);
  void Withhold(Slot& slot);
  void SlotDone(Slot& slot);

  // Constant after construction.
  BlockDevice& device_;
  const LogIdentity& identity_;
  LogSegments& segments_;

  // Owned by the device's thread.
  struct SyncRequest : IoRequest {
    LogRecovery* recovery = nullptr;
  };
  SyncRequest sync_;
  std::vector<std::unique_ptr<Slot>> slots_;
  OnSegment on_segment_;
  Done done_;
  uint32_t next_ = 0;
  uint32_t busy_ = 0;
  uint32_t retries_ = 0;
  bool unsynced_ = false;
  bool cancelled_ = false;
  RecoveryProgress progress_;
};

}  // namespace terrace
