#include "storage/codec/frame_check.h"

#include <xxhash.h>

#include <algorithm>
#include <string>

#include "storage/base/check.h"

namespace terrace {

void FrameCheck::FreeState::operator()(XXH3_state_s* state) const { XXH3_freeState(state); }

FrameCheck::FrameCheck() : hash_(XXH3_createState()) { TERRACE_CHECK(hash_ != nullptr); }

void FrameCheck::Begin(uint32_t payload_bytes, uint32_t stored_bytes, uint64_t seal) {
  payload_bytes_ = payload_bytes;
  stored_bytes_ = stored_bytes;
  seal_ = seal;
  taken_ = 0;
}

Status FrameCheck::TakeTable(std::span<const uint8_t> bytes) {
  Status parsed = table_.Parse(bytes, payload_bytes_, stored_bytes_);
  if (!parsed.ok()) return parsed;
  if (table_.checksum() != seal_) {
    return Status(StatusCode::kCorrupt, "frame table: it is another record's");
  }
  frame_ = 0;
  taken_ = table_.frame(0).stored_offset;
  XXH3_64bits_reset(hash_.get());
  return Status::Ok();
}

Status FrameCheck::Take(std::span<const uint8_t> bytes) {
  TERRACE_CHECK(taken_ + bytes.size() <= stored_bytes_);
  if (taken_ == 0) {
    TERRACE_CHECK(bytes.size() >= std::min(stored_bytes_, shm::kRecordAlignment));
    if (Status table = TakeTable(bytes); !table.ok()) return table;
    bytes = bytes.subspan(taken_);
  }
  while (!bytes.empty()) {
    const Frame& frame = table_.frame(frame_);
    const uint64_t end = uint64_t{frame.stored_offset} + frame.stored_bytes;
    const size_t part = std::min<uint64_t>(bytes.size(), end - taken_);
    XXH3_64bits_update(hash_.get(), bytes.data(), part);
    bytes = bytes.subspan(part);
    taken_ += part;
    if (taken_ != end) break;
    if (XXH3_64bits_digest(hash_.get()) != frame.hash) {
      return Status(StatusCode::kCorrupt,
                    "frame " + std::to_string(frame_) + ": the stored bytes' hash differs");
    }
    ++frame_;
    XXH3_64bits_reset(hash_.get());
  }
  return Status::Ok();
}

}  // namespace terrace
