#pragma once

// The device of a tenant's NVMe tier, by the settings: which files, how large, what it says when it
// is other than wished.
//
// What the paths hold is looked at before anything in them changes.  A log that exists keeps the
// segment size that it was made with, and never loses room: it grows with the settings.
//
// Threads: main.

#include <memory>
#include <string>

#include "daemon/app/config.h"
#include "storage/base/clock.h"
#include "storage/base/result.h"
#include "storage/io/block_device.h"

namespace terrace {

// What a failure to open means for the start of the daemon.
enum class NvmeFault : uint8_t {
  kNone,
  kSettings,  // another setting is needed: no start
  kOthers,    // somebody else's file, folder or data: no start, before it is written to
  kDevice,    // missing, locked, full, failing, damaged: the tier is off, the tenant is served
};

struct NvmeDevice {
  NvmeFault fault = NvmeFault::kNone;
  Status why;                           // not Ok with a fault; names tenant, path and mend
  std::unique_ptr<BlockDevice> device;  // null with a fault
  uint64_t segment_bytes = 0;           // of its log
  std::string note;                     // for status: what is other than the settings say
};

// `bytes` 0: all that raw devices have.  `clock` outlives the device.
NvmeDevice OpenNvmeDevice(const Config& config, const std::string& tenant, uint64_t bytes,
                          const Clock& clock);

}  // namespace terrace
