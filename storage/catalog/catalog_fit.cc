#include "storage/catalog/catalog_fit.h"

#include <algorithm>

namespace terrace {
namespace {

// Tables that wait to be compacted, twice, buffers that are being written, the log of four and its
// preallocated rest: 24 write buffers.  What is left of the bytes is for two sets of tables.
constexpr uint64_t kWriteBuffersIn = 64;
constexpr uint64_t kHistoryRowBytes = 90;  // 66 seen, keys of 32 bytes
constexpr uint64_t kBytesPerRow = kHistoryRowBytes * 2 * 9 / 8 * kWriteBuffersIn / (64 - 24);
constexpr uint64_t kLogBytesMin = 1 * kMiB;

}  // namespace

CatalogOptions CatalogOptionsFor(const std::string& folder, uint64_t bytes) {
  const uint64_t room = std::clamp(bytes, kCatalogFolderBytesMin, kCatalogFolderBytesMax);
  CatalogOptions options;
  options.folder = folder;
  options.set_aside_max = 1;
  options.write_buffer_bytes = room / kWriteBuffersIn;
  options.log_bytes_max = std::max(kLogBytesMin, 4 * options.write_buffer_bytes);
  options.history_rows_max = std::min(options.history_rows_max, room / kBytesPerRow);
  return options;
}

}  // namespace terrace
