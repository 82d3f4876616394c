#pragma once

// Picks how a device's bytes move: io_uring with fixed buffers, else with plain ones, else threads.
//
// Threads: call it anywhere; the device then belongs to the thread that calls Poll.

#include <memory>
#include <string>
#include <vector>

#include "storage/io/block_device.h"
#include "storage/io/device_files.h"

namespace terrace {

struct OpenOptions {
  FileOptions files;
  DeviceMode best = DeviceMode::kUringFixed;  // the first tried; lesser ones follow
  uint32_t buffer_count = kIoBufferCountMax;  // slots for RegisterBuffer
  uint32_t thread_count = 8;                  // of kThreads
  IoBudgets budgets;
};

struct OpenedDevice {
  std::unique_ptr<BlockDevice> device;
  // For the log: what is less than wished, and why.
  std::vector<std::string> notes;
};

// On files whose room is taken; nothing of `options.files` counts.
Result<OpenedDevice> OpenDevice(DeviceFiles files, const OpenOptions& options, const Clock& clock);

// Opens as DeviceFiles::Open says, with its errors; `clock` outlives the device.  Which mode it
// became, and why no better one, says device->Describe().
Result<OpenedDevice> OpenDevice(const OpenOptions& options, const Clock& clock);

}  // namespace terrace
