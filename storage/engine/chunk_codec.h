#pragma once

// One store's half of the codec: the memory that its encoded records pass through, its jobs at the
// pool, and which namespaces are worth encoding.  It knows nothing of chunks' places or of the log:
// the flows are the ChunkStore's (chunk_store_codec.cc).
//
// Two regions, of two of the largest payloads each, bound what is under way: one for what is being
// encoded and written, one for what is being read and decoded, so that neither waits for the other.
//
// Threads: belongs to one shard, but for the pool's part of a job.

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "storage/base/result.h"
#include "storage/engine/chunk_table.h"
#include "storage/engine/codec_arena.h"
#include "storage/engine/codec_geometry.h"
#include "storage/engine/codec_job.h"
#include "storage/engine/codec_pool.h"
#include "storage/engine/namespace_spec.h"

namespace terrace {

// A smaller payload can save no page.
inline constexpr uint32_t kEncodeBytesMin = 2 * shm::kRecordAlignment;

class ChunkCodec {
 public:
  struct Encoding : CodecJob {
    ChunkTicket chunk;
    uint32_t segment = 0;  // in DRAM, held
    // What the log takes, once it has gained.
    std::span<const uint8_t> stored() const { return encoded.first(outcome.stored_bytes); }
    bool gained() const;
  };
  using DecodeDone = std::function<void(const Status& status)>;
  enum class Begun : uint8_t { kStarted, kNoRoom, kNotWorthIt };

  // Both outlive it.  Errors as of CodecArena.
  static Result<std::unique_ptr<ChunkCodec>> Create(CodecPool& pool, BlockDevice& device,
                                                    uint32_t chunk_bytes_max,
                                                    const MemoryFileOptions& memory);
  // Waits for what the pool is doing of it, some 50 ms at most.  REQUIRES: nothing outstanding in
  // the device that names its memory.
  ~ChunkCodec();

  // -- Encoding --------------------------------------------------------------------------------
  struct Wish {
    ChunkTicket chunk;
    uint32_t segment = 0;
    RecordIdentity identity;
    const uint64_t* leaves = nullptr;  // as kept since the commit
    const uint8_t* plain = nullptr;    // stays mapped until it has ended
  };
  // kStarted: it comes back from TakeEncoded.  kNoRoom: too much is under way.  kNotWorthIt:
  // nothing is known of such elements, or the namespace's data has not gained for some time.
  Begun Encode(const Wish& wish, const NamespaceInfo& of);
  // The next that has ended, in whatever way; the caller's until Release.  Null: none.
  Encoding* TakeEncoded();
  // What came of it; of a namespace whose data does not gain fewer are tried.
  void Judge(const Encoding& encoding);
  void Release(Encoding* encoding);

  // -- Decoding --------------------------------------------------------------------------------
  // Memory to read a record into; empty: too much is under way, and whoever has some gives it back.
  std::span<uint8_t> TakeRecord(uint64_t record_bytes) { return records_->Take(record_bytes); }
  void GiveRecord(std::span<uint8_t> record) { records_->Give(record); }
  BufferId record_buffer() const { return records_->buffer(); }
  // `record` is as it was read from `place`; `into` as CodecJob's.  `done` comes from Poll.
  void Decode(const RecordIdentity& identity, const LogPlace& place,
              std::span<const uint8_t> record, uint8_t* into, DecodeDone done);

  // Hands waiting jobs to the pool, takes what it has ended, calls what is done.  True when
  // something ended.
  bool Poll();
  // Something has ended, and Poll has not seen it.
  bool pending() const { return results_.pending(); }
  // The pool was full: Poll is to be called again soon though nothing of ours may end.
  bool waiting() const { return !to_submit_.empty(); }
  int event_fd() const { return results_.event_fd(); }
  uint64_t memory_bytes() const { return encodings_->bytes() + records_->bytes(); }

 private:
  struct Decoding : CodecJob {
    DecodeDone done;
  };
  struct Space {
    ElementType element = ElementType::kOpaque;
    CodecTrial trial;
  };

  explicit ChunkCodec(CodecPool& pool) : pool_(pool) {}
  Space& SpaceOf(const NamespaceInfo& of);
  std::unique_ptr<Encoding> TakeEncoding();

  // Constant after construction.
  CodecPool& pool_;
  std::unique_ptr<CodecArena> encodings_, records_;

  // Owned by the shard's thread.
  std::map<uint32_t, Space> spaces_;                 // by namespace id; bounded
  std::vector<std::unique_ptr<Encoding>> encoding_;  // under way, in no order
  std::vector<std::unique_ptr<Encoding>> idle_;      // to be used again
  std::vector<std::unique_ptr<Decoding>> decoding_;  // the same
  std::vector<std::unique_ptr<Decoding>> idle_decodings_;
  std::deque<Decoding*> to_submit_;
  std::deque<Encoding*> encoded_;  // ended, not yet taken

  CodecResults results_;
};

}  // namespace terrace
