// Which way bytes move, under a system that refuses the better ones.

#include "storage/io/open_device.h"

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <vector>

#include "tests/storage/io/child.h"
#include "tests/storage/io/io_testing.h"

namespace terrace {
namespace {

OpenOptions Small(const std::string& path) {
  OpenOptions options;
  options.files.paths = {path};
  options.files.capacity_bytes = 4 * kMiB + 64 * kKiB;
  options.files.stripe_bytes = kMiB;
  options.buffer_count = 4;
  return options;
}

// Writes through a registered buffer and reads back; what Describe says must hold `words`.
int RoundTrip(const std::string& path, const std::vector<DeviceMode>& expected,
              const std::string& words) {
  const SystemClock clock;
  Result<OpenedDevice> opened = OpenDevice(Small(path), clock);
  if (!opened.ok()) return 1;
  BlockDevice& device = *opened->device;
  PageMemory out(2 * kMiB), in(2 * kMiB);
  out.Fill(11);
  const Result<BufferId> from = device.RegisterBuffer(out.data(), out.bytes());
  const Result<BufferId> into = device.RegisterBuffer(in.data(), in.bytes());
  if (!from.ok() || !into.ok()) return 2;
  Ask write, sync, read;
  if (!Carry(device, write.Write(0, out.data(), out.bytes(), IoClass::kDeadline, *from)).ok()) {
    return 3;
  }
  if (!Carry(device, sync.Sync()).ok()) return 4;
  if (!Carry(device, read.Read(0, in.data(), in.bytes(), IoClass::kDeadline, *into)).ok()) return 5;
  if (std::memcmp(in.data(), out.data(), out.bytes()) != 0) return 6;
  const bool as_expected =
      std::find(expected.begin(), expected.end(), device.mode()) != expected.end();
  if (!as_expected || device.Describe().find(words) == std::string::npos) {
    std::fprintf(stderr, "%s\n", device.Describe().c_str());
    return 7;
  }
  return 0;
}

// From now on io_uring_setup answers `error`.
bool ForbidUring(int error) {
  sock_filter rules[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog program{.len = std::size(rules), .filter = rules};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

TEST(OpenDevice, TakesFixedBuffersWhereTheSystemHasThem) {
  const TestFolder folder;
  EXPECT_EQ(RoundTrip(folder.path("f"), {DeviceMode::kUringFixed}, "io_uring with fixed buffers"),
            0);
}

// As a user without rights, who may lock `bytes` of memory.
int RoundTripLocking(uint64_t bytes, const std::string& path,
                     const std::vector<DeviceMode>& expected) {
  const rlimit limit{.rlim_cur = bytes, .rlim_max = bytes};
  if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0) return 90;
  // Root may lock what it likes.
  if (getuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) return 91;
  return RoundTrip(path, expected, "LimitMEMLOCK");
}

TEST(OpenDevice, TakesPlainBuffersWithLittleLockedMemory) {
  const TestFolder folder;
  ASSERT_EQ(chmod(folder.path("").c_str(), 01777), 0);
  const std::string path = folder.path("f");
  // The limit is the user's: beside other processes of the same one nothing may be left for a ring.
  std::vector<DeviceMode> expected = {DeviceMode::kUringPlain};
  if (getuid() != 0) expected.push_back(DeviceMode::kThreads);
  EXPECT_EQ(InChild([&] { return RoundTripLocking(kMiB, path, expected); }), 0);
}

TEST(OpenDevice, ServesWithoutAnyLockedMemory) {
  const TestFolder folder;
  ASSERT_EQ(chmod(folder.path("").c_str(), 01777), 0);
  const std::string path = folder.path("f");
  // Newer kernels count the ring itself and refuse it, older ones only the buffers.
  const std::vector<DeviceMode> expected = {DeviceMode::kThreads, DeviceMode::kUringPlain};
  EXPECT_EQ(InChild([&] { return RoundTripLocking(0, path, expected); }), 0);
}

TEST(OpenDevice, TakesThreadsWhereUringIsForbiddenOrUnknown) {
  for (const int error : {EPERM, ENOSYS}) {
    const TestFolder folder;
    EXPECT_EQ(InChild([&] {
                if (!ForbidUring(error)) return 92;
                return RoundTrip(folder.path("f"), {DeviceMode::kThreads}, "io_uring_setup: ");
              }),
              0)
        << error;
  }
}

TEST(OpenDevice, ReadOnlyFileServesReadsAndRefusesWrites) {
  const TestFolder folder;
  ASSERT_EQ(chmod(folder.path("").c_str(), 01777), 0);
  ASSERT_EQ(RoundTrip(folder.path("f"), {DeviceMode::kUringFixed}, ""), 0);
  ASSERT_EQ(chmod(folder.path("f").c_str(), 0400), 0);
  if (getuid() == 0) {
    ASSERT_EQ(chown(folder.path("f").c_str(), 65534, 65534), 0);
  }
  EXPECT_EQ(InChild([&] {
              if (getuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) return 91;
              const SystemClock clock;
              Result<OpenedDevice> opened = OpenDevice(Small(folder.path("f")), clock);
              if (!opened.ok()) {
                std::fprintf(stderr, "%s\n", opened.status().ToString().c_str());
                return 1;
              }
              BlockDevice& device = *opened->device;
              if (device.writable() || opened->notes.empty()) return 2;
              PageMemory memory(kMiB);
              Ask write, sync, read;
              const Status denied = device.Submit(write.Write(0, memory.data(), kMiB));
              if (denied.code() != StatusCode::kDenied) return 3;
              if (!Carry(device, read.Read(0, memory.data(), kMiB)).ok()) return 4;
              return memory.data()[0] == 0 && memory.data()[1] == 0 ? 5 : 0;
            }),
            0);
}

TEST(OpenDevice, SecondOpenerIsBusy) {
  const TestFolder folder;
  const SystemClock clock;
  const Result<OpenedDevice> first = OpenDevice(Small(folder.path("f")), clock);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(OpenDevice(Small(folder.path("f")), clock).status().code(), StatusCode::kBusy);
}

}  // namespace
}  // namespace terrace
