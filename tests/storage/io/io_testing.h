#pragma once

// What the tests of devices share: requests that remember, page-aligned memory, a folder.
//
// Threads: values of one thread.

#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <random>
#include <string>

#include "storage/io/block_device.h"

namespace terrace {

// A request that counts its ends.
struct Ask : IoRequest {
  uint32_t ends = 0;
  std::function<void()> then;

  Ask& Read(uint64_t offset, uint8_t* into, uint64_t bytes, IoClass io_class = IoClass::kDeadline,
            BufferId buffer = kNoBuffer) {
    PrepareRead(offset, into, bytes, buffer);
    return Arm(io_class);
  }
  Ask& Write(uint64_t offset, const uint8_t* from, uint64_t bytes,
             IoClass io_class = IoClass::kWriteBehind, BufferId buffer = kNoBuffer) {
    PrepareWrite(offset, from, bytes, buffer);
    return Arm(io_class);
  }
  Ask& Sync(uint64_t offset = 0, uint64_t bytes = 0) {
    PrepareSync(offset, bytes);
    return Arm(IoClass::kDeadline);
  }
  Ask& Discard(uint64_t offset, uint64_t bytes) {
    PrepareDiscard(offset, bytes);
    return Arm(IoClass::kWriteBehind);
  }

 private:
  Ask& Arm(IoClass io_class) {
    OnDone(
        [](IoRequest& request) {
          Ask& ask = static_cast<Ask&>(request);
          ++ask.ends;
          if (ask.then) ask.then();
        },
        io_class);
    return *this;
  }
};

class PageMemory {
 public:
  explicit PageMemory(uint64_t bytes)
      : bytes_(bytes),
        data_(static_cast<uint8_t*>(
            mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    TERRACE_CHECK(static_cast<void*>(data_) != MAP_FAILED);
  }
  ~PageMemory() { munmap(data_, bytes_); }
  PageMemory(const PageMemory&) = delete;
  PageMemory& operator=(const PageMemory&) = delete;

  uint8_t* data() { return data_; }
  uint64_t bytes() const { return bytes_; }
  // Bytes that follow from `seed`.
  void Fill(uint64_t seed) {
    std::mt19937_64 random(seed);
    for (uint64_t at = 0; at < bytes_; at += sizeof(uint64_t)) {
      const uint64_t word = random();
      std::memcpy(data_ + at, &word, sizeof(word));
    }
  }

 private:
  uint64_t bytes_;
  uint8_t* data_;
};

// A folder of its own, gone with its owner.
class TestFolder {
 public:
  TestFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "terrace-io-XXXXXX").string();
    TERRACE_CHECK(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TestFolder() { std::filesystem::remove_all(path_); }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  std::string path(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// Waits on the eventfd, as a loop does, and polls, until `asks` have ended; false after a minute.
inline bool AwaitEnds(BlockDevice& device, const std::function<bool()>& ended) {
  device.Flush();
  const int64_t end_ns = MonotonicNs() + 60 * kNsPerSecond;
  while (!ended() && MonotonicNs() < end_ns) {
    pollfd event{.fd = device.event_fd(), .events = POLLIN, .revents = 0};
    poll(&event, 1, 1000);
    device.Poll();
  }
  return ended();
}

// Submits one request and waits for its end.
inline Status Carry(BlockDevice& device, Ask& ask) {
  const uint32_t before = ask.ends;
  if (Status submitted = device.Submit(ask); !submitted.ok()) return submitted;
  TERRACE_CHECK(AwaitEnds(device, [&] { return ask.ends > before; }));
  return ask.status();
}

}  // namespace terrace
