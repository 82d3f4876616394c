#include "storage/mem/machine_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace terrace {
namespace {

using testing::HasSubstr;
using testing::Not;

class MachineMemoryTest : public testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/terrace-root-XXXXXX";
    root_ = mkdtemp(path);
    Write("/proc/meminfo",
          "MemTotal:       100000000 kB\nMemFree:  5 kB\n"
          "MemAvailable:   41943040 kB\nBuffers: 7 kB\n");  // 40 GiB
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  MachineMemory Read() {
    const Result<MachineMemory> machine = ReadMachineMemory(root_);
    EXPECT_TRUE(machine.ok()) << machine.status().ToString();
    return machine.ok() ? *machine : MachineMemory();
  }

  std::string root_;
};

TEST_F(MachineMemoryTest, WithoutLimitsMemAvailableCounts) {
  const MachineMemory machine = Read();
  EXPECT_EQ(machine.available_bytes, 40 * kGiB);
  EXPECT_EQ(machine.cgroup_left_bytes, MachineMemory::kUnlimited);
  EXPECT_EQ(machine.hugetlb_free_bytes, 0u);
  EXPECT_EQ(machine.ordinary_bytes(), 40 * kGiB);
}

TEST_F(MachineMemoryTest, NoMeminfoIsAnError) {
  std::filesystem::remove(root_ + "/proc/meminfo");
  const Result<MachineMemory> machine = ReadMachineMemory(root_);
  ASSERT_FALSE(machine.ok());
  EXPECT_EQ(machine.status().code(), StatusCode::kIoError);
  EXPECT_THAT(machine.status().message(), HasSubstr("/proc/meminfo"));
}

TEST_F(MachineMemoryTest, Version2LeavesItsLimitLessWhatIsUsed) {
  Write("/proc/self/cgroup", "0::/system.slice/terraced.service\n");
  const std::string folder = "/sys/fs/cgroup/system.slice/terraced.service";
  Write(folder + "/memory.max", "10737418240\n");                        // 10 GiB
  Write(folder + "/memory.current", "3221225472\n");                     // 3 GiB
  Write(folder + "/memory.stat", "anon 9\ninactive_file 1073741824\n");  // 1 GiB goes unmissed
  EXPECT_EQ(Read().cgroup_left_bytes, 8 * kGiB);
}

TEST_F(MachineMemoryTest, TightestLevelAboveCounts) {
  Write("/proc/self/cgroup", "0::/a/b\n");
  Write("/sys/fs/cgroup/a/b/memory.max", "max\n");
  Write("/sys/fs/cgroup/a/memory.max", "5368709120\n");  // 5 GiB
  Write("/sys/fs/cgroup/a/memory.current", "1073741824\n");
  EXPECT_EQ(Read().cgroup_left_bytes, 4 * kGiB);
}

// A container's namespace: the file shows the mount's root.
TEST_F(MachineMemoryTest, LimitAtTheMountCounts) {
  Write("/proc/self/cgroup", "0::/\n");
  Write("/sys/fs/cgroup/memory.max", "2147483648\n");
  EXPECT_EQ(Read().cgroup_left_bytes, 2 * kGiB);
  Write("/proc/self/cgroup", "0::/../../elsewhere\n");
  EXPECT_EQ(Read().cgroup_left_bytes, 2 * kGiB);
  Write("/proc/self/cgroup", "0::/a/path/of/the/host\n");
  EXPECT_EQ(Read().cgroup_left_bytes, 2 * kGiB);
}

TEST_F(MachineMemoryTest, Version1LeavesItsLimitLessWhatIsUsed) {
  Write("/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:hugetlb,memory:/jobs/7\n0::/\n");
  const std::string folder = "/sys/fs/cgroup/memory/jobs/7";
  Write(folder + "/memory.limit_in_bytes", "6442450944\n");  // 6 GiB
  Write(folder + "/memory.usage_in_bytes", "2147483648\n");
  Write(folder + "/memory.stat", "inactive_file 5\ntotal_inactive_file 1073741824\n");
  EXPECT_EQ(Read().cgroup_left_bytes, 5 * kGiB);
  Write(folder + "/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(Read().cgroup_left_bytes, MachineMemory::kUnlimited);
}

TEST_F(MachineMemoryTest, FullCgroupLeavesNothing) {
  Write("/proc/self/cgroup", "0::/\n");
  Write("/sys/fs/cgroup/memory.max", "1000\n");
  Write("/sys/fs/cgroup/memory.current", "2000\n");
  EXPECT_EQ(Read().cgroup_left_bytes, 0u);
  EXPECT_EQ(AutoDramBytes(Read()), 0u);
}

TEST_F(MachineMemoryTest, PromisedHugePagesAreNotFree) {
  const std::string folder = "/sys/kernel/mm/hugepages/hugepages-2048kB";
  Write(folder + "/free_hugepages", "10\n");
  Write(folder + "/resv_hugepages", "4\n");
  EXPECT_EQ(Read().hugetlb_free_bytes, 6 * kHugePageBytes);
}

TEST_F(MachineMemoryTest, GarbageLimitsNothing) {
  Write("/proc/self/cgroup", "nonsense\n0:\n::\n0::relative\n");
  EXPECT_EQ(Read().cgroup_left_bytes, MachineMemory::kUnlimited);
}

TEST(MachineMemory, ThisMachineCanBeRead) {
  const Result<MachineMemory> machine = ReadMachineMemory();
  ASSERT_TRUE(machine.ok()) << machine.status().ToString();
  EXPECT_GT(machine->available_bytes, 0u);
}

TEST(AutoDramBytes, IsAQuarterOfTheTighter) {
  EXPECT_EQ(AutoDramBytes({.available_bytes = 40 * kGiB}), 10 * kGiB);
  EXPECT_EQ(AutoDramBytes({.available_bytes = 40 * kGiB, .cgroup_left_bytes = 8 * kGiB}), 2 * kGiB);
}

TEST(AutoDramBytes, IsBoundedAndInWholeHugePages) {
  EXPECT_EQ(AutoDramBytes({.available_bytes = 2048 * kGiB}), 64 * kGiB);
  EXPECT_EQ(AutoDramBytes({.available_bytes = 15 * kMiB}), 2 * kMiB);
  EXPECT_EQ(AutoDramBytes({.available_bytes = 7 * kMiB}), 0u);
}

TEST(CheckDramBytes, WhatFitsIsOk) {
  const MachineMemory machine{.available_bytes = 21 * kGiB, .hugetlb_free_bytes = 4 * kGiB};
  EXPECT_TRUE(CheckDramBytes(21 * kGiB, machine, false).ok());
  EXPECT_TRUE(CheckDramBytes(25 * kGiB, machine, true).ok());
}

TEST(CheckDramBytes, TooMuchNamesWhatTheMachineGives) {
  const MachineMemory machine{.available_bytes = 21 * kGiB};
  const Status status = CheckDramBytes(48 * kGiB, machine, true);
  EXPECT_EQ(status.code(), StatusCode::kNoSpace);
  EXPECT_EQ(status.message(), "dram = 48 GiB, but only 21 GiB are free: lower it");
}

TEST(CheckDramBytes, CgroupAndHugePagesAreNamedWhereTheyDecide) {
  const MachineMemory machine{.available_bytes = 30 * kGiB,
                              .cgroup_left_bytes = 8 * kGiB + 700 * kMiB,
                              .hugetlb_free_bytes = 4 * kGiB};
  const Status off = CheckDramBytes(10 * kGiB, machine, false);
  EXPECT_EQ(off.code(), StatusCode::kNoSpace);
  EXPECT_THAT(off.message(), HasSubstr("only 8.6 GiB are free in this cgroup"));
  EXPECT_THAT(off.message(), HasSubstr("turn huge_pages on"));
  EXPECT_TRUE(CheckDramBytes(10 * kGiB, machine, true).ok());
  const Status far = CheckDramBytes(100 * kGiB, machine, false);
  EXPECT_THAT(far.message(), Not(HasSubstr("huge_pages")));
}

TEST(CheckDramBytes, ImpossibleSizesAreInvalid) {
  const MachineMemory machine{.available_bytes = kDramBytesMax * 2};
  EXPECT_EQ(CheckDramBytes(0, machine, true).code(), StatusCode::kInvalid);
  EXPECT_EQ(CheckDramBytes(kMiB, machine, true).code(), StatusCode::kInvalid);
  EXPECT_EQ(CheckDramBytes(kDramBytesMax + 1, machine, true).code(), StatusCode::kInvalid);
  EXPECT_TRUE(CheckDramBytes(kDramBytesMax, machine, true).ok());
}

}  // namespace
}  // namespace terrace
