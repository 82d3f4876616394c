#pragma once

// A medium of fixed capacity: bytes go out to it and come back, in the background.  Knows nothing
// of segments, records, keys or checksums: what it read may be anything, the caller judges it.
//
// Promised: each request that Submit accepted ends exactly once, with `done` called from Poll; an
// Ok says that every byte asked for was transferred.  Not promised: any order between requests (a
// write that must be behind another one waits for the other's `done`), durability without a kSync
// submitted after the writes' `done`, and what the range holds after a failed, cancelled or
// unfinished write.
//
// Results: kOk · kNoSpace (the file system or quota is full) · kDenied (opened read-only) ·
// kIoError (everything else that a medium does: EIO, an end of file where there should be none)
// · kCancelled · from Submit also kBusy and kInvalid.
//
// Threads: all of a device belongs to one thread, the one that calls Poll; event_fd() may be
// watched from anywhere.

#include <array>
#include <cstdint>
#include <string>

#include "storage/base/clock.h"
#include "storage/base/limits.h"
#include "storage/base/result.h"
#include "storage/io/io_request.h"

namespace terrace {

// 4 MiB: one entry a chunk is fastest up to there, and slower beyond.
inline constexpr uint64_t kIoPieceBytesMax = 4 * kMiB;
// Requests that wait, for each kind and class; kBusy beyond.
inline constexpr uint32_t kIoQueueRequestsMax = 1024;
// Pieces in flight.
inline constexpr uint32_t kIoOperationsMax = 256;
// Of these, syncs and discards: they can be slow, and must not take every thread of a pool.
inline constexpr uint32_t kIoOthersInFlightMax = 4;
// Continuations of short transfers and repeats after EAGAIN or EINTR, a piece; kIoError beyond.
inline constexpr uint32_t kIoRetriesMax = 16;
// Two for each DRAM segment, for the one that takes a drained one's place does not wait for it, and
// some for buffers of the device's users.
inline constexpr uint32_t kIoBufferCountMax = 2 * kSegmentCountMax + 64;
static_assert(kIoBufferCountMax <= (1u << 14), "the kernel's table of fixed buffers");

// How bytes move, best first.
enum class DeviceMode : uint8_t {
  kUringFixed,  // io_uring, buffers registered
  kUringPlain,  // io_uring, buffers pinned at each request
  kThreads,     // preadv2 and pwritev2 on a pool of threads
  kSimulated,   // tests
};

// "io_uring with fixed buffers", ...
const char* DeviceModeName(DeviceMode mode);

// How much may be on its way at once.  Beyond a few MiB a device gets slower, not faster; and
// writes that nobody holds back take most of its time away from reads.
struct IoBudgets {
  // One piece is always allowed.  By default four chunks of 1 MiB with their headers.
  uint64_t read_bytes = 4 * (kMiB + kPageBytes);
  // Writes in flight: so many pieces' bytes, each with a page before it, and twice as many
  // operations at most.
  uint64_t write_piece_bytes = 1 * kMiB;
  uint32_t write_depth = 4;
  // While reads that somebody waits for (any class but kWriteBehind) wait, are in flight, or ended
  // less than read_quiet_ns ago (a reader that asks for one chunk after the other leaves gaps, into
  // which 4 MiB of writes would slip).
  uint64_t contended_write_piece_bytes = 256 * kKiB;
  uint32_t contended_write_depth = 1;
  int64_t read_quiet_ns = 2 * kNsPerMs;
};

struct IoStats {
  struct Kind {
    uint64_t requests = 0;  // ended, however
    uint64_t bytes = 0;     // of those that ended well
    uint64_t errors = 0;    // ended neither well nor cancelled
    uint64_t cancelled = 0;
    uint64_t operations = 0;     // handed to the system
    int64_t latency_ns_sum = 0;  // Submit until the end
    int64_t latency_ns_max = 0;
    std::string error;  // of the last that ended with one; empty: none did
  };
  std::array<Kind, kIoKindCount> kinds;
  uint64_t busy = 0;             // refused at the door
  uint64_t short_transfers = 0;  // an operation moved less than asked
  uint64_t stale = 0;            // completions that no operation in flight waits for
  uint64_t retries = 0;          // EAGAIN, EINTR
  uint64_t flushes = 0;          // batches handed to the system
  uint32_t queued = 0;           // now
  uint32_t operations = 0;       // now
  uint64_t reading_bytes = 0;    // now
  uint64_t writing_bytes = 0;    // now
  uint32_t buffers = 0;          // now, registered with RegisterBuffer
  uint32_t plain_buffers = 0;    // of these, refused by the system: they work, but slower

  Kind of(IoKind kind) const { return kinds[static_cast<uint32_t>(kind)]; }
};

class BlockDevice {
 public:
  BlockDevice() = default;
  BlockDevice(const BlockDevice&) = delete;
  BlockDevice& operator=(const BlockDevice&) = delete;
  // REQUIRES: nothing outstanding (Drain).
  virtual ~BlockDevice() = default;

  // A multiple of stripe_bytes().  Never changes, whatever happens to the files underneath.
  virtual uint64_t capacity_bytes() const = 0;
  // Consecutive stripes lie in different files: a segment that begins at a multiple lies in one.
  virtual uint64_t stripe_bytes() const = 0;
  // How many files the stripes lie in.
  virtual uint32_t file_count() const = 0;
  virtual bool writable() const = 0;

  // Takes the request; nothing starts before the next Flush or Poll.  kBusy with the queue of its
  // kind and class full, kInvalid for ranges off kPageBytes, outside the device or outside the
  // buffer, kDenied for a write to what was opened read-only.  A refused request stays idle, and
  // its `done` is not called.  An empty read or write is kInvalid.
  // REQUIRES: idle, with OnDone called.
  virtual Status Submit(IoRequest& request) = 0;

  // Hands what the budgets allow to the system, as one batch.  Call it once after a run of Submits.
  virtual void Flush() = 0;

  // Takes a request back as far as it goes: what is queued never starts, what is in flight may
  // still happen.  It ends through `done` as ever, with kCancelled, or as it would have where it
  // was too late.  Nothing happens for an idle request.
  virtual void Cancel(IoRequest& request) = 0;

  // From now on the request waits in a more urgent class.  Nothing happens once some of it is on
  // its way, when it is idle, or in a class as urgent.
  virtual void Hasten(IoRequest& request, IoClass io_class) = 0;

  // Calls `done` of what has ended, then does what Flush does.  Never blocks.  How many it called.
  // A `done` may call anything here but Poll and Drain.
  virtual uint32_t Poll() = 0;

  // Readable when Poll has something to do.  Poll clears it.
  virtual int event_fd() const = 0;

  // Cancels everything and polls until nothing is outstanding; blocks as long as the medium does.
  // What a `done` submits meanwhile is waited for too.
  void Drain() { static_cast<void>(DrainUntil(INT64_MAX)); }
  // The same, but not much past `until_ns`: false when something is outstanding then, and the
  // device must not be destroyed.
  virtual bool DrainUntil(int64_t until_ns) = 0;

  // Tells the system of memory that many requests will use, so that it need not pin it each time.
  // kBusy when all `buffer_count` slots are taken or not yet drained.  Where the system refuses
  // (memlock, memory mapped read-only), the buffer is plain: it works, slower; mode() and stats()
  // say so. REQUIRES: page-aligned, at most kSegmentBytesMax, mapped until the unregistered
  // buffer's last request has ended.
  virtual Result<BufferId> RegisterBuffer(uint8_t* memory, uint64_t bytes) = 0;

  // From now on Submit refuses the id.  Requests outstanding go on using it; the slot is used again
  // only when they have ended and the system has let go of the pages.
  virtual void UnregisterBuffer(BufferId buffer) = 0;

  virtual const IoBudgets& budgets() const = 0;
  // REQUIRES: no zero but read_quiet_ns, pieces multiples of kPageBytes.
  virtual void SetBudgets(const IoBudgets& budgets) = 0;

  virtual DeviceMode mode() const = 0;
  // For log and status: the mode, and why it is not a better one.
  virtual std::string Describe() const = 0;
  virtual IoStats stats() const = 0;

  // Whether the medium still is what it was when it was opened: kIoError naming the file that
  // shrank or is gone from its file system.  For the caller that saw an error and asks why.
  virtual Status CheckMedium() const = 0;
  // What the medium takes from its file systems now; a raw device counts with its capacity.
  virtual uint64_t AllocatedBytes() const = 0;
};

}  // namespace terrace
