#include "storage/mem/memory_file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

#include "storage/base/check.h"
#include "storage/base/limits.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U  // since Linux 6.3
#endif

namespace terrace {
namespace {

constexpr mode_t kMode = 0600;
constexpr mode_t kPermissionBits = 07777;
constexpr int kSizeSeals = F_SEAL_SHRINK | F_SEAL_GROW;

// The word in brackets: "always [advise] never" -> "advise"; empty where there is no such file.
std::string ChosenWord(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  const size_t open = line.find('[');
  const size_t close = line.find(']');
  if (open == std::string::npos || close == std::string::npos || close < open) return "";
  return line.substr(open + 1, close - open - 1);
}

bool FitsHugePages(uint64_t bytes) { return bytes % kHugePageBytes == 0; }

UniqueFd MakeMemfd(const std::string& name, PageRung rung) {
  unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  if (rung == PageRung::kHugetlb) flags |= MFD_HUGETLB | MFD_HUGE_2MB;
  // Systems with vm.memfd_noexec = 2 demand it, kernels before 6.3 do not know it.
  UniqueFd fd(memfd_create(name.c_str(), flags | MFD_NOEXEC_SEAL));
  if (fd.valid() || errno != EINVAL) return fd;
  return UniqueFd(memfd_create(name.c_str(), flags));
}

void AskForHugePages(const Mapping& mapping) {
  // A refusal costs speed only; the rung says what was asked for.
  static_cast<void>(madvise(const_cast<uint8_t*>(mapping.data()), mapping.bytes(), MADV_HUGEPAGE));
}

Status NotOurs(const std::string& what) {
  return Status(StatusCode::kInvalid, "not a memory file of ours: " + what);
}

// REQUIRES: the descriptor is a memfd.
Result<PageRung> FindRung(int fd, uint64_t bytes, const std::string& root) {
  struct statfs system {};
  if (fstatfs(fd, &system) != 0) return ErrnoStatus("fstatfs of a memory file", errno);
  if (system.f_type == HUGETLBFS_MAGIC) {
    if (static_cast<uint64_t>(system.f_bsize) == kHugePageBytes) return PageRung::kHugetlb;
    return NotOurs("its huge pages have " + std::to_string(system.f_bsize) + " bytes");
  }
  const bool transparent = FitsHugePages(bytes) && TransparentHugePagesPermitted(root);
  return transparent ? PageRung::kTransparent : PageRung::kSmall;
}

}  // namespace

const char* PageRungName(PageRung rung) {
  switch (rung) {
    case PageRung::kHugetlb: return "hugetlb";
    case PageRung::kTransparent: return "transparent huge pages";
    case PageRung::kSmall: return "4 KiB pages";
  }
  return "unknown";
}

bool TransparentHugePagesPermitted(const std::string& root) {
  const std::string folder = root + "/sys/kernel/mm/transparent_hugepage";
  // Newer kernels have a setting a page size, which mostly inherits the common one.
  std::string word = ChosenWord(folder + "/hugepages-2048kB/shmem_enabled");
  if (word.empty() || word == "inherit") word = ChosenWord(folder + "/shmem_enabled");
  return word == "always" || word == "advise" || word == "within_size" || word == "force";
}

// The order matters: an fallocate, or any touch, before MADV_HUGEPAGE would give the file small
// pages for good; and no descriptor exists elsewhere before the mode and the seals are set.
Result<MemoryFile> MemoryFile::CreateOn(PageRung rung, const std::string& name, uint64_t bytes) {
  UniqueFd fd = MakeMemfd(name, rung);
  if (!fd.valid()) return ErrnoStatus("memfd_create " + name, errno);
  if (ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return ErrnoStatus("ftruncate " + name + " to " + std::to_string(bytes), errno);
  }
  if (fchmod(fd.get(), kMode) != 0) return ErrnoStatus("fchmod " + name, errno);
  if (fcntl(fd.get(), F_ADD_SEALS, kSizeSeals) != 0) return ErrnoStatus("seals of " + name, errno);
  Result<Mapping> mapping = Mapping::MapReadWrite(fd.get(), bytes);
  if (!mapping.ok()) return mapping.status();
  if (rung == PageRung::kTransparent) AskForHugePages(*mapping);
  return MemoryFile(std::move(fd), *std::move(mapping), rung);
}

Result<MemoryFile> MemoryFile::Create(const std::string& name, uint64_t bytes,
                                      const MemoryFileOptions& options) {
  if (bytes == 0 || bytes % kPageBytes != 0) {
    return Status(StatusCode::kInvalid, name + ": a memory file of " + std::to_string(bytes) +
                                            " bytes; give a positive multiple of 4096");
  }
  const bool huge = FitsHugePages(bytes);
  if (huge && options.best == PageRung::kHugetlb) {
    Result<MemoryFile> made = CreateOn(PageRung::kHugetlb, name, bytes);
    if (made.ok()) return made;  // no page reserved is the rule, not an error: the next rung
  }
  if (huge && options.best != PageRung::kSmall && TransparentHugePagesPermitted(options.root)) {
    return CreateOn(PageRung::kTransparent, name, bytes);
  }
  return CreateOn(PageRung::kSmall, name, bytes);
}

Result<MemoryFile> MemoryFile::Adopt(UniqueFd fd, const MemoryFileOptions& options) {
  struct stat file {};
  if (fstat(fd.get(), &file) != 0) return ErrnoStatus("fstat of an inherited memory file", errno);
  const int seals = fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0) return NotOurs("it has no seals");
  if ((seals & kSizeSeals) != kSizeSeals) return NotOurs("its size is not sealed");
  if ((file.st_mode & kPermissionBits) != kMode) return NotOurs("its mode is not 0600");
  const uint64_t bytes = static_cast<uint64_t>(file.st_size);
  if (bytes == 0 || bytes % kPageBytes != 0) {
    return NotOurs("it has " + std::to_string(bytes) + " bytes");
  }
  const Result<PageRung> rung = FindRung(fd.get(), bytes, options.root);
  if (!rung.ok()) return rung.status();

  const bool read_only = (seals & F_SEAL_FUTURE_WRITE) != 0;
  Result<Mapping> mapping =
      read_only ? Mapping::MapReadOnly(fd.get(), bytes) : Mapping::MapReadWrite(fd.get(), bytes);
  if (!mapping.ok()) return mapping.status();
  if (*rung == PageRung::kTransparent) AskForHugePages(*mapping);
  return MemoryFile(std::move(fd), *std::move(mapping), *rung);
}

Result<UniqueFd> MemoryFile::OpenReadOnly() const {
  const std::string path = "/proc/self/fd/" + std::to_string(fd_.get());
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus("open " + path + " read-only", errno);
  return fd;
}

Status MemoryFile::SealFutureWrite() {
  if (fcntl(fd_.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0) return Status::Ok();
  return ErrnoStatus("F_SEAL_FUTURE_WRITE", errno);
}

Status MemoryFile::SealSeals() {
  if (fcntl(fd_.get(), F_ADD_SEALS, F_SEAL_SEAL) == 0) return Status::Ok();
  return ErrnoStatus("F_SEAL_SEAL", errno);
}

uint64_t MemoryFile::page_bytes() const {
  return rung_ == PageRung::kSmall ? kPageBytes : kHugePageBytes;
}

}  // namespace terrace
