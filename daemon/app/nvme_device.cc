#include "daemon/app/nvme_device.h"

#include <algorithm>
#include <bit>
#include <cctype>
#include <filesystem>

#include "storage/base/log.h"
#include "storage/io/open_device.h"

namespace terrace {
namespace {

// So many segments that reclaim has a choice, as far as that leaves them long enough to be written
// at the device's speed.
constexpr uint64_t kSegmentsWished = 64;
constexpr uint64_t kAutoSegmentBytesMax = 256 * kMiB;
// Others need some room too, and a file system without any is slow.
constexpr uint64_t kFreeBytesMin = 256 * kMiB;

// A tenant's name may have any bytes; a file's may not.
std::string FileNameOf(const std::string& tenant) {
  std::string name = "terrace-";
  for (const char letter : tenant) {
    const auto byte = static_cast<unsigned char>(letter);
    if (std::isalnum(byte) != 0 || letter == '-' || letter == '_') {
      name += letter;
    } else {
      constexpr char kDigits[] = "0123456789abcdef";
      name += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return name + ".log";
}

}  // namespace

uint64_t NvmeSegmentBytes(const Config& config, uint64_t bytes) {
  if (config.nvme_segment_bytes != 0) return config.nvme_segment_bytes;
  if (bytes == 0) return kAutoSegmentBytesMax;
  return std::clamp(std::bit_floor(bytes / kSegmentsWished), kSegmentBytesMin,
                    kAutoSegmentBytesMax);
}

Result<std::unique_ptr<BlockDevice>> OpenNvmeDevice(const Config& config, const std::string& tenant,
                                                    uint64_t bytes, const Clock& clock) {
  OpenOptions options;
  for (const std::string& path : config.nvme) {
    std::error_code error;
    const bool folder = path.back() == '/' || std::filesystem::is_directory(path, error);
    if (!folder && !config.tenants.empty()) {
      return Status(StatusCode::kInvalid,
                    "nvme = " + path +
                        ": with [[tenant]] tables it must be a folder, in which "
                        "each tenant gets a file of its own");
    }
    options.files.paths.push_back(
        folder ? (std::filesystem::path(path) / FileNameOf(tenant)).string() : path);
  }
  options.files.capacity_bytes = bytes;
  options.files.stripe_bytes = NvmeSegmentBytes(config, bytes);
  options.files.free_bytes_min = kFreeBytesMin;
  Result<OpenedDevice> opened = OpenDevice(options, clock);
  if (!opened.ok()) {
    return Status(opened.status().code(),
                  "nvme of tenant '" + tenant + "': " + opened.status().message());
  }
  for (const std::string& note : opened->notes)
    LogWarning("nvme of tenant '" + tenant + "': " + note);
  return std::move(opened->device);
}

}  // namespace terrace
