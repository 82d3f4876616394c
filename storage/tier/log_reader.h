#pragma once

// The reading half of the segment log: ranges of records into the caller's memory.  Judges nothing
// that it read (log_verify.h does), except whether the segment still lives the same life.
//
// Threads: belongs to the device's thread.  `done` is called from Poll only.

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "storage/io/block_device.h"
#include "storage/record/record.h"
#include "storage/tier/breaker.h"
#include "storage/tier/log_segments.h"

namespace terrace {

// Reads under way; kBusy beyond.
inline constexpr uint32_t kLogReadsMax = 512;

struct LogRead {
  LogPlace place;
  uint64_t offset = 0;      // from the record's header; with `bytes` a multiple of 4 KiB
  uint64_t bytes = 0;       // RecordBytes(stored_bytes) for the whole record
  uint8_t* into = nullptr;  // page-aligned; the device's until `done`
  BufferId buffer = kNoBuffer;
  IoClass io_class = IoClass::kDeadline;
  int64_t deadline_ns = INT64_MAX;
};

// Bytes of reads that are done in one Poll, or a single read: some 15 us of hashing.
inline constexpr uint64_t kLogReadsDoneBytes = 256 * kKiB;

using LogReadDone = std::function<void(const Status& status)>;

struct LogReadStats {
  uint64_t reads = 0, bytes = 0;  // that ended well
  uint64_t failed = 0, expired = 0;
  uint32_t reading = 0;  // now
  bool breaker_open = false;
  uint64_t breaker_opened = 0;
};

class LogReader {
 public:
  LogReader(BlockDevice& device, LogSegments& segments, const BreakerOptions& breaker);

  // Only after Ok is `done` called, once; with kDeadline when the deadline came first and the read
  // had not begun.
  //   kBusy: too many under way      kStale: the segment is reclaimed, or lives another life
  //   kIoError: reads pause after errors, or the segment is quarantined      kInvalid: off its
  //   bounds
  Status Read(const LogRead& read, LogReadDone done, int64_t now_ns);

  // Somebody else wants the record of a read under way, perhaps sooner: its class and its deadline
  // become the more generous of both.  Nothing happens when it has ended.
  void Hasten(const LogPlace& place, IoClass io_class, int64_t deadline_ns);

  // Calls what is done, as much of it as is judged in a moment (kLogReadsDoneBytes): who waits for
  // the first is answered, and may ask for the next, while the device is still busy with others.
  void Poll(int64_t now_ns);
  int64_t next_wake_ns() const;
  bool idle() const { return under_way_.empty() && finished_.empty(); }
  LogReadStats stats() const;

 private:
  struct Slot : IoRequest {
    LogReader* reader = nullptr;
    LogPlace place;
    uint32_t index = 0;  // in under_way_
    int64_t deadline_ns = INT64_MAX;
    LogReadDone done;
  };
  struct Finished {
    LogReadDone done;
    Status status;
    uint64_t bytes = 0;
  };

  Status CheckRead(const LogRead& read, int64_t now_ns) const;
  void ReadDone(Slot& slot);

  // Constant after construction.
  BlockDevice& device_;
  LogSegments& segments_;

  // Owned by the device's thread.
  std::vector<std::unique_ptr<Slot>> free_;  // made when first needed
  std::vector<std::unique_ptr<Slot>> under_way_;
  std::deque<Finished> finished_;
  int64_t now_ns_ = 0;
  int64_t first_deadline_ns_ = INT64_MAX;
  Breaker breaker_;
  LogReadStats stats_;
};

}  // namespace terrace
