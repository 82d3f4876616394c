#pragma once

// The device of a tenant's NVMe tier, by the settings: which files, how large, what it says when it
// is less than wished.
//
// Threads: main.

#include <memory>
#include <string>

#include "daemon/app/config.h"
#include "storage/base/clock.h"
#include "storage/base/result.h"
#include "storage/io/block_device.h"

namespace terrace {

// Of the log's segments on a tier of `bytes`, unless the settings say otherwise.
uint64_t NvmeSegmentBytes(const Config& config, uint64_t bytes);

// `bytes` 0: all that raw devices have.  A path that is a folder gets a file in it, named after the
// tenant.  Errors name the setting.  `clock` outlives the device.
Result<std::unique_ptr<BlockDevice>> OpenNvmeDevice(const Config& config, const std::string& tenant,
                                                    uint64_t bytes, const Clock& clock);

}  // namespace terrace
