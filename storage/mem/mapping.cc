#include "storage/mem/mapping.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>

#include "storage/base/check.h"
#include "storage/base/limits.h"

namespace terrace {
namespace {

bool HugeAligned(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % kHugePageBytes == 0;
}

void* MapAnywhere(int fd, uint64_t bytes, int protection) {
  return mmap(nullptr, bytes, protection, MAP_SHARED, fd, 0);
}

// Reserves address space with room to align, then maps over it.
void* MapAligned(int fd, uint64_t bytes, int protection) {
  const uint64_t page_bytes = kPageBytes;
  const uint64_t body = (bytes + page_bytes - 1) / page_bytes * page_bytes;
  void* const reserved = mmap(nullptr, body + kHugePageBytes, PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return MAP_FAILED;

  uint8_t* const begin = static_cast<uint8_t*>(reserved);
  const uint64_t past = reinterpret_cast<uintptr_t>(begin) % kHugePageBytes;
  const uint64_t head = past == 0 ? 0 : kHugePageBytes - past;
  uint8_t* const at = begin + head;
  void* const mapped = mmap(at, bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0);
  const int error = errno;
  // A failed MAP_FIXED may have unmapped the range already, and another thread may live there by
  // now: in that case only the edges are given back.
  if (head > 0) munmap(begin, head);
  munmap(at + body, kHugePageBytes - head);
  errno = error;
  return mapped;
}

}  // namespace

Result<Mapping> Mapping::Map(int fd, uint64_t bytes, bool writable) {
  TERRACE_CHECK(bytes > 0);
  struct stat file {};
  if (fstat(fd, &file) != 0) return ErrnoStatus("fstat of a memory file", errno);
  if (static_cast<uint64_t>(file.st_size) < bytes) {
    return Status(StatusCode::kInvalid, "a memory file of " + std::to_string(file.st_size) +
                                            " bytes cannot be mapped for " + std::to_string(bytes));
  }
  const int protection = PROT_READ | (writable ? PROT_WRITE : 0);
  void* mapped = MapAnywhere(fd, bytes, protection);
  if (mapped != MAP_FAILED && bytes >= kHugePageBytes && !HugeAligned(mapped)) {
    munmap(mapped, bytes);
    mapped = MapAligned(fd, bytes, protection);
  }
  if (mapped == MAP_FAILED) {
    const int error = errno;
    return ErrnoStatus(
        "mmap of " + std::to_string(bytes) + " bytes, " + (writable ? "writable" : "read-only"),
        error);
  }
  return Mapping(static_cast<uint8_t*>(mapped), bytes, writable);
}

Result<Mapping> Mapping::MapReadOnly(int fd, uint64_t bytes) { return Map(fd, bytes, false); }

Result<Mapping> Mapping::MapReadWrite(int fd, uint64_t bytes) { return Map(fd, bytes, true); }

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  if (this == &other) return *this;
  Reset();
  data_ = std::exchange(other.data_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  writable_ = std::exchange(other.writable_, false);
  return *this;
}

uint8_t* Mapping::writable_data() const {
  TERRACE_CHECK(writable_);
  return data_;
}

void Mapping::Reset() {
  if (data_ != nullptr) TERRACE_CHECK(munmap(data_, bytes_) == 0);
  data_ = nullptr;
  bytes_ = 0;
  writable_ = false;
}

}  // namespace terrace
