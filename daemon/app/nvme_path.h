#pragma once

// How the settings say where the NVMe tier lies, and how much of it they give.
//
// Threads: pure functions, but for looks at the file system.

#include <cstdint>
#include <string>

#include "daemon/app/config.h"

namespace terrace {

// A path says what it is by what is there.  Where nothing is: a name that ends in "/" is a folder
// that is missing (not mounted, say), one below /dev a missing device, NAME.terrace a file to be
// made.  Any other name could be a mistyped folder, and must not become a file of 32 GiB.
enum class NvmePlace : uint8_t { kFolder, kFile, kDevice, kUnclear };
NvmePlace NvmePlaceOf(const std::string& path);

bool NvmePathExists(const std::string& path);

// The tenant's file or device at `path`: in a folder, a file named after the tenant.
std::string NvmeFileOf(const std::string& path, const std::string& tenant);

// Of all tenants together; 0: all of the block devices.
uint64_t NvmeBytesOf(const Config& config);

// What of that the catalog takes: a 64th, within its bounds, where it lies in a folder of nvme
// because nothing else was said; 0 elsewhere.
uint64_t CatalogBytesOf(const Config& config);

// Of the log's segments on a new tier of `bytes` (0: all of the block devices).
uint64_t NvmeSegmentBytes(const Config& config, uint64_t bytes);

// Of the stripes of a log over as many files.
uint64_t NvmeStripeBytes(uint64_t segment_bytes, size_t file_count);

// The bytes of a device for so many segments: whole stripes in each file.
uint64_t NvmeDeviceBytes(uint64_t segment_count, uint64_t segment_bytes, size_t file_count);

}  // namespace terrace
