// Room, and what became of it; device_files_open.cc opens the paths.
#include "storage/io/device_files.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "storage/base/check.h"

namespace terrace {
namespace {

constexpr uint64_t kStatBlockBytes = 512;  // the unit of st_blocks, on every file system

uint64_t Allocated(const struct stat& file) {
  return static_cast<uint64_t>(file.st_blocks) * kStatBlockBytes;
}

// What RLIMIT_FSIZE lets a file grow to: beyond it the kernel sends SIGXFSZ, which ends a process.
uint64_t FileSizeLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
  return limit.rlim_cur;
}

bool RoomRanOut(int error) { return error == ENOSPC || error == EDQUOT || error == EFBIG; }

// What ordinary users may still take, above `free_bytes_min`.
Result<uint64_t> FreeBytes(const DeviceFile& file, uint64_t free_bytes_min) {
  struct statvfs system {};
  if (fstatvfs(file.fd.get(), &system) != 0) return ErrnoStatus("statvfs " + file.path, errno);
  const uint64_t free_bytes = uint64_t{system.f_bavail} * system.f_frsize;
  return free_bytes > free_bytes_min ? free_bytes - free_bytes_min : 0;
}

}  // namespace

bool DeviceFiles::writable() const {
  return std::all_of(files_.begin(), files_.end(),
                     [](const DeviceFile& file) { return file.writable; });
}

void DeviceFiles::Note(const DeviceFile& file, const std::string& what) {
  notes_.push_back(file.path + ": " + what);
}

Result<DeviceFiles> DeviceFiles::Open(const FileOptions& options, FilesFault* fault) {
  Result<DeviceFiles> files = OpenPaths(options.paths, fault);
  if (!files.ok()) return files;
  if (Status room = files->TakeRoom(options, fault); !room.ok()) return room;
  return files;
}

Status DeviceFiles::TakeRoom(const FileOptions& options, FilesFault* fault) {
  TERRACE_CHECK(stripe_bytes_ == 0 && options.paths.size() == files_.size());
  FilesFault kind = FilesFault::kMedium;
  Status taken = FindAllRoom(options, &kind);
  if (fault != nullptr) *fault = taken.ok() ? FilesFault::kNone : kind;
  return taken;
}

Status DeviceFiles::FindAllRoom(const FileOptions& options, FilesFault* fault) {
  if (options.stripe_bytes == 0 || options.stripe_bytes % kPageBytes != 0) {
    *fault = FilesFault::kSettings;
    return Status(StatusCode::kInvalid, "a stripe of " + std::to_string(options.stripe_bytes) +
                                            " bytes; give a positive multiple of 4096");
  }
  stripe_bytes_ = options.stripe_bytes;
  stripes_per_file_ = UINT64_MAX;
  uint64_t bytes_max = options.capacity_bytes / files_.size();
  for (DeviceFile& file : files_) {
    if (!file.raw && bytes_max == 0) {
      *fault = FilesFault::kSettings;
      return Status(StatusCode::kInvalid, file.path + " is a file: say how many bytes it may take");
    }
    // No more than what the files before it have: it would lie idle.
    if (stripes_per_file_ != UINT64_MAX) {
      bytes_max = std::min(bytes_max, (stripes_per_file_ + 1) * options.stripe_bytes - 1);
    }
    Status room = file.raw ? FindRawRoom(file, bytes_max) : FindRoom(file, bytes_max, options);
    if (!room.ok()) return room;
    if (file.stripes == 0) {
      return Status(StatusCode::kNoSpace,
                    file.path + ": no room for " + std::to_string(options.stripe_bytes) +
                        " bytes, the least it can use: free some, or raise its capacity");
    }
    stripes_per_file_ = std::min(stripes_per_file_, file.stripes);
  }
  // What one file took before a later one had less.
  const uint64_t used_bytes = stripes_per_file_ * options.stripe_bytes;
  for (const DeviceFile& file : files_) {
    if (file.raw || !file.writable || file.stripes == stripes_per_file_) continue;
    Status cut = SetSize(file, std::max(used_bytes, file.had_bytes));
    if (!cut.ok()) return cut;
  }
  return Status::Ok();
}

Status DeviceFiles::KeepRoom(uint64_t stripe_bytes) {
  TERRACE_CHECK(stripe_bytes_ == 0 && stripe_bytes > 0 && stripe_bytes % kPageBytes == 0);
  stripe_bytes_ = stripe_bytes;
  stripes_per_file_ = UINT64_MAX;
  for (DeviceFile& file : files_) {
    if (file.raw) {
      if (Status room = FindRawRoom(file, 0); !room.ok()) return room;
    } else {
      struct stat now {};
      if (fstat(file.fd.get(), &now) != 0) return ErrnoStatus("fstat " + file.path, errno);
      file.had_bytes = static_cast<uint64_t>(now.st_size);
      file.preallocated = true;
      file.stripes = file.had_bytes / stripe_bytes_;
    }
    if (file.stripes == 0) {
      return Status(StatusCode::kNoSpace, file.path + " is cut short: it has not one stripe of " +
                                              std::to_string(stripe_bytes_) + " bytes");
    }
    stripes_per_file_ = std::min(stripes_per_file_, file.stripes);
  }
  return Status::Ok();
}

Status DeviceFiles::FindRawRoom(DeviceFile& file, uint64_t bytes_max) {
  uint64_t bytes = 0;
  if (ioctl(file.fd.get(), BLKGETSIZE64, &bytes) != 0) {
    return ErrnoStatus("the size of " + file.path, errno);
  }
  if (bytes_max > 0 && bytes < bytes_max) {
    Note(file, "it has " + std::to_string(bytes) + " bytes of the " + std::to_string(bytes_max) +
                   " wished");
  }
  file.preallocated = true;
  file.stripes = (bytes_max > 0 ? std::min(bytes, bytes_max) : bytes) / stripe_bytes_;
  return Status::Ok();
}

Status DeviceFiles::FindRoom(DeviceFile& file, uint64_t bytes_max, const FileOptions& options) {
  struct stat before {};
  if (fstat(file.fd.get(), &before) != 0) return ErrnoStatus("fstat " + file.path, errno);
  file.had_bytes = static_cast<uint64_t>(before.st_size);
  const uint64_t wished = bytes_max / stripe_bytes_;
  if (!file.writable) {
    file.stripes = std::min(wished, file.had_bytes / stripe_bytes_);
    return Status::Ok();
  }
  if (file.had_bytes > bytes_max) {
    Note(file, "it is longer than the " + std::to_string(bytes_max) + " bytes it may take");
  }

  const Result<uint64_t> free_bytes = FreeBytes(file, options.free_bytes_min);
  if (!free_bytes.ok()) return free_bytes.status();
  const uint64_t room = std::min(Allocated(before) + *free_bytes, FileSizeLimit());
  const uint64_t stripes = std::min(wished, room / stripe_bytes_);
  if (Status taken = Preallocate(file, stripes); !taken.ok()) return taken;
  CountAllocated(file, bytes_max);
  // One fewer for what the file system keeps of the file itself is no news.
  if (stripes < wished) {
    Note(file, "room for " + std::to_string(file.stripes * stripe_bytes_) + " bytes of the " +
                   std::to_string(bytes_max) + " wished");
  }
  // The size and the extents, before anything in them is called durable.
  if (fsync(file.fd.get()) != 0) return ErrnoStatus("fsync " + file.path, errno);
  return Status::Ok();
}

// Stripe by stripe, because a failed fallocate leaves behind what it got so far.
Status DeviceFiles::Preallocate(DeviceFile& file, uint64_t stripes) {
  file.preallocated = true;
  while (file.stripes < stripes) {
    const auto at = static_cast<off_t>(file.stripes * stripe_bytes_);
    if (fallocate(file.fd.get(), 0, at, static_cast<off_t>(stripe_bytes_)) == 0) {
      ++file.stripes;
      continue;
    }
    if (errno == EINTR) continue;
    if (RoomRanOut(errno))
      return SetSize(file, std::max(file.had_bytes, static_cast<uint64_t>(at)));
    if (errno != EOPNOTSUPP) return ErrnoStatus("fallocate " + file.path, errno);
    file.preallocated = false;
    file.stripes = stripes;
    Note(file, "its file system cannot preallocate: writes may run out of space");
    if (file.had_bytes < stripes * stripe_bytes_) return SetSize(file, stripes * stripe_bytes_);
  }
  return Status::Ok();
}

// Some file systems promise room that they do not have, and extents take blocks of their own.
void DeviceFiles::CountAllocated(DeviceFile& file, uint64_t bytes_max) {
  struct stat now {};
  if (!file.preallocated || fstat(file.fd.get(), &now) != 0) return;
  file.stripes = std::min(file.stripes, Allocated(now) / stripe_bytes_);
  while (Allocated(now) > bytes_max && file.stripes > 0 &&
         static_cast<uint64_t>(now.st_size) > file.had_bytes) {
    --file.stripes;
    const uint64_t bytes = std::max(file.had_bytes, file.stripes * stripe_bytes_);
    if (!SetSize(file, bytes).ok() || fstat(file.fd.get(), &now) != 0) return;
  }
}

Status DeviceFiles::SetSize(const DeviceFile& file, uint64_t bytes) {
  if (ftruncate(file.fd.get(), static_cast<off_t>(bytes)) == 0) return Status::Ok();
  return ErrnoStatus("ftruncate " + file.path + " to " + std::to_string(bytes), errno);
}

Status DeviceFiles::Check() const {
  for (const DeviceFile& file : files_) {
    struct stat now {};
    if (fstat(file.fd.get(), &now) != 0) return ErrnoStatus("fstat " + file.path, errno);
    if (file.raw) continue;
    if (now.st_nlink == 0) {
      return Status(StatusCode::kIoError, file.path + " was removed while it was in use");
    }
    const uint64_t needed = stripes_per_file_ * stripe_bytes_;
    if (static_cast<uint64_t>(now.st_size) < needed) {
      return Status(StatusCode::kIoError, file.path + " shrank to " + std::to_string(now.st_size) +
                                              " of " + std::to_string(needed) + " bytes");
    }
  }
  return Status::Ok();
}

uint64_t DeviceFiles::AllocatedBytes() const {
  uint64_t bytes = 0;
  for (const DeviceFile& file : files_) {
    struct stat now {};
    if (file.raw) {
      bytes += stripes_per_file_ * stripe_bytes_;
    } else if (fstat(file.fd.get(), &now) == 0) {
      bytes += Allocated(now);
    }
  }
  return bytes;
}

}  // namespace terrace
