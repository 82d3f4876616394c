#include "storage/io/device_files.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>

namespace terrace {
namespace {

constexpr uint64_t kStatBlockBytes = 512;  // the unit of st_blocks, on every file system
constexpr mode_t kMode = 0600;
constexpr uint32_t kLockTries = 20;
constexpr std::chrono::milliseconds kLockPause{10};

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

// A name that a power loss forgets is a file that is lost.
Status SyncFolderOf(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const UniqueFd fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.valid() && fsync(fd.get()) == 0) return Status::Ok();
  return ErrnoStatus("fsync " + folder, errno);
}

int OpenAny(const std::string& path, int flags) {
  const int fd = open(path.c_str(), flags | O_CLOEXEC, kMode);
  if (fd >= 0) return fd;
  const bool forbidden = errno == EROFS || errno == EACCES || errno == EPERM;
  return forbidden ? open(path.c_str(), (flags & ~(O_RDWR | O_CREAT)) | O_RDONLY | O_CLOEXEC) : -1;
}

}  // namespace

bool DeviceFiles::writable() const {
  return std::all_of(files_.begin(), files_.end(),
                     [](const DeviceFile& file) { return file.writable; });
}

void DeviceFiles::Note(const DeviceFile& file, const std::string& what) {
  notes_.push_back(file.path + ": " + what);
}

Result<DeviceFiles> DeviceFiles::Open(const FileOptions& options) {
  if (options.paths.empty() || options.paths.size() > kDeviceFileCountMax) {
    return Status(StatusCode::kInvalid, "a device has 1 to " + std::to_string(kDeviceFileCountMax) +
                                            " paths, not " + std::to_string(options.paths.size()));
  }
  if (options.stripe_bytes == 0 || options.stripe_bytes % kPageBytes != 0) {
    return Status(StatusCode::kInvalid, "a stripe of " + std::to_string(options.stripe_bytes) +
                                            " bytes; give a positive multiple of 4096");
  }
  DeviceFiles files;
  files.stripe_bytes_ = options.stripe_bytes;
  files.stripes_per_file_ = UINT64_MAX;
  for (const std::string& path : options.paths) {
    if (Status opened = files.OpenOne(path); !opened.ok()) return opened;
  }
  uint64_t bytes_max = options.capacity_bytes / files.files_.size();
  for (DeviceFile& file : files.files_) {
    // No more than what the files before it have: it would lie idle.
    if (files.stripes_per_file_ != UINT64_MAX) {
      bytes_max = std::min(bytes_max, (files.stripes_per_file_ + 1) * options.stripe_bytes - 1);
    }
    Status room =
        file.raw ? files.FindRawRoom(file, bytes_max) : files.FindRoom(file, bytes_max, options);
    if (!room.ok()) return room;
    if (file.stripes == 0) {
      return Status(StatusCode::kNoSpace,
                    file.path + ": no room for " + std::to_string(options.stripe_bytes) +
                        " bytes, the least it can use: free some, or raise its capacity");
    }
    files.stripes_per_file_ = std::min(files.stripes_per_file_, file.stripes);
  }
  // What one file took before a later one had less.
  const uint64_t used_bytes = files.stripes_per_file_ * options.stripe_bytes;
  for (const DeviceFile& file : files.files_) {
    if (file.raw || !file.writable || file.stripes == files.stripes_per_file_) continue;
    Status cut = files.SetSize(file, std::max(used_bytes, file.had_bytes));
    if (!cut.ok()) return cut;
  }
  return files;
}

Status DeviceFiles::OpenOne(const std::string& path) {
  struct stat before {};
  const bool exists = stat(path.c_str(), &before) == 0;
  if (exists && !S_ISREG(before.st_mode) && !S_ISBLK(before.st_mode)) {
    return Status(StatusCode::kInvalid, path + " is neither a file nor a block device");
  }
  DeviceFile file;
  file.path = path;
  file.raw = exists && S_ISBLK(before.st_mode);
  // O_EXCL without O_CREAT: a block device that is mounted, or open so, is refused.
  const int flags = O_RDWR | (file.raw ? O_EXCL : O_CREAT);
  file.fd = UniqueFd(OpenAny(path, flags | O_DIRECT));
  file.direct = file.fd.valid();
  if (!file.direct && errno == EINVAL) {
    file.fd = UniqueFd(OpenAny(path, flags));
    if (file.fd.valid()) Note(file, "its file system has no O_DIRECT: slower, and cached twice");
  }
  if (!file.fd.valid() && errno == EBUSY) {
    return Status(StatusCode::kBusy, path + " is mounted or in use by another process");
  }
  if (!file.fd.valid()) return ErrnoStatus("open " + path, errno);
  file.writable = (fcntl(file.fd.get(), F_GETFL) & O_ACCMODE) == O_RDWR;
  if (!file.writable) Note(file, "it can only be read: nothing will be stored");
  if (Status locked = Lock(file); !locked.ok()) return locked;
  if (!exists) {
    if (Status synced = SyncFolderOf(path); !synced.ok()) return synced;
  }
  files_.push_back(std::move(file));
  return Status::Ok();
}

// A killed process' I/O, and with it its lock, may outlive it for a moment.
Status DeviceFiles::Lock(const DeviceFile& file) {
  for (uint32_t i = 0; flock(file.fd.get(), LOCK_EX | LOCK_NB) != 0; ++i) {
    if (errno != EWOULDBLOCK) return ErrnoStatus("flock " + file.path, errno);
    if (i == kLockTries) {
      return Status(StatusCode::kBusy, file.path + " is in use by another process, or named twice");
    }
    std::this_thread::sleep_for(kLockPause);
  }
  return Status::Ok();
}

void DeviceFiles::Unlock() const {
  for (const DeviceFile& file : files_) static_cast<void>(flock(file.fd.get(), LOCK_UN));
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
  if (bytes_max == 0) {
    return Status(StatusCode::kInvalid, file.path + " is a file: say how many bytes it may take");
  }
  struct stat before {};
  if (fstat(file.fd.get(), &before) != 0) return ErrnoStatus("fstat " + file.path, errno);
  file.had_bytes = static_cast<uint64_t>(before.st_size);
  const uint64_t wished = bytes_max / stripe_bytes_;
  if (!file.writable) {
    file.stripes = std::min(wished, file.had_bytes / stripe_bytes_);
    return Status::Ok();
  }
  if (file.had_bytes > bytes_max && !options.cut_surplus) {
    Note(file, "it is longer than the " + std::to_string(bytes_max) + " bytes it may take");
  } else if (options.cut_surplus && file.had_bytes > wished * stripe_bytes_) {
    file.had_bytes = wished * stripe_bytes_;
    if (Status cut = SetSize(file, file.had_bytes); !cut.ok()) return cut;
    if (fstat(file.fd.get(), &before) != 0) return ErrnoStatus("fstat " + file.path, errno);
  }

  const Result<uint64_t> free_bytes = FreeBytes(file, options.free_bytes_min);
  if (!free_bytes.ok()) return free_bytes.status();
  const uint64_t room = std::min(Allocated(before) + *free_bytes, FileSizeLimit());
  const uint64_t stripes = std::min(wished, room / stripe_bytes_);
  if (Status taken = Preallocate(file, stripes); !taken.ok()) return taken;
  CountAllocated(file, bytes_max);
  if (file.stripes < wished) {
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
