#include "storage/io/device_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/storage/io/child.h"
#include "tests/storage/io/io_testing.h"

namespace terrace {
namespace {

using testing::HasSubstr;

constexpr uint64_t kSlack = 64 * kKiB;  // for the blocks that extents take themselves

FileOptions Options(std::vector<std::string> paths, uint64_t capacity_bytes) {
  FileOptions options;
  options.paths = std::move(paths);
  options.capacity_bytes = capacity_bytes;
  options.stripe_bytes = kMiB;
  return options;
}

uint64_t AllocatedOf(const std::string& path) {
  struct stat file {};
  EXPECT_EQ(stat(path.c_str(), &file), 0);
  return static_cast<uint64_t>(file.st_blocks) * 512;
}

TEST(DeviceFiles, RoomIsTakenUpFrontWithinTheCap) {
  const TestFolder folder;
  const Result<DeviceFiles> files =
      DeviceFiles::Open(Options({folder.path("a"), folder.path("b")}, 9 * kMiB));
  ASSERT_TRUE(files.ok()) << files.status().ToString();
  EXPECT_EQ(files->capacity_bytes(), 8 * kMiB);  // 4.5 MiB each are 4 stripes
  EXPECT_EQ(files->stripes_per_file(), 4u);
  EXPECT_TRUE(files->writable());
  EXPECT_GE(AllocatedOf(folder.path("a")), 4 * kMiB);
  EXPECT_LE(files->AllocatedBytes(), 9 * kMiB);
  EXPECT_TRUE(files->Check().ok());
  struct stat file {};
  ASSERT_EQ(stat(folder.path("a").c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 07777, 0600u);
}

TEST(DeviceFiles, AllocatedBlocksNeverExceedTheCap) {
  const TestFolder folder;
  for (const uint64_t cap : {3 * kMiB, 8 * kMiB, 64 * kMiB}) {
    const std::string path = folder.path(std::to_string(cap));
    const Result<DeviceFiles> files = DeviceFiles::Open(Options({path}, cap));
    ASSERT_TRUE(files.ok());
    EXPECT_LE(AllocatedOf(path), cap);
    EXPECT_GE(files->capacity_bytes() + kMiB, cap);
  }
}

TEST(DeviceFiles, ContentOutlivesALargerCapAndAHoleIsFilled) {
  const TestFolder folder;
  const std::string path = folder.path("a");
  {
    std::ofstream file(path);
    file << "kept";
    file.seekp(2 * kMiB - 1);  // the rest is a hole
    file << 'x';
  }
  const Result<DeviceFiles> files = DeviceFiles::Open(Options({path}, 4 * kMiB + kSlack));
  ASSERT_TRUE(files.ok());
  EXPECT_EQ(files->capacity_bytes(), 4 * kMiB);
  EXPECT_GE(AllocatedOf(path), 4 * kMiB);
  std::string word(4, ' ');
  std::ifstream(path).read(word.data(), 4);
  EXPECT_EQ(word, "kept");
}

TEST(DeviceFiles, AFileIsNeverCut) {
  const TestFolder folder;
  FileOptions options = Options({folder.path("a")}, 8 * kMiB + kSlack);
  ASSERT_TRUE(DeviceFiles::Open(options).ok());
  options.capacity_bytes = 2 * kMiB + kSlack;
  {
    const Result<DeviceFiles> files = DeviceFiles::Open(options);
    ASSERT_TRUE(files.ok());
    EXPECT_EQ(files->capacity_bytes(), 2 * kMiB);
    EXPECT_EQ(std::filesystem::file_size(folder.path("a")), 8 * kMiB);
    EXPECT_EQ(files->notes().size(), 1u);
  }
  options.capacity_bytes = 8 * kMiB + kMiB / 2;
  std::filesystem::resize_file(folder.path("a"), 8 * kMiB + kPageBytes);
  ASSERT_TRUE(DeviceFiles::Open(options).ok());
  EXPECT_EQ(std::filesystem::file_size(folder.path("a")), 8 * kMiB + kPageBytes);
}

TEST(DeviceFiles, NothingChangesBeforeRoomIsTaken) {
  const TestFolder folder;
  const std::string path = folder.path("vm.img");
  std::ofstream(path) << std::string(5000, 'v');
  const FileOptions options = Options({path, folder.path("b")}, 8 * kMiB + kSlack);
  Result<DeviceFiles> files = DeviceFiles::OpenPaths(options.paths);
  ASSERT_TRUE(files.ok()) << files.status().ToString();
  PageMemory bytes(2 * kPageBytes);
  ASSERT_TRUE(files->ReadAt(0, 0, {bytes.data(), bytes.bytes()}).ok());
  EXPECT_EQ(bytes.data()[4999], 'v');
  EXPECT_EQ(bytes.data()[5000], 0);
  ASSERT_TRUE(files->ReadAt(1, kMiB, {bytes.data(), bytes.bytes()}).ok());
  EXPECT_EQ(bytes.data()[0], 0);
  EXPECT_EQ(std::filesystem::file_size(path), 5000u);
  EXPECT_EQ(std::filesystem::file_size(folder.path("b")), 0u);
  // Locked already.
  EXPECT_EQ(DeviceFiles::OpenPaths({path}).status().code(), StatusCode::kBusy);
  ASSERT_TRUE(files->TakeRoom(options).ok());
  EXPECT_EQ(files->capacity_bytes(), 8 * kMiB);
}

TEST(DeviceFiles, WhoOnlyLooksChangesNothing) {
  const TestFolder folder;
  const std::string path = folder.path("a");
  std::ofstream(path) << std::string(3 * kMiB + 5, 'x');
  ASSERT_EQ(chmod(path.c_str(), 0644), 0);
  struct stat before {
  }, after{};
  ASSERT_EQ(stat(path.c_str(), &before), 0);
  for (const FilesUse use : {FilesUse::kLook, FilesUse::kMend}) {
    Result<DeviceFiles> files = DeviceFiles::OpenPaths({path}, nullptr, use);
    ASSERT_TRUE(files.ok()) << files.status().ToString();
    EXPECT_EQ(files->writable(), use == FilesUse::kMend);
    ASSERT_TRUE(files->KeepRoom(kMiB).ok());
    EXPECT_EQ(files->capacity_bytes(), 3 * kMiB);
    EXPECT_EQ(DeviceFiles::OpenPaths({path}, nullptr, use).status().code(), StatusCode::kBusy);
  }
  ASSERT_EQ(stat(path.c_str(), &after), 0);
  EXPECT_EQ(after.st_size, before.st_size);
  EXPECT_EQ(after.st_mode, before.st_mode);
  EXPECT_EQ(after.st_blocks, before.st_blocks);
  // Nothing is made, and what is too short is said to be.
  const std::string none = folder.path("none");
  EXPECT_FALSE(DeviceFiles::OpenPaths({none}, nullptr, FilesUse::kMend).ok());
  EXPECT_FALSE(std::filesystem::exists(none));
  Result<DeviceFiles> shorter = DeviceFiles::OpenPaths({path}, nullptr, FilesUse::kLook);
  ASSERT_TRUE(shorter.ok());
  EXPECT_EQ(shorter->KeepRoom(4 * kMiB).code(), StatusCode::kNoSpace);
}

TEST(DeviceFiles, OthersFilesAreRefusedAndLeftAlone) {
  const TestFolder folder;
  std::ofstream(folder.path("theirs")) << "theirs";
  std::filesystem::create_symlink(folder.path("theirs"), folder.path("link"));
  FilesFault fault = FilesFault::kNone;
  const auto refused = [&](const std::string& path) {
    const Status status = DeviceFiles::Open(Options({path}, kMiB), &fault).status();
    EXPECT_EQ(std::filesystem::file_size(folder.path("theirs")), 6u);
    return status.ToString();
  };
  EXPECT_THAT(refused(folder.path("link")), HasSubstr("symbolic link: name what it points to"));
  EXPECT_EQ(fault, FilesFault::kSettings);
  std::filesystem::create_hard_link(folder.path("theirs"), folder.path("other"));
  EXPECT_THAT(refused(folder.path("other")), HasSubstr("has 2 names"));
  EXPECT_EQ(fault, FilesFault::kNotOurs);
  std::filesystem::remove(folder.path("other"));
  ASSERT_EQ(chmod(folder.path("").c_str(), 0770), 0);
  EXPECT_THAT(refused(folder.path("theirs")), HasSubstr("chmod go-w"));
  EXPECT_EQ(fault, FilesFault::kNotOurs);
  EXPECT_THAT(refused(folder.path("new")), HasSubstr("can be written by others"));
  EXPECT_FALSE(std::filesystem::exists(folder.path("new")));
  ASSERT_EQ(chmod(folder.path("").c_str(), 01777), 0);
  if (getuid() == 0) {
    ASSERT_EQ(chown(folder.path("theirs").c_str(), 65534, 65534), 0);
    EXPECT_THAT(refused(folder.path("theirs")), HasSubstr("belongs to uid 65534"));
    EXPECT_EQ(fault, FilesFault::kNotOurs);
  }
  EXPECT_THAT(refused(folder.path("no/such")), HasSubstr("the folder of"));
  EXPECT_EQ(fault, FilesFault::kMedium);
}

TEST(DeviceFiles, AFileThatOthersMayReadIsClosedToThem) {
  const TestFolder folder;
  std::ofstream(folder.path("a")).close();
  ASSERT_EQ(chmod(folder.path("a").c_str(), 0664), 0);
  ASSERT_TRUE(DeviceFiles::Open(Options({folder.path("a")}, kMiB)).ok());
  struct stat file {};
  ASSERT_EQ(stat(folder.path("a").c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 07777, 0600u);
}

TEST(DeviceFiles, FloorOfFreeBytesIsKept) {
  const TestFolder folder;
  FileOptions options = Options({folder.path("a")}, 4 * kMiB);
  struct statvfs system {};
  ASSERT_EQ(statvfs(folder.path("").c_str(), &system), 0);
  options.free_bytes_min = uint64_t{system.f_blocks} * system.f_frsize;  // never so much free
  const Result<DeviceFiles> files = DeviceFiles::Open(options);
  EXPECT_EQ(files.status().code(), StatusCode::kNoSpace);
  EXPECT_EQ(AllocatedOf(folder.path("a")), 0u);
}

TEST(DeviceFiles, FileSizeLimitGivesLessInsteadOfASignal) {
  const TestFolder folder;
  EXPECT_EQ(InChild([&] {
              const rlimit limit{.rlim_cur = 3 * kMiB + 5, .rlim_max = 3 * kMiB + 5};
              if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 90;
              const Result<DeviceFiles> files =
                  DeviceFiles::Open(Options({folder.path("a")}, 8 * kMiB));
              if (!files.ok()) return 1;
              if (files->notes().size() != 1) return 2;
              return files->capacity_bytes() == 3 * kMiB ? 0 : 3;
            }),
            0);
}

TEST(DeviceFiles, FullFileSystemGivesWhatItHas) {
  const TestFolder folder;
  const std::string small = folder.path("small");
  ASSERT_TRUE(std::filesystem::create_directory(small));
  const int answer = InChild([&] {
    if (unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("none", small.c_str(), "tmpfs", 0, "size=8m") != 0) {
      return 77;
    }
    {
      const Result<DeviceFiles> files = DeviceFiles::Open(Options({small + "/a"}, 32 * kMiB));
      if (!files.ok()) return 1;
      if (files->capacity_bytes() > 8 * kMiB || files->capacity_bytes() < 7 * kMiB) return 2;
      if (files->notes().empty()) return 3;
      if (std::filesystem::file_size(small + "/a") != files->capacity_bytes()) return 4;
      const Result<DeviceFiles> none = DeviceFiles::Open(Options({small + "/b"}, 32 * kMiB));
      if (none.status().code() != StatusCode::kNoSpace) return 5;
    }
    // Two files, of which the second gets less: the first gives back what would lie idle.
    std::filesystem::remove(small + "/a");
    const Result<DeviceFiles> files =
        DeviceFiles::Open(Options({small + "/c", small + "/d"}, 12 * kMiB));
    if (!files.ok()) return 6;
    if (files->stripes_per_file() >= 6 || files->stripes_per_file() == 0) return 7;
    if (std::filesystem::file_size(small + "/c") != files->stripes_per_file() * kMiB) return 8;
    return 0;
  });
  if (answer == 77) GTEST_SKIP() << "no right to mount a small file system";
  EXPECT_EQ(answer, 0);
}

TEST(DeviceFiles, RefusesWhatIsNoMediumSayingWhy) {
  const TestFolder folder;
  const auto code = [](const FileOptions& options) {
    return DeviceFiles::Open(options).status().code();
  };
  EXPECT_EQ(code(Options({}, kMiB)), StatusCode::kInvalid);
  EXPECT_EQ(code(Options({folder.path("")}, kMiB)), StatusCode::kInvalid);
  EXPECT_EQ(code(Options({"/dev/null"}, kMiB)), StatusCode::kInvalid);
  EXPECT_EQ(code(Options({folder.path("a")}, 0)), StatusCode::kInvalid);
  EXPECT_EQ(code(Options({folder.path("a")}, kMiB - 1)), StatusCode::kNoSpace);
  EXPECT_EQ(code(Options({folder.path("a"), folder.path("a")}, 8 * kMiB)), StatusCode::kBusy);
  EXPECT_EQ(code(Options({folder.path("no/such")}, kMiB)), StatusCode::kIoError);
  FileOptions options = Options({folder.path("a")}, kMiB);
  options.stripe_bytes = 1000;
  EXPECT_EQ(code(options), StatusCode::kInvalid);
}

}  // namespace
}  // namespace terrace
