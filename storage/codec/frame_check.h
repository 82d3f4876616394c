#pragma once

// Whether stored bytes are an encoded payload's, without decoding it: its table, which the record's
// seal binds, and the hash of every frame.  For who copies or scrubs records, and takes them piece
// by piece.
//
// Threads: belongs to one thread at a time.

#include <cstdint>
#include <memory>
#include <span>

#include "storage/base/status.h"
#include "storage/codec/frame_table.h"

struct XXH3_state_s;

namespace terrace {

class FrameCheck {
 public:
  FrameCheck();
  FrameCheck(FrameCheck&&) = default;
  FrameCheck& operator=(FrameCheck&&) = default;

  // Of a record header: what comes next is its stored bytes.
  void Begin(uint32_t payload_bytes, uint32_t stored_bytes, uint64_t seal);

  // The next bytes, in order.  kCorrupt at the first difference, naming the frame; nothing more may
  // be taken then.  REQUIRES: the first piece is kRecordAlignment long or more, or all of it; not
  // more than stored_bytes in all.
  Status Take(std::span<const uint8_t> bytes);

  // All was taken, and all of it was right.
  bool whole() const { return taken_ == stored_bytes_; }

 private:
  struct FreeState {
    void operator()(XXH3_state_s* state) const;
  };

  Status TakeTable(std::span<const uint8_t> bytes);

  std::unique_ptr<XXH3_state_s, FreeState> hash_;  // of the frame that is being taken
  FrameTable table_;
  uint32_t payload_bytes_ = 0;
  uint32_t stored_bytes_ = 0;
  uint64_t seal_ = 0;
  uint64_t taken_ = 0;
  uint32_t frame_ = 0;
};

}  // namespace terrace
