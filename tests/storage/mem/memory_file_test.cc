#include "storage/mem/memory_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "storage/base/limits.h"
#include "storage/mem/machine_memory.h"

namespace terrace {
namespace {

using testing::HasSubstr;

constexpr MemoryFileOptions SmallPages() { return {.best = PageRung::kSmall, .root = ""}; }

MemoryFile Made(uint64_t bytes, const MemoryFileOptions& options = SmallPages()) {
  Result<MemoryFile> made = MemoryFile::Create("terrace-test", bytes, options);
  EXPECT_TRUE(made.ok()) << made.status().ToString();
  return made.ok() ? *std::move(made) : MemoryFile();
}

std::string DescriptorPath(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

uint64_t FreeHugePages() {
  const Result<MachineMemory> machine = ReadMachineMemory();
  return machine.ok() ? machine->hugetlb_free_bytes / kHugePageBytes : 0;
}

// A /sys that says how memfds get huge pages.
class FakeSys {
 public:
  FakeSys() {
    char path[] = "/tmp/terrace-sys-XXXXXX";
    root_ = mkdtemp(path);
    std::filesystem::create_directories(root_ + kFolder + "/hugepages-2048kB");
  }
  ~FakeSys() { std::filesystem::remove_all(root_); }

  void Write(const std::string& file, const std::string& text) {
    std::ofstream(root_ + kFolder + "/" + file) << text << "\n";
  }
  const std::string& root() const { return root_; }

 private:
  static constexpr const char* kFolder = "/sys/kernel/mm/transparent_hugepage";
  std::string root_;
};

// The exit code of `body`, run by user and group `nobody` in a child.
int RunAsNobody(const std::function<int()>& body) {
  constexpr uid_t kNobody = 65534;
  const pid_t child = fork();
  if (child == 0) {
    // Changing users makes /proc/self unreadable, which would hide what the file's mode does.
    const bool changed =
        setgid(kNobody) == 0 && setuid(kNobody) == 0 && prctl(PR_SET_DUMPABLE, 1) == 0;
    _exit(changed ? body() : 99);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
}

TEST(MemoryFile, IsZeroFilledWritableAndSealed) {
  const MemoryFile file = Made(3 * kPageBytes);
  EXPECT_EQ(file.bytes(), 3 * kPageBytes);
  EXPECT_EQ(file.page_bytes(), kPageBytes);
  EXPECT_TRUE(file.mapping().writable());
  uint8_t* const data = file.mapping().writable_data();
  EXPECT_EQ(data[0], 0);
  EXPECT_EQ(data[3 * kPageBytes - 1], 0);
  data[3 * kPageBytes - 1] = 7;
  EXPECT_EQ(ftruncate(file.fd().get(), 0), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(ftruncate(file.fd().get(), 64 * kPageBytes), -1);
  EXPECT_EQ(errno, EPERM);
}

TEST(MemoryFile, ModeIsOwnersAlone) {
  const MemoryFile file = Made(kPageBytes);
  struct stat status {};
  ASSERT_EQ(fstat(file.fd().get(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600u);
  EXPECT_NE(fcntl(file.fd().get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(MemoryFile, OddSizesAreRefused) {
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{1}, kPageBytes + 1}) {
    const Result<MemoryFile> made = MemoryFile::Create("terrace-test", bytes, SmallPages());
    ASSERT_FALSE(made.ok());
    EXPECT_EQ(made.status().code(), StatusCode::kInvalid);
    EXPECT_THAT(made.status().message(), HasSubstr("terrace-test"));
  }
}

TEST(MemoryFile, LargeMappingsBeginAtAHugePage) {
  for (int i = 0; i < 8; ++i) {
    const MemoryFile odd = Made(kHugePageBytes + kPageBytes);  // shifts what comes next
    const MemoryFile file = Made(3 * kHugePageBytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(odd.mapping().data()) % kHugePageBytes, 0u);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(file.mapping().data()) % kHugePageBytes, 0u);
  }
}

TEST(MemoryFile, ReaderSeesBytesAndCannotWrite) {
  const MemoryFile file = Made(kHugePageBytes);
  const Result<UniqueFd> reader = file.OpenReadOnly();
  ASSERT_TRUE(reader.ok()) << reader.status().ToString();
  const Result<Mapping> mapped = Mapping::MapReadOnly(reader->get(), file.bytes());
  ASSERT_TRUE(mapped.ok());
  EXPECT_FALSE(mapped->writable());
  std::memcpy(file.mapping().writable_data(), "chunk", 5);
  EXPECT_EQ(std::memcmp(mapped->data(), "chunk", 5), 0);

  const Result<Mapping> writable = Mapping::MapReadWrite(reader->get(), file.bytes());
  ASSERT_FALSE(writable.ok());
  EXPECT_EQ(writable.status().code(), StatusCode::kDenied);
  EXPECT_EQ(mprotect(const_cast<uint8_t*>(mapped->data()), kPageBytes, PROT_READ | PROT_WRITE), -1);
  EXPECT_EQ(errno, EACCES);
  EXPECT_EQ(pwrite(reader->get(), "x", 1, 0), -1);
}

TEST(MemoryFile, AnotherUserCannotReopenWritable) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become another user";
  const MemoryFile file = Made(kPageBytes);
  const Result<UniqueFd> reader = file.OpenReadOnly();
  ASSERT_TRUE(reader.ok());
  const int fd = reader->get();
  const auto reopen_writable = [fd] {
    return open(DescriptorPath(fd).c_str(), O_RDWR) >= 0 ? 0 : errno;
  };
  EXPECT_EQ(RunAsNobody(reopen_writable), EACCES);
  const auto map_writable = [fd] { return Mapping::MapReadWrite(fd, kPageBytes).ok() ? 0 : 1; };
  EXPECT_EQ(RunAsNobody(map_writable), 1);
  const auto read = [fd] { return Mapping::MapReadOnly(fd, kPageBytes).ok() ? 0 : 1; };
  EXPECT_EQ(RunAsNobody(read), 0);

  // It is the mode that protects: with everybody's, the same attempt succeeds.
  ASSERT_EQ(fchmod(file.fd().get(), 0666), 0);
  EXPECT_EQ(RunAsNobody(reopen_writable), 0);
}

TEST(MemoryFile, SealedFileKeepsTheOldMappingWritableAlone) {
  MemoryFile file = Made(kHugePageBytes);
  ASSERT_TRUE(file.SealFutureWrite().ok());
  file.mapping().writable_data()[9] = 9;
  EXPECT_EQ(pwrite(file.fd().get(), "x", 1, 0), -1);
  const Result<Mapping> writable = Mapping::MapReadWrite(file.fd().get(), file.bytes());
  ASSERT_FALSE(writable.ok());
  EXPECT_EQ(writable.status().code(), StatusCode::kDenied);
  const UniqueFd again(open(DescriptorPath(file.fd().get()).c_str(), O_RDWR));
  ASSERT_TRUE(again.valid());
  EXPECT_FALSE(Mapping::MapReadWrite(again.get(), file.bytes()).ok());
  const Result<Mapping> reader = Mapping::MapReadOnly(file.fd().get(), file.bytes());
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(reader->data()[9], 9);
}

TEST(MemoryFile, SealedSealsKeepItWritableForOthers) {
  Result<MemoryFile> file = MemoryFile::Create("seals", 2 * kMiB, {});
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(file->SealSeals().ok());
  const UniqueFd writable = file->fd().Duplicate();
  EXPECT_NE(fcntl(writable.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
  void* mapped = mmap(nullptr, 2 * kMiB, PROT_READ | PROT_WRITE, MAP_SHARED, writable.get(), 0);
  ASSERT_NE(mapped, MAP_FAILED);
  munmap(mapped, 2 * kMiB);
}

TEST(MemoryFile, AdoptFindsBytesAfterItsMakerIsGone) {
  MemoryFile file = Made(kHugePageBytes);
  file.mapping().writable_data()[123] = 45;
  UniqueFd inherited = file.fd().Duplicate();
  file = MemoryFile();
  const Result<MemoryFile> adopted = MemoryFile::Adopt(std::move(inherited), SmallPages());
  ASSERT_TRUE(adopted.ok()) << adopted.status().ToString();
  EXPECT_EQ(adopted->bytes(), kHugePageBytes);
  ASSERT_TRUE(adopted->mapping().writable());
  EXPECT_EQ(adopted->mapping().data()[123], 45);
}

TEST(MemoryFile, AdoptOfASealedFileIsReadOnly) {
  MemoryFile file = Made(kPageBytes);
  ASSERT_TRUE(file.SealFutureWrite().ok());
  const Result<MemoryFile> adopted = MemoryFile::Adopt(file.fd().Duplicate(), SmallPages());
  ASSERT_TRUE(adopted.ok()) << adopted.status().ToString();
  EXPECT_FALSE(adopted->mapping().writable());
}

TEST(MemoryFile, AdoptRefusesStrangers) {
  const auto refusal = [](UniqueFd fd) {
    const Result<MemoryFile> adopted = MemoryFile::Adopt(std::move(fd), SmallPages());
    EXPECT_FALSE(adopted.ok());
    EXPECT_EQ(adopted.status().code(), StatusCode::kInvalid);
    return adopted.status().message();
  };
  EXPECT_THAT(refusal(UniqueFd(open("/dev/null", O_RDWR))), HasSubstr("no seals"));
  UniqueFd unsealed(memfd_create("unsealed", MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(unsealed.get(), kPageBytes), 0);
  EXPECT_THAT(refusal(std::move(unsealed)), HasSubstr("size is not sealed"));
  const MemoryFile open_to_all = Made(kPageBytes);
  ASSERT_EQ(fchmod(open_to_all.fd().get(), 0666), 0);
  EXPECT_THAT(refusal(open_to_all.fd().Duplicate()), HasSubstr("0600"));
}

TEST(Mapping, LongerThanItsFileIsRefused) {
  const MemoryFile file = Made(kPageBytes);
  const Result<Mapping> mapped = Mapping::MapReadOnly(file.fd().get(), 2 * kPageBytes);
  ASSERT_FALSE(mapped.ok());
  EXPECT_EQ(mapped.status().code(), StatusCode::kInvalid);
}

TEST(Mapping, MoveLeavesOneOwner) {
  const MemoryFile file = Made(kPageBytes);
  Result<Mapping> mapped = Mapping::MapReadWrite(file.fd().get(), kPageBytes);
  ASSERT_TRUE(mapped.ok());
  Mapping first = *std::move(mapped);
  uint8_t* const data = first.writable_data();
  Mapping second = std::move(first);
  EXPECT_FALSE(first.valid());  // NOLINT: moved-from is empty by contract
  EXPECT_EQ(second.writable_data(), data);
  second.Reset();
  unsigned char resident = 0;
  EXPECT_EQ(mincore(data, kPageBytes, &resident), -1);
  EXPECT_EQ(errno, ENOMEM);
}

TEST(PageLadder, SysSettingDecidesTransparentHugePages) {
  FakeSys sys;
  EXPECT_FALSE(TransparentHugePagesPermitted(sys.root()));
  for (const char* word : {"always", "advise", "within_size", "force"}) {
    sys.Write("shmem_enabled", std::string("x [") + word + "] y");
    EXPECT_TRUE(TransparentHugePagesPermitted(sys.root())) << word;
  }
  for (const char* word : {"never", "deny"}) {
    sys.Write("shmem_enabled", std::string("x [") + word + "] y");
    EXPECT_FALSE(TransparentHugePagesPermitted(sys.root())) << word;
  }
  sys.Write("hugepages-2048kB/shmem_enabled", "always [inherit] never");
  EXPECT_FALSE(TransparentHugePagesPermitted(sys.root()));
  sys.Write("hugepages-2048kB/shmem_enabled", "[always] inherit never");
  EXPECT_TRUE(TransparentHugePagesPermitted(sys.root()));
  sys.Write("shmem_enabled", "[always] never");
  sys.Write("hugepages-2048kB/shmem_enabled", "always inherit [never]");
  EXPECT_FALSE(TransparentHugePagesPermitted(sys.root()));
}

TEST(PageLadder, RungFollowsPermissionAndSize) {
  FakeSys sys;
  MemoryFileOptions options{.best = PageRung::kTransparent, .root = sys.root()};
  sys.Write("shmem_enabled", "[never]");
  EXPECT_EQ(Made(kHugePageBytes, options).rung(), PageRung::kSmall);
  sys.Write("shmem_enabled", "[advise]");
  const MemoryFile huge = Made(kHugePageBytes, options);
  EXPECT_EQ(huge.rung(), PageRung::kTransparent);
  EXPECT_EQ(huge.page_bytes(), kHugePageBytes);
  EXPECT_EQ(Made(kHugePageBytes + kPageBytes, options).rung(), PageRung::kSmall);
  options.best = PageRung::kSmall;
  EXPECT_EQ(Made(kHugePageBytes, options).rung(), PageRung::kSmall);
}

TEST(PageLadder, MoreHugetlbThanTheMachineHasFallsThrough) {
  // One page more than the pool holds; nothing of it is touched.
  const uint64_t bytes = (FreeHugePages() + 1) * kHugePageBytes;
  FakeSys sys;
  sys.Write("shmem_enabled", "[never]");
  const MemoryFile file = Made(bytes, {.best = PageRung::kHugetlb, .root = sys.root()});
  EXPECT_EQ(file.rung(), PageRung::kSmall);
  ASSERT_TRUE(file.mapping().writable());
  file.mapping().writable_data()[bytes - 1] = 1;
}

TEST(PageLadder, HugetlbFileKeepsTheSameContract) {
  if (FreeHugePages() < 2) GTEST_SKIP() << "vm.nr_hugepages reserves no 2 MiB pages";
  MemoryFile file = Made(2 * kHugePageBytes, {.best = PageRung::kHugetlb, .root = ""});
  EXPECT_EQ(file.rung(), PageRung::kHugetlb);
  EXPECT_EQ(file.page_bytes(), kHugePageBytes);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(file.mapping().data()) % kHugePageBytes, 0u);
  EXPECT_EQ(ftruncate(file.fd().get(), 0), -1);
  file.mapping().writable_data()[kHugePageBytes] = 5;

  const Result<UniqueFd> reader = file.OpenReadOnly();
  ASSERT_TRUE(reader.ok());
  EXPECT_FALSE(Mapping::MapReadWrite(reader->get(), file.bytes()).ok());
  const Result<Mapping> mapped = Mapping::MapReadOnly(reader->get(), file.bytes());
  ASSERT_TRUE(mapped.ok());
  EXPECT_EQ(mapped->data()[kHugePageBytes], 5);

  ASSERT_TRUE(file.SealFutureWrite().ok());
  file.mapping().writable_data()[0] = 6;
  EXPECT_FALSE(Mapping::MapReadWrite(file.fd().get(), file.bytes()).ok());
  const Result<MemoryFile> adopted = MemoryFile::Adopt(file.fd().Duplicate(), SmallPages());
  ASSERT_TRUE(adopted.ok()) << adopted.status().ToString();
  EXPECT_EQ(adopted->rung(), PageRung::kHugetlb);
  EXPECT_EQ(adopted->mapping().data()[0], 6);
}

TEST(PageLadder, TransparentHugePagesAreRealWhereTheKernelPermitsThem) {
  if (!TransparentHugePagesPermitted("")) GTEST_SKIP() << "shmem_enabled is never or deny";
  const MemoryFile file = Made(2 * kHugePageBytes, {.best = PageRung::kTransparent, .root = ""});
  ASSERT_EQ(file.rung(), PageRung::kTransparent);
  file.mapping().writable_data()[0] = 1;
  // One touch makes a whole huge page present, unless memory is fragmented.
  unsigned char resident[2 * kHugePageBytes / kPageBytes] = {};
  ASSERT_EQ(mincore(file.mapping().writable_data(), file.bytes(), resident), 0);
  EXPECT_NE(resident[0] & 1, 0);
  EXPECT_NE(resident[kHugePageBytes / kPageBytes - 1] & 1, 0);
}

}  // namespace
}  // namespace terrace
