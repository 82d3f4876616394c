#include "storage/engine/codec_arena.h"

#include <iterator>
#include <utility>

#include "storage/base/check.h"
#include "storage/base/limits.h"

namespace terrace {
namespace {

constexpr uint64_t RoundUp(uint64_t bytes) {
  return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}

}  // namespace

Result<std::unique_ptr<CodecArena>> CodecArena::Create(BlockDevice& device, uint64_t bytes,
                                                       const MemoryFileOptions& options) {
  Result<MemoryFile> memory = MemoryFile::Create("terrace-codec", bytes, options);
  if (!memory.ok()) return memory.status();
  return std::unique_ptr<CodecArena>(new CodecArena(device, *std::move(memory)));
}

CodecArena::CodecArena(BlockDevice& device, MemoryFile memory)
    : device_(device), memory_(std::move(memory)) {
  free_.emplace(0, memory_.bytes());
  // Without a slot left the reads take longer, and work.
  const Result<BufferId> buffer =
      device_.RegisterBuffer(memory_.mapping().writable_data(), memory_.bytes());
  if (buffer.ok()) buffer_ = *buffer;
}

CodecArena::~CodecArena() {
  if (buffer_ != kNoBuffer) device_.UnregisterBuffer(buffer_);
}

std::span<uint8_t> CodecArena::Take(uint64_t bytes) {
  const uint64_t room = RoundUp(bytes);
  for (auto at = free_.begin(); at != free_.end(); ++at) {
    const auto [offset, free_bytes] = *at;
    if (free_bytes < room) continue;
    free_.erase(at);
    if (free_bytes > room) free_.emplace(offset + room, free_bytes - room);
    taken_bytes_ += room;
    return {memory_.mapping().writable_data() + offset, bytes};
  }
  return {};
}

void CodecArena::Give(std::span<uint8_t> piece) {
  auto offset = static_cast<uint64_t>(piece.data() - memory_.mapping().writable_data());
  uint64_t bytes = RoundUp(piece.size());
  TERRACE_CHECK(bytes > 0 && offset + bytes <= memory_.bytes() && taken_bytes_ >= bytes);
  taken_bytes_ -= bytes;
  const auto next = free_.lower_bound(offset);
  if (next != free_.begin()) {
    const auto before = std::prev(next);
    TERRACE_CHECK(before->first + before->second <= offset);
    if (before->first + before->second == offset) {
      offset = before->first;
      bytes += before->second;
      free_.erase(before);
    }
  }
  if (next != free_.end() && offset + bytes == next->first) {
    bytes += next->second;
    free_.erase(next);
  }
  free_.emplace(offset, bytes);
}

void CodecArena::Shrink(std::span<uint8_t>* piece, uint64_t bytes) {
  TERRACE_CHECK(bytes >= 1 && bytes <= piece->size());
  const uint64_t kept = RoundUp(bytes);
  if (kept < piece->size()) Give(piece->subspan(kept));
  *piece = piece->first(bytes);
}

}  // namespace terrace
