#include "storage/catalog/catalog_folder.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <vector>

namespace terrace {
namespace {

namespace fs = std::filesystem;

// In one sector, which a medium writes wholly or not at all.
struct SyncedMark {
  uint64_t magic;  // kSyncedMagic
  uint64_t commit;
  uint64_t checksum;  // XXH3-64 of the words before
};
constexpr uint64_t kSyncedMagic = 0x31434e5953435254;  // "TRCSYNC1"
static_assert(sizeof(SyncedMark) == 24);

uint64_t ChecksumOf(const SyncedMark& mark) { return XXH3_64bits(&mark, 16); }

Status FolderStatus(const std::string& what, const std::error_code& error) {
  return ErrnoStatus(what, error.value());
}

// The numbers of the folders set aside, in order.
Result<std::vector<uint64_t>> BadNumbers(const fs::path& folder) {
  std::vector<uint64_t> numbers;
  const std::string prefix = folder.filename().string() + ".bad-";
  std::error_code error;
  for (fs::directory_iterator at(folder.parent_path(), error), end; !error && at != end;
       at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (!name.starts_with(prefix)) continue;
    uint64_t number = 0;
    const char* const last = name.data() + name.size();
    const auto [stop, bad] = std::from_chars(name.data() + prefix.size(), last, number);
    if (bad == std::errc() && stop == last) numbers.push_back(number);
  }
  if (error) return FolderStatus("read " + folder.parent_path().string(), error);
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

Status SyncFolder(const fs::path& folder) {
  const UniqueFd fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || fsync(fd.get()) != 0) return ErrnoStatus("fsync " + folder.string(), errno);
  return Status::Ok();
}

Status WriteMark(int fd, uint64_t commit, const std::string& path) {
  SyncedMark mark{.magic = kSyncedMagic, .commit = commit, .checksum = 0};
  mark.checksum = ChecksumOf(mark);
  const ssize_t put = pwrite(fd, &mark, sizeof mark, 0);
  if (put != sizeof mark) return ErrnoStatus("write " + path, put < 0 ? errno : ENOSPC);
  if (fdatasync(fd) != 0) return ErrnoStatus("fdatasync " + path, errno);
  return Status::Ok();
}

}  // namespace

Result<CatalogFolder> CatalogFolder::Take(const std::string& folder) {
  std::error_code error;
  fs::path path = fs::absolute(folder, error).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  fs::create_directories(path.parent_path(), error);
  if (error) return FolderStatus("catalog " + folder + ": its folder cannot be made", error);
  Result<LockFile> lock = LockFile::Take(path.string() + ".lock");
  if (!lock.ok() && lock.status().code() == StatusCode::kBusy) {
    return Status(StatusCode::kBusy, "catalog " + path.string() + " is " + lock.status().message() +
                                         ": stop it, or use another folder");
  }
  if (!lock.ok()) return lock.status();
  return CatalogFolder(path.string(), *std::move(lock));
}

Result<bool> CatalogFolder::Occupied() const {
  std::error_code error;
  if (!fs::exists(path_, error) && !error) return false;
  if (error) return FolderStatus("stat " + path_, error);
  if (access(path_.c_str(), R_OK | W_OK | X_OK) != 0) return ErrnoStatus("open " + path_, errno);
  const fs::directory_iterator first(path_, error);
  if (error) return FolderStatus("read " + path_, error);
  return first != fs::directory_iterator();
}

Result<std::string> CatalogFolder::SetAside(uint32_t kept_max) {
  synced_.Reset();
  Result<std::vector<uint64_t>> numbers = BadNumbers(path_);
  if (!numbers.ok()) return numbers.status();
  const uint64_t next = numbers->empty() ? 1 : numbers->back() + 1;
  std::error_code error;
  for (size_t at = 0; at + kept_max <= numbers->size(); ++at) {
    fs::remove_all(path_ + ".bad-" + std::to_string((*numbers)[at]), error);
    if (error)
      return FolderStatus("remove " + path_ + ".bad-" + std::to_string((*numbers)[at]), error);
  }
  const std::string aside = path_ + ".bad-" + std::to_string(next);
  fs::rename(path_, aside, error);
  if (error) return FolderStatus("rename " + path_ + " to " + aside, error);
  if (Status synced = SyncFolder(fs::path(path_).parent_path()); !synced.ok()) return synced;
  return aside;
}

Status CatalogFolder::BeginNew() {
  std::error_code error;
  fs::remove_all(new_path(), error);
  if (error) return FolderStatus("remove " + new_path(), error);
  fs::create_directory(new_path(), error);
  if (error) return FolderStatus("make " + new_path(), error);
  return Status::Ok();
}

Status CatalogFolder::EndNew() {
  const std::string path = new_path() + "/SYNCED";
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd.valid()) return ErrnoStatus("create " + path, errno);
  Status made = WriteMark(fd.get(), 0, path);
  if (made.ok()) made = SyncFolder(new_path());
  if (!made.ok()) return made;
  std::error_code error;
  fs::rename(new_path(), path_, error);
  if (error) return FolderStatus("rename " + new_path() + " to " + path_, error);
  return SyncFolder(fs::path(path_).parent_path());
}

Result<uint64_t> CatalogFolder::OpenSynced() {
  const std::string path = path_ + "/SYNCED";
  synced_ = UniqueFd(open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!synced_.valid() && errno == ENOENT)
    return Status(StatusCode::kNotFound, path + " is missing");
  if (!synced_.valid()) return ErrnoStatus("open " + path, errno);
  SyncedMark mark;
  const ssize_t got = pread(synced_.get(), &mark, sizeof mark, 0);
  if (got < 0) return ErrnoStatus("read " + path, errno);
  if (got != sizeof mark || mark.magic != kSyncedMagic || mark.checksum != ChecksumOf(mark)) {
    return Status(StatusCode::kCorrupt, path + " is damaged");
  }
  return mark.commit;
}

Status CatalogFolder::WriteSynced(uint64_t commit) {
  return WriteMark(synced_.get(), commit, path_ + "/SYNCED");
}

}  // namespace terrace
