#include "storage/base/lock_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace terrace {
namespace {

class LockFileTest : public testing::Test {
 protected:
  LockFileTest() {
    char name[] = "/tmp/terrace-lock-file-XXXXXX";
    folder_ = mkdtemp(name);
    path_ = folder_ / "a.lock";
  }
  ~LockFileTest() override { std::filesystem::remove_all(folder_); }

  std::string Content() const {
    std::ifstream file(path_);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::filesystem::path folder_, path_;
};

TEST_F(LockFileTest, SecondHolderIsRefusedByPidAndNameOfTheFirst) {
  const Result<LockFile> first = LockFile::Take(path_);
  ASSERT_TRUE(first.ok()) << first.status().message();
  const Result<LockFile> second = LockFile::Take(path_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), StatusCode::kBusy);
  std::ifstream comm("/proc/self/comm");
  std::string name;
  std::getline(comm, name);
  EXPECT_EQ(second.status().message(),
            "held by pid " + std::to_string(getpid()) + " (" + name + ")");
}

TEST_F(LockFileTest, EndsWithItsOwnerAndALongerPidLeavesNothing) {
  std::ofstream(path_) << "123456789012345";
  { const Result<LockFile> first = LockFile::Take(path_); }
  EXPECT_EQ(Content(), std::to_string(getpid()));
  EXPECT_TRUE(LockFile::Take(path_).ok());
}

TEST_F(LockFileTest, IsHeldWhereItsPidCannotBeWritten) {
  // A file size limit of 0 refuses each write as a full file system does.
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  auto* const handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &none), 0);
  const Result<LockFile> first = LockFile::Take(path_);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  ASSERT_TRUE(first.ok()) << first.status().message();
  EXPECT_EQ(LockFile::Take(path_).status().message(), "held by another process");
}

TEST_F(LockFileTest, FollowsNoLink) {
  std::filesystem::create_symlink(folder_ / "elsewhere", path_);
  EXPECT_FALSE(LockFile::Take(path_).ok());
  EXPECT_FALSE(std::filesystem::exists(folder_ / "elsewhere"));
}

}  // namespace
}  // namespace terrace
