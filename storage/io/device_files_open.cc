// The paths: whose they are, opened, locked, read before they are sized.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include "storage/base/check.h"
#include "storage/io/device_files.h"

namespace terrace {
namespace {

constexpr mode_t kMode = 0600;
constexpr mode_t kOwnerBits = 0700;
constexpr uint32_t kLockTries = 20;
constexpr std::chrono::milliseconds kLockPause{10};

std::string FolderOf(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

// A name that a power loss forgets is a file that is lost.
Status SyncFolderOf(const std::string& path) {
  const std::string folder = FolderOf(path);
  const UniqueFd fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.valid() && fsync(fd.get()) == 0) return Status::Ok();
  return ErrnoStatus("fsync " + folder, errno);
}

int OpenAny(const std::string& path, int flags) {
  const int fd = open(path.c_str(), flags | O_NOFOLLOW | O_CLOEXEC, kMode);
  if (fd >= 0) return fd;
  const bool forbidden = errno == EROFS || errno == EACCES || errno == EPERM;
  const int reading = (flags & ~(O_RDWR | O_CREAT)) | O_RDONLY;
  return forbidden ? open(path.c_str(), reading | O_NOFOLLOW | O_CLOEXEC) : -1;
}

// Who may write in the folder can put another file in the path's place.
Status CheckFolder(const std::string& path, FilesFault* fault) {
  const std::string folder = FolderOf(path);
  struct stat at {};
  if (stat(folder.c_str(), &at) != 0) return ErrnoStatus("the folder of " + path, errno);
  const bool shared = (at.st_mode & (S_IWGRP | S_IWOTH)) != 0 && (at.st_mode & S_ISVTX) == 0;
  if (!shared) return Status::Ok();
  *fault = FilesFault::kNotOurs;
  return Status(StatusCode::kDenied,
                folder + " can be written by others: chmod go-w " + folder + ", or use another");
}

// Where a link to a block device leads (/dev/disk/by-id has such); `path` itself for no link, and
// nothing for a link to anything else.
std::string Resolved(const std::string& path) {
  struct stat link {};
  if (lstat(path.c_str(), &link) != 0 || !S_ISLNK(link.st_mode)) return path;
  struct stat target {};
  if (stat(path.c_str(), &target) != 0 || !S_ISBLK(target.st_mode)) return std::string();
  const std::unique_ptr<char, decltype(&std::free)> real(realpath(path.c_str(), nullptr),
                                                         &std::free);
  return real != nullptr ? std::string(real.get()) : std::string();
}

}  // namespace

Result<DeviceFiles> DeviceFiles::OpenPaths(const std::vector<std::string>& paths, FilesFault* fault,
                                           FilesUse use) {
  FilesFault unasked = FilesFault::kNone;
  if (fault == nullptr) fault = &unasked;
  *fault = FilesFault::kSettings;
  if (paths.empty() || paths.size() > kDeviceFileCountMax) {
    return Status(StatusCode::kInvalid, "a device has 1 to " + std::to_string(kDeviceFileCountMax) +
                                            " paths, not " + std::to_string(paths.size()));
  }
  DeviceFiles files;
  for (const std::string& path : paths) {
    *fault = FilesFault::kMedium;
    if (Status opened = files.OpenOne(path, fault, use); !opened.ok()) return opened;
  }
  *fault = FilesFault::kNone;
  return files;
}

Status DeviceFiles::OpenOne(const std::string& path, FilesFault* fault, FilesUse use) {
  DeviceFile file;
  file.path = path;
  const std::string real = Resolved(path);
  if (real.empty()) {
    *fault = FilesFault::kSettings;
    return Status(StatusCode::kInvalid, path + " is a symbolic link: name what it points to");
  }
  struct stat before {};
  const bool exists = lstat(real.c_str(), &before) == 0;
  if (exists && !S_ISREG(before.st_mode) && !S_ISBLK(before.st_mode)) {
    *fault = FilesFault::kSettings;
    return Status(StatusCode::kInvalid, path + " is neither a file nor a block device");
  }
  if (Status folder = CheckFolder(real, fault); !folder.ok()) return folder;
  file.raw = exists && S_ISBLK(before.st_mode);
  // O_EXCL without O_CREAT: a block device that is mounted, or open so, is refused.
  const int making = use == FilesUse::kServe ? O_CREAT : 0;
  const int flags = (use == FilesUse::kLook ? O_RDONLY : O_RDWR) | (file.raw ? O_EXCL : making);
  file.fd = UniqueFd(OpenAny(real, flags | O_DIRECT));
  file.direct = file.fd.valid();
  if (!file.direct && errno == EINVAL) {
    file.fd = UniqueFd(OpenAny(real, flags));
    if (file.fd.valid()) Note(file, "its file system has no O_DIRECT: slower, and cached twice");
  }
  if (!file.fd.valid() && errno == EBUSY) {
    return Status(StatusCode::kBusy, path + " is mounted or in use by another process");
  }
  if (!file.fd.valid()) return ErrnoStatus("open " + path, errno);
  file.writable = (fcntl(file.fd.get(), F_GETFL) & O_ACCMODE) == O_RDWR;
  if (!file.writable && use != FilesUse::kLook) {
    Note(file, "it can only be read: nothing will be stored");
  }
  if (Status owned = CheckOwner(file, fault, use); !owned.ok()) return owned;
  if (Status locked = Lock(file); !locked.ok()) return locked;
  if (!exists) {
    if (Status synced = SyncFolderOf(real); !synced.ok()) return synced;
  }
  files_.push_back(std::move(file));
  return Status::Ok();
}

// What was opened, not what the path named a moment before.
Status DeviceFiles::CheckOwner(const DeviceFile& file, FilesFault* fault, FilesUse use) {
  struct stat at {};
  if (fstat(file.fd.get(), &at) != 0) return ErrnoStatus("fstat " + file.path, errno);
  *fault = FilesFault::kNotOurs;
  if (file.raw ? !S_ISBLK(at.st_mode) : !S_ISREG(at.st_mode)) {
    return Status(StatusCode::kDenied, file.path + " was exchanged while it was opened");
  }
  const bool roots = use != FilesUse::kServe && geteuid() == 0;
  if (!file.raw && at.st_uid != geteuid() && !roots) {
    return Status(StatusCode::kDenied, file.path + " belongs to uid " + std::to_string(at.st_uid) +
                                           ", and the daemon runs as " + std::to_string(geteuid()) +
                                           ": chown it, or name another path");
  }
  if (!file.raw && at.st_nlink != 1) {
    return Status(StatusCode::kDenied, file.path + " has " + std::to_string(at.st_nlink) +
                                           " names: remove the others, or name another path");
  }
  *fault = FilesFault::kMedium;
  if (use != FilesUse::kServe) return Status::Ok();
  if (file.raw || (at.st_mode & ~mode_t{S_IFMT} & ~kOwnerBits) == 0) return Status::Ok();
  if (fchmod(file.fd.get(), at.st_mode & kOwnerBits) != 0) {
    Note(file,
         std::string("its mode lets others in, and cannot be changed: ") + std::strerror(errno));
  }
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

Status DeviceFiles::ReadAt(size_t file, uint64_t offset, std::span<uint8_t> into) const {
  TERRACE_CHECK(offset % kPageBytes == 0 && into.size() % kPageBytes == 0);
  const DeviceFile& from = files_.at(file);
  size_t done = 0;
  while (done < into.size()) {
    const ssize_t got = pread(from.fd.get(), into.data() + done, into.size() - done,
                              static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus("read " + from.path, errno);
    done += static_cast<size_t>(got);
    // Part of a page is the file's end; O_DIRECT could not go on from there.
    if (got == 0 || done % kPageBytes != 0) break;
  }
  std::memset(into.data() + done, 0, into.size() - done);
  return Status::Ok();
}

}  // namespace terrace
