#pragma once

// A memfd of fixed size and the daemon's mapping of it: what a DRAM segment, an index or a
// session's memory lives in.  Knows nothing of what the bytes mean.
//
//   absent --Create--> sealed against shrinking and growing, 0600 --SealFutureWrite--> no new
//   writable mappings, by anyone, ever
//
// Pages are taken from the best rung that the system grants: hugetlb, then shared memory with
// transparent huge pages, then 4 KiB.  None is populated here: first touches do that, or a
// Populator in the background.
//
// Threads: one owner; const methods are safe from any thread.

#include <cstdint>
#include <string>

#include "storage/base/fd.h"
#include "storage/base/result.h"
#include "storage/mem/mapping.h"

namespace terrace {

enum class PageRung : uint8_t {
  kHugetlb,      // 2 MiB pages, reserved when the file was mapped
  kTransparent,  // 2 MiB pages where the kernel finds them when the memory is first touched
  kSmall,        // 4 KiB pages
};

// "hugetlb", "transparent huge pages", "4 KiB pages".
const char* PageRungName(PageRung rung);

struct MemoryFileOptions {
  // The first rung tried; lower ones follow.
  PageRung best = PageRung::kHugetlb;
  // Prefix of /sys, for tests.
  std::string root;
};

class MemoryFile {
 public:
  MemoryFile() = default;
  MemoryFile(MemoryFile&&) noexcept = default;
  MemoryFile& operator=(MemoryFile&&) noexcept = default;

  // A new file, zero-filled, mapped writable.  `name` shows in /proc/<pid>/maps after "memfd:".
  // kInvalid for a size of 0 or off 4 KiB; kNoSpace, kBusy (no descriptor left) or kDenied as the
  // system says once the last rung has failed.  A size that is no multiple of 2 MiB starts at the
  // 4 KiB rung.
  static Result<MemoryFile> Create(const std::string& name, uint64_t bytes,
                                   const MemoryFileOptions& options);

  // A file that Create made, in this process or an earlier one: checks that it is sealed and 0600,
  // finds its rung, and maps it, read-only where SealFutureWrite was called.  kInvalid naming what
  // is wrong when it is no such file.
  static Result<MemoryFile> Adopt(UniqueFd fd, const MemoryFileOptions& options);

  // A descriptor for readers: it maps read-only, and processes of other users cannot re-open it
  // writable.  One of the same user (or root) can: only SealFutureWrite ends that.
  Result<UniqueFd> OpenReadOnly() const;

  // From now on no process can map the file writable or write() to it; mappings that exist, this
  // one included, stay writable.  For files that only the daemon fills; cannot be undone.
  Status SealFutureWrite();

  // Ends all sealing: who holds a writable descriptor cannot keep others from mapping it.
  Status SealSeals();

  bool valid() const { return fd_.valid(); }
  // Borrowed: with it a file can be mapped writable, so only leased segments send it.
  const UniqueFd& fd() const { return fd_; }
  const Mapping& mapping() const { return mapping_; }
  uint64_t bytes() const { return mapping_.bytes(); }
  PageRung rung() const { return rung_; }

  // 2 MiB or 4 KiB.  On kTransparent it is what the kernel was asked for and permits; fragmented
  // memory may still give single ranges 4 KiB pages.
  uint64_t page_bytes() const;

 private:
  MemoryFile(UniqueFd fd, Mapping mapping, PageRung rung)
      : fd_(std::move(fd)), mapping_(std::move(mapping)), rung_(rung) {}

  static Result<MemoryFile> CreateOn(PageRung rung, const std::string& name, uint64_t bytes);

  UniqueFd fd_;
  Mapping mapping_;
  PageRung rung_ = PageRung::kSmall;
};

// Whether the kernel gives memfds huge pages on MADV_HUGEPAGE; often it does not by default.
// For the warning that says which setting to change.
bool TransparentHugePagesPermitted(const std::string& root);

}  // namespace terrace
