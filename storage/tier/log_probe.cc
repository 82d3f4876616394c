#include "storage/tier/log_probe.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <optional>

#include "storage/tier/aligned_bytes.h"

namespace terrace {
namespace {

constexpr uint64_t kReadBytes = 1 * kMiB;
constexpr char kMend[] =
    ": name another path, or remove the file (of a device, wipe its first "
    "8 MiB) to lose what it holds";

bool AllZero(std::span<const uint8_t> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

// A damaged block still has its magic or its set; without either it is someone else's.
bool IsForeign(const uint8_t* block, uint64_t magic, const LogSetId& set_id, size_t set_id_at) {
  return std::memcmp(block, &magic, sizeof(magic)) != 0 &&
         std::memcmp(block + set_id_at, set_id.data(), set_id.size()) != 0;
}

LogProbe Answer(LogFound found, StatusCode code, std::string message) {
  return {.found = found, .identity = {}, .why = Status(code, std::move(message))};
}

LogProbe Others(const std::string& what) {
  return Answer(LogFound::kOthers, StatusCode::kDenied, what + kMend);
}

class Prober {
 public:
  Prober(const DeviceFiles& files, const LogSetId& set_id, const std::string& tenant)
      : files_(files) {
    expected_.set_id = set_id;
    expected_.tenant = tenant;
  }

  LogProbe Probe() {
    std::optional<LogIdentity> identity;
    Status worst;
    for (uint32_t copy = 0; copy < kLogCopyCount; ++copy) {
      if (Status read = files_.ReadAt(0, copy * kLogCopyStride, block_.span()); !read.ok()) {
        worst = Worse(worst, read);
        continue;
      }
      if (AllZero(block_.span())) continue;
      LogSuperblock superblock;
      std::memcpy(&superblock, block_.data(), sizeof(superblock));
      const Result<LogIdentity> found = ReadSuperblock(superblock);
      if (found.ok()) {
        identity = *found;
        continue;
      }
      if (found.status().code() == StatusCode::kInvalid) {
        return Answer(LogFound::kOthers, StatusCode::kInvalid,
                      PathOf(0) + ": " + found.status().message());
      }
      if (IsForeign(block_.data(), kLogMagic, expected_.set_id, offsetof(LogSuperblock, set_id))) {
        return Others(PathOf(0) + " holds other data");
      }
      worst = Worse(worst, Status(StatusCode::kCorrupt, found.status().message()));
    }
    if (identity.has_value()) return Known(*identity);
    if (worst.ok()) return CheckEmptiness();
    if (worst.code() != StatusCode::kCorrupt) {
      return Answer(LogFound::kUnreadable, worst.code(), worst.message());
    }
    return Answer(LogFound::kDamaged, StatusCode::kCorrupt,
                  PathOf(0) + ": both superblocks are damaged (" + worst.message() + ")" + kMend);
  }

 private:
  const std::string& PathOf(size_t file) const { return files_.files()[file].path; }

  // A copy that cannot be read may be whole.
  static Status Worse(const Status& one, const Status& other) {
    return one.ok() || one.code() == StatusCode::kCorrupt ? other : one;
  }

  LogProbe Known(const LogIdentity& identity) {
    if (Status owner = MatchOwner(identity, expected_); !owner.ok()) {
      return Others(PathOf(0) + ": " + owner.message());
    }
    const size_t count = files_.files().size();
    if (identity.file_count != count) {
      return Answer(LogFound::kOtherFiles, StatusCode::kInvalid,
                    PathOf(0) + ": its log lies on " + std::to_string(identity.file_count) +
                        (identity.file_count == 1 ? " file" : " files") + ", and nvme names " +
                        std::to_string(count) + ": name the same as before, in their order" +
                        ", or remove the files to start anew");
    }
    for (size_t file = 1; file < count; ++file) {
      if (Status read = files_.ReadAt(file, 0, block_.span()); !read.ok()) {
        return Answer(LogFound::kUnreadable, read.code(), read.message());
      }
      if (!AllZero(block_.span()) && IsForeign(block_.data(), kSegmentMagic, expected_.set_id,
                                               offsetof(SegmentHead, set_id))) {
        return Others(PathOf(file) + " holds other data, and no part of the log of " + PathOf(0));
      }
    }
    return {.found = LogFound::kLog, .identity = identity, .why = Status::Ok()};
  }

  LogProbe CheckEmptiness() {
    AlignedBytes bytes(kReadBytes);
    for (size_t file = 0; file < files_.files().size(); ++file) {
      for (uint64_t at = 0; at < kLogStartBytes; at += kReadBytes) {
        if (Status read = files_.ReadAt(file, at, bytes.span()); !read.ok()) {
          return Answer(LogFound::kUnreadable, read.code(), read.message());
        }
        if (AllZero(bytes.span())) continue;
        const std::string order =
            file == 0 ? "" : ", while " + PathOf(0) + " is empty (keep the paths in their order)";
        return Others(PathOf(file) + " holds other data" + order);
      }
    }
    return {};
  }

  const DeviceFiles& files_;
  LogIdentity expected_;
  AlignedBytes block_{kLogBlockBytes};
};

}  // namespace

Result<LogIdentity> PeekLog(const DeviceFiles& files) {
  AlignedBytes block(kLogBlockBytes);
  Status why(StatusCode::kNotFound, files.files()[0].path + " is empty");
  for (uint32_t copy = 0; copy < kLogCopyCount; ++copy) {
    const Status read = files.ReadAt(0, copy * kLogCopyStride, block.span());
    if (!read.ok()) {
      why = read;
      continue;
    }
    if (AllZero(block.span())) continue;
    LogSuperblock superblock;
    std::memcpy(&superblock, block.data(), sizeof(superblock));
    const Result<LogIdentity> found = ReadSuperblock(superblock);
    if (found.ok()) return found;
    const std::string& path = files.files()[0].path;
    if (found.status().code() == StatusCode::kInvalid) {
      return Status(StatusCode::kInvalid, path + ": " + found.status().message());
    }
    why = Status(StatusCode::kCorrupt, path + ": neither superblock is good (" +
                                           found.status().message() +
                                           "): other data, or a log that is lost");
  }
  return why;
}

LogProbe ProbeLog(const DeviceFiles& files, const LogSetId& set_id, const std::string& tenant) {
  return Prober(files, set_id, tenant).Probe();
}

}  // namespace terrace
