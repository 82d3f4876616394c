#include "daemon/app/nvme_path.h"

#include <algorithm>
#include <bit>
#include <cctype>
#include <filesystem>

#include "daemon/history/chunk_archive.h"
#include "storage/base/limits.h"
#include "storage/tier/log_layout.h"
#include "storage/tier/log_probe.h"

namespace terrace {
namespace {

// So many segments that reclaim has a choice, as far as that leaves them long enough to be written
// at the device's speed.
constexpr uint64_t kSegmentsWished = 64;
constexpr uint64_t kAutoSegmentBytesMax = 256 * kMiB;
constexpr uint64_t kCatalogShare = 64;

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

bool NvmePathExists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(std::filesystem::symlink_status(path, error));
}

NvmePlace NvmePlaceOf(const std::string& path) {
  std::error_code error;
  if (path.back() == '/' || std::filesystem::is_directory(path, error)) return NvmePlace::kFolder;
  if (std::filesystem::is_block_file(path, error)) return NvmePlace::kDevice;
  if (NvmePathExists(path)) return NvmePlace::kFile;
  if (path.starts_with("/dev/")) return NvmePlace::kDevice;
  return path.ends_with(".terrace") ? NvmePlace::kFile : NvmePlace::kUnclear;
}

std::string NvmeFileOf(const std::string& path, const std::string& tenant) {
  if (NvmePlaceOf(path) != NvmePlace::kFolder) return path;
  return (std::filesystem::path(path) / FileNameOf(tenant)).string();
}

uint64_t NvmeBytesOf(const Config& config) {
  if (config.nvme_bytes != 0) return config.nvme_bytes;
  const bool devices =
      std::all_of(config.nvme.begin(), config.nvme.end(),
                  [](const std::string& path) { return NvmePlaceOf(path) == NvmePlace::kDevice; });
  return devices && !config.nvme.empty() ? 0 : kNvmeBytesDefault;
}

uint64_t CatalogBytesOf(const Config& config) {
  if (!config.catalog.empty() || CatalogFolderOf(config).empty()) return 0;
  return std::clamp(NvmeBytesOf(config) / kCatalogShare, kArchiveBytesMin, kArchiveBytesMax);
}

uint64_t NvmeSegmentBytes(const Config& config, uint64_t bytes) {
  if (config.nvme_segment_bytes != 0) return config.nvme_segment_bytes;
  if (bytes == 0) return kAutoSegmentBytesMax;
  // A size that is a power of two but for the catalog's part counts as one.
  const uint64_t rounded = bytes + bytes / 16;
  return std::clamp(std::bit_floor(rounded / kSegmentsWished), kSegmentBytesMin,
                    kAutoSegmentBytesMax);
}

uint64_t NvmeStripeBytes(uint64_t segment_bytes, size_t file_count) {
  return file_count > 1 ? std::max(segment_bytes, kLogStripeBytesMin) : segment_bytes;
}

uint64_t NvmeDeviceBytes(uint64_t segment_count, uint64_t segment_bytes, size_t file_count) {
  const uint64_t row = NvmeStripeBytes(segment_bytes, file_count) * file_count;
  const uint64_t start = SegmentOffset(0, segment_bytes);
  return (start + segment_count * segment_bytes + row - 1) / row * row;
}

}  // namespace terrace
