#include "storage/io/block_device.h"

namespace terrace {

const char* DeviceModeName(DeviceMode mode) {
  switch (mode) {
    case DeviceMode::kUringFixed: return "io_uring with fixed buffers";
    case DeviceMode::kUringPlain: return "io_uring with plain buffers";
    case DeviceMode::kThreads: return "threads";
    case DeviceMode::kSimulated: return "simulated";
  }
  return "unknown";
}

}  // namespace terrace
