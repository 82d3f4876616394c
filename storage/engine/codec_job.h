#pragma once

// A payload on its way through the codec, off the shard's thread, and the way back.
//
//   the shard's --CodecPool::Submit--> the pool's --> in CodecResults --Take--> the shard's
//
// Threads: a job belongs to one thread at a time, as drawn.  CodecResults: Push from any thread,
// the rest on the shard's.

#include <atomic>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "proto/shm/record_layout.h"
#include "storage/base/fd.h"
#include "storage/base/status.h"
#include "storage/codec/encoder.h"
#include "storage/record/record.h"

namespace terrace {

class CodecResults;

struct CodecJob {
  enum class Work : uint8_t { kEncode, kDecode };
  Work work = Work::kEncode;
  CodecResults* results = nullptr;  // where it goes when it has ended

  // kEncode: `plain` is header.payload_bytes long and may be memory that clients write or cut
  // short; it is read once, guarded, each leaf compared with the header's.  What it comes to is in
  // `encoded`, EncodedBytesMax(payload) long.
  shm::RecordHeader header;  // as in DRAM
  const uint8_t* plain = nullptr;
  ElementType element = ElementType::kOpaque;
  std::vector<Layer> layers;
  std::span<uint8_t> encoded;

  // kDecode: `record` is what was read from the log at `place`, RecordBytes(stored) of it.  `into`
  // gets its header as it was read and the plain payload: RecordBytes(identity.payload_bytes),
  // which nobody else knows of.
  RecordIdentity identity;
  LogPlace place;
  std::span<const uint8_t> record;
  uint8_t* into = nullptr;

  // kCorrupt: the bytes are not those that the header means; what was written is of no use.
  Status status;
  Encoded outcome;  // of kEncode, with Ok
};

class CodecResults {
 public:
  CodecResults();
  CodecResults(const CodecResults&) = delete;
  CodecResults& operator=(const CodecResults&) = delete;

  void Push(CodecJob& job);

  // Jobs that have ended, in the order of their ending.
  std::vector<CodecJob*> Take();
  bool pending() const { return pending_.load(std::memory_order_acquire); }
  // Readable while something is pending.
  int event_fd() const { return event_.get(); }

 private:
  const UniqueFd event_;
  std::atomic<bool> pending_{false};
  std::mutex mutex_;
  std::vector<CodecJob*> ended_;  // guarded by mutex_
};

}  // namespace terrace
