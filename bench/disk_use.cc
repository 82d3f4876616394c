#include "bench/disk_use.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <utility>

namespace terrace {
namespace {

constexpr uint64_t kStatBlockBytes = 512;
constexpr uint32_t kPauseUs = 10'000;

uint64_t Allocated(const std::filesystem::path& path) {
  struct stat at {};
  return lstat(path.c_str(), &at) == 0 ? static_cast<uint64_t>(at.st_blocks) * kStatBlockBytes : 0;
}

}  // namespace

uint64_t DiskBytes(const std::string& folder) {
  uint64_t bytes = Allocated(folder);
  std::error_code error;
  using Iterator = std::filesystem::recursive_directory_iterator;
  // Files go while it looks.
  const auto options = std::filesystem::directory_options::skip_permission_denied;
  for (Iterator at(folder, options, error), end; !error && at != end; at.increment(error)) {
    bytes += Allocated(at->path());
  }
  return bytes;
}

DiskWatch::DiskWatch(std::string folder) : folder_(std::move(folder)) {
  thread_ = std::thread([this] {
    while (!stop_) {
      Look();
      usleep(kPauseUs);
    }
  });
}

DiskWatch::~DiskWatch() {
  stop_ = true;
  thread_.join();
}

void DiskWatch::Look() {
  most_bytes_ = std::max(most_bytes_.load(), DiskBytes(folder_));
  ++samples_;
}

}  // namespace terrace
