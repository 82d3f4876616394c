#pragma once

// The memory in which encoded records wait: for the device to take them, or for the codec to decode
// them.  One region on the largest pages there are, for they decide the device's speed, which the
// device knows.  Cut first fit, each piece whole pages.
//
// Threads: belongs to the device's thread; the pieces may be used by others.

#include <cstdint>
#include <map>
#include <memory>
#include <span>

#include "storage/base/result.h"
#include "storage/io/block_device.h"
#include "storage/mem/memory_file.h"

namespace terrace {

class CodecArena {
 public:
  // `bytes` is a multiple of 2 MiB.  kNoSpace and others as MemoryFile::Create.  The device
  // outlives the arena.
  static Result<std::unique_ptr<CodecArena>> Create(BlockDevice& device, uint64_t bytes,
                                                    const MemoryFileOptions& options);
  CodecArena(const CodecArena&) = delete;
  CodecArena& operator=(const CodecArena&) = delete;
  // REQUIRES: nothing outstanding in the device that names the buffer.
  ~CodecArena();

  // Page-aligned, `bytes` long.  Empty: no room now.
  std::span<uint8_t> Take(uint64_t bytes);
  // REQUIRES: as Take gave it, or Shrink left it.
  void Give(std::span<uint8_t> piece);
  // Gives back what lies behind the first `bytes`.  REQUIRES: 1 <= bytes <= piece->size().
  void Shrink(std::span<uint8_t>* piece, uint64_t bytes);

  BufferId buffer() const { return buffer_; }
  uint64_t bytes() const { return memory_.bytes(); }
  uint64_t taken_bytes() const { return taken_bytes_; }

 private:
  CodecArena(BlockDevice& device, MemoryFile memory);

  // Constant after construction.
  BlockDevice& device_;
  const MemoryFile memory_;
  BufferId buffer_ = kNoBuffer;

  // Owned by the device's thread.
  std::map<uint64_t, uint64_t> free_;  // offset -> bytes; neighbours are one
  uint64_t taken_bytes_ = 0;
};

}  // namespace terrace
