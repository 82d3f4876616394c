#pragma once

// The files or raw block devices that a device stripes over, opened, locked and preallocated.
//
//   OpenPaths: opened and locked, nothing changed --TakeRoom--> sized
//                                                  \-KeepRoom--> as they are
//
// In between their owner looks at what they hold: a path may be mistyped, and what another program
// wrote must neither be cut nor grow.
//
// Each file is locked against a second opener, and gives the same number of stripes: as many as the
// one with the least room.  Room is taken up front, and only what is really allocated counts.  A
// file never gets shorter than it was.
//
// Threads: a value; its const methods are safe from any thread.

#include <fcntl.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "storage/base/fd.h"
#include "storage/base/limits.h"
#include "storage/base/result.h"

namespace terrace {

inline constexpr uint32_t kDeviceFileCountMax = 64;

// fallocate's mode for a kDiscard on a raw device.  A file keeps its blocks: given back, another
// writer could take them, and the room would no longer be ours.
inline constexpr int kDiscardMode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

struct FileOptions {
  std::vector<std::string> paths;
  // Of all together, allocated blocks included; each path gets an equal part, in whole stripes.  0:
  // all that raw devices have (invalid with a file among the paths).
  uint64_t capacity_bytes = 0;
  uint64_t stripe_bytes = 256 * kMiB;
  // Left free in each file system.
  uint64_t free_bytes_min = 0;
};

// What a failure to open means to the settings that named the paths.
enum class FilesFault : uint8_t {
  kNone,
  kSettings,  // no medium makes this right: another setting does
  kNotOurs,   // the path is another user's, or others can write there
  kMedium,    // missing, locked, full, failing: another time or after a mend it may work
};

// What for.  Who only looks or mends makes no file and changes no mode or length; root may do it to
// another user's files.
enum class FilesUse : uint8_t {
  kServe,
  kMend,
  kLook,  // opened read-only
};

struct DeviceFile {
  UniqueFd fd;
  std::string path;
  bool raw = false;           // a block device
  bool direct = false;        // O_DIRECT
  bool preallocated = false;  // writes cannot run out of space
  bool writable = false;
  uint64_t stripes = 0;    // that it has room for
  uint64_t had_bytes = 0;  // its length before room was taken: never cut below
};

class DeviceFiles {
 public:
  DeviceFiles() = default;

  // OpenPaths, then TakeRoom, with the errors of both.
  static Result<DeviceFiles> Open(const FileOptions& options, FilesFault* fault = nullptr);

  // Opens and locks every path; one that is missing becomes an empty file (0600), one that others
  // may read or write loses those bits.  What the paths hold stays as it is.  A path that cannot be
  // written is opened read-only; then everything is.  A symbolic link is followed only to a block
  // device.
  //   kInvalid: neither a file nor a block device     kDenied: another user's file, one with other
  //   names, one in a folder where others may write     kBusy: another process has it open
  //   or as the system says.  `fault`, where given, names which kind it is.
  static Result<DeviceFiles> OpenPaths(const std::vector<std::string>& paths,
                                       FilesFault* fault = nullptr,
                                       FilesUse use = FilesUse::kServe);

  // Takes each path's room, down to one stripe: a full or limited file system (ENOSPC, quota,
  // RLIMIT_FSIZE, free_bytes_min) gives less, with a note.  A file that is longer than its part
  // stays so, with a note.  kNoSpace without room for one stripe a path.
  // REQUIRES: called once, with the paths that OpenPaths had.
  Status TakeRoom(const FileOptions& options, FilesFault* fault = nullptr);

  // As many whole stripes as each path has; nothing is changed.  kNoSpace without one.
  // REQUIRES: called once, in place of TakeRoom.
  Status KeepRoom(uint64_t stripe_bytes);

  // Zeros behind the end of a file.  REQUIRES: offset, memory and size are multiples of kPageBytes.
  Status ReadAt(size_t file, uint64_t offset, std::span<uint8_t> into) const;

  const std::vector<DeviceFile>& files() const { return files_; }
  uint64_t stripe_bytes() const { return stripe_bytes_; }
  uint64_t stripes_per_file() const { return stripes_per_file_; }
  uint64_t capacity_bytes() const { return stripes_per_file_ * stripe_bytes_ * files_.size(); }
  bool writable() const;

  // What the log should say: less room than wished, no O_DIRECT, no preallocation, read-only.
  const std::vector<std::string>& notes() const { return notes_; }

  // Lets others open the files, before the last descriptor is closed: a ring's files are closed a
  // while after the ring.  REQUIRES: no I/O is in flight.
  void Unlock() const;

  // kIoError naming a file that is shorter than when it was opened, or unlinked.
  Status Check() const;
  uint64_t AllocatedBytes() const;

 private:
  Status OpenOne(const std::string& path, FilesFault* fault, FilesUse use);
  Status CheckOwner(const DeviceFile& file, FilesFault* fault, FilesUse use);
  static Status Lock(const DeviceFile& file);
  Status FindAllRoom(const FileOptions& options, FilesFault* fault);
  Status FindRoom(DeviceFile& file, uint64_t bytes_max, const FileOptions& options);
  Status FindRawRoom(DeviceFile& file, uint64_t bytes_max);
  Status Preallocate(DeviceFile& file, uint64_t stripes);
  void CountAllocated(DeviceFile& file, uint64_t bytes_max);
  Status SetSize(const DeviceFile& file, uint64_t bytes);
  void Note(const DeviceFile& file, const std::string& what);

  std::vector<DeviceFile> files_;
  uint64_t stripe_bytes_ = 0;
  uint64_t stripes_per_file_ = 0;
  std::vector<std::string> notes_;
};

}  // namespace terrace
