#include "storage/io/open_device.h"

#include "storage/io/thread_device.h"
#include "storage/io/uring_device.h"

namespace terrace {

Result<OpenedDevice> OpenDevice(const OpenOptions& options, const Clock& clock) {
  Result<DeviceFiles> files = DeviceFiles::Open(options.files);
  if (!files.ok()) return files.status();
  return OpenDevice(*std::move(files), options, clock);
}

Result<OpenedDevice> OpenDevice(DeviceFiles files, const OpenOptions& options, const Clock& clock) {
  TERRACE_CHECK(options.best != DeviceMode::kSimulated);
  OpenedDevice opened;
  opened.notes = files.notes();

  std::string why = "as configured";
  if (options.best != DeviceMode::kThreads) {
    const UringDevice::Options uring{
        .buffer_count = options.buffer_count,
        .fixed_buffers = options.best == DeviceMode::kUringFixed,
    };
    Result<std::unique_ptr<UringDevice>> device = UringDevice::Create(files, uring, clock);
    if (device.ok()) {
      opened.device = *std::move(device);
    } else {
      why = device.status().message();
    }
  }
  if (opened.device == nullptr) {
    const ThreadDevice::Options threads{
        .buffer_count = options.buffer_count, .thread_count = options.thread_count, .why = why};
    Result<std::unique_ptr<ThreadDevice>> device = ThreadDevice::Create(files, threads, clock);
    if (!device.ok()) return device.status();
    opened.device = *std::move(device);
  }
  opened.device->SetBudgets(options.budgets);
  return opened;
}

}  // namespace terrace
