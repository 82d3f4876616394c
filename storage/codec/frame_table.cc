#include "storage/codec/frame_table.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "storage/base/check.h"

namespace terrace {
namespace {

Status Corrupt(std::string message) {
  return Status(StatusCode::kCorrupt, "frame table: " + std::move(message));
}

std::string OfFrame(uint32_t index, const char* what, uint64_t value) {
  return "frame " + std::to_string(index) + " has " + what + " " + std::to_string(value);
}

Status CheckEntry(const shm::FrameEntry& entry, uint32_t index) {
  if (entry.method() > shm::kFrameMethodMax) {
    return Corrupt(OfFrame(index, "method", entry.method()));
  }
  const uint32_t plain = entry.plain_bytes();
  if (plain < 1 || plain > shm::kFrameBytesMax) {
    return Corrupt(OfFrame(index, "plain_bytes", plain));
  }
  const bool raw = static_cast<shm::FrameMethod>(entry.method()) == shm::FrameMethod::kRaw;
  const bool fits =
      raw ? entry.stored_bytes == plain : entry.stored_bytes >= 1 && entry.stored_bytes < plain;
  if (!fits) return Corrupt(OfFrame(index, "stored_bytes", entry.stored_bytes));
  return Status::Ok();
}

}  // namespace

uint64_t FrameTableChecksum(std::span<const uint8_t> table) {
  alignas(8) uint8_t bytes[shm::FrameTableBytes(shm::kFrameCountMax)];
  TERRACE_CHECK(table.size() >= sizeof(shm::FrameTableHead) && table.size() <= sizeof(bytes));
  std::memcpy(bytes, table.data(), table.size());
  std::memset(bytes + offsetof(shm::FrameTableHead, checksum), 0, sizeof(uint64_t));
  return XXH3_64bits(bytes, table.size());
}

Status FrameTable::Parse(std::span<const uint8_t> encoded, uint32_t payload_bytes,
                         uint32_t stored_bytes) {
  shm::FrameTableHead head;
  if (encoded.size() < sizeof(head)) return Corrupt("no room for its head");
  std::memcpy(&head, encoded.data(), sizeof(head));
  if (head.magic != shm::kFrameTableMagic) return Corrupt("magic differs");
  if (head.version != shm::kFrameTableVersion) {
    return Corrupt("version is " + std::to_string(head.version));
  }
  const uint32_t count = head.frame_count;
  if (count < 1 || count > shm::kFrameCountMax) {
    return Corrupt("frame_count is " + std::to_string(count));
  }
  const uint32_t table_bytes = shm::FrameTableBytes(count);
  if (encoded.size() < table_bytes) return Corrupt("no room for its entries");
  if (FrameTableChecksum(encoded.first(table_bytes)) != head.checksum) {
    return Corrupt("checksum differs");
  }

  // 255 frames of 1 MiB cannot overflow the sums.
  static_assert(uint64_t{shm::kFrameCountMax} * shm::kFrameBytesMax + shm::kRecordAlignment <
                UINT32_MAX);
  std::array<Frame, shm::kFrameCountMax> frames;
  uint32_t plain_offset = 0;
  uint32_t stored_offset = table_bytes;
  for (uint32_t i = 0; i < count; ++i) {
    shm::FrameEntry entry;
    std::memcpy(&entry, encoded.data() + shm::FrameTableBytes(i), sizeof(entry));
    Status checked = CheckEntry(entry, i);
    if (!checked.ok()) return checked;
    frames[i] = {.method = static_cast<shm::FrameMethod>(entry.method()),
                 .plain_offset = plain_offset,
                 .plain_bytes = entry.plain_bytes(),
                 .stored_offset = stored_offset,
                 .stored_bytes = entry.stored_bytes,
                 .hash = entry.hash};
    plain_offset += entry.plain_bytes();
    stored_offset += entry.stored_bytes;
  }
  if (plain_offset != payload_bytes) {
    return Corrupt("frames hold " + std::to_string(plain_offset) + " plain bytes, not " +
                   std::to_string(payload_bytes));
  }
  if (stored_offset != stored_bytes) {
    return Corrupt("frames end at " + std::to_string(stored_offset) + ", not " +
                   std::to_string(stored_bytes));
  }
  frame_count_ = count;
  payload_bytes_ = payload_bytes;
  stored_bytes_ = stored_bytes;
  checksum_ = head.checksum;
  std::copy_n(frames.begin(), count, frames_.begin());
  return Status::Ok();
}

FrameRange FrameTable::Covering(uint32_t offset, uint32_t bytes) const {
  TERRACE_CHECK(bytes >= 1 && uint64_t{offset} + bytes <= payload_bytes_);
  const auto begin = frames_.begin();
  const auto end = begin + frame_count_;
  const auto holds = [](uint32_t at, const Frame& frame) { return at < frame.plain_offset; };
  const auto first = std::upper_bound(begin, end, offset, holds) - 1;
  const auto last = std::upper_bound(first, end, offset + bytes - 1, holds) - 1;
  return {.first = static_cast<uint32_t>(first - begin),
          .count = static_cast<uint32_t>(last - first + 1)};
}

}  // namespace terrace
