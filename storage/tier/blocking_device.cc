#include "storage/tier/blocking_device.h"

#include <poll.h>

#include <utility>

namespace terrace {
namespace {

constexpr int kWaitMs = 100;  // at most, where an event is missed

}  // namespace

BlockingDevice::BlockingDevice(BlockDevice& device, std::function<void()> wait)
    : device_(device), wait_(std::move(wait)) {}

void BlockingDevice::Await(const std::function<bool()>& ended) {
  device_.Flush();
  while (!ended()) {
    if (device_.Poll() > 0) continue;
    if (wait_ != nullptr) {
      wait_();
      continue;
    }
    pollfd event{.fd = device_.event_fd(), .events = POLLIN, .revents = 0};
    static_cast<void>(poll(&event, 1, kWaitMs));
  }
}

Status BlockingDevice::Run(IoRequest& request) {
  request.OnDone([](IoRequest&) {}, IoClass::kDeadline);
  if (Status submitted = device_.Submit(request); !submitted.ok()) return submitted;
  Await([&request] { return !request.outstanding(); });
  return request.status();
}

Status BlockingDevice::Read(uint64_t offset, std::span<uint8_t> into) {
  IoRequest request;
  Status read;
  for (uint32_t i = 0; i <= kBlockingReadRetries; ++i) {
    request.PrepareRead(offset, into.data(), into.size());
    read = Run(request);
    if (read.code() != StatusCode::kIoError) break;
  }
  if (read.ok()) read_bytes_ += into.size();
  return read;
}

Status BlockingDevice::Write(uint64_t offset, std::span<const uint8_t> from) {
  IoRequest request;
  request.PrepareWrite(offset, from.data(), from.size());
  return Run(request);
}

Status BlockingDevice::Sync() {
  IoRequest request;
  request.PrepareSync();
  return Run(request);
}

}  // namespace terrace
