#pragma once

// How large a catalog's folder gets, and the options by which it stays within a bound.
//
// Counted are its tables twice (a compaction writes them anew before it drops the old ones), eight
// of the newest that wait to be compacted, the write-ahead log of four write buffers, and the
// manifest.  Not counted: chunk rows and synced rows, and what was set aside.
//
// Threads: pure functions.

#include <cstdint>
#include <string>

#include "storage/base/limits.h"
#include "storage/catalog/catalog.h"

namespace terrace {

// Less would not hold a batch; more than the upper one adds no history.
inline constexpr uint64_t kCatalogFolderBytesMin = 8 * kMiB;
inline constexpr uint64_t kCatalogFolderBytesMax = 384 * kMiB;

// The largest history whose folder takes `bytes` at most, which are brought into these bounds.
CatalogOptions CatalogOptionsFor(const std::string& folder, uint64_t bytes);

}  // namespace terrace
