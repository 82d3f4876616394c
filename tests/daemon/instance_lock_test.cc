#include "daemon/app/instance_lock.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>

namespace terrace {
namespace {

using testing::HasSubstr;

class InstanceLockTest : public testing::Test {
 protected:
  InstanceLockTest() {
    char name[] = "/tmp/terrace-lock-XXXXXX";
    folder_ = mkdtemp(name);
  }
  ~InstanceLockTest() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path folder_;
};

TEST_F(InstanceLockTest, SecondHolderIsRefusedByNameOfTheFirst) {
  const std::string socket = folder_ / "run" / "t.sock";
  const Result<InstanceLock> first = InstanceLock::Take(socket);
  ASSERT_TRUE(first.ok()) << first.status().message();
  const Result<InstanceLock> second = InstanceLock::Take(socket);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), StatusCode::kBusy);
  EXPECT_THAT(second.status().message(), HasSubstr("pid " + std::to_string(getpid())));
}

TEST_F(InstanceLockTest, StaleSocketIsTakenOver) {
  const std::string socket = folder_ / "t.sock";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, socket.c_str(), sizeof address.sun_path - 1);
  const UniqueFd left(::socket(AF_UNIX, SOCK_STREAM, 0));
  ASSERT_EQ(bind(left.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  const Result<InstanceLock> lock = InstanceLock::Take(socket);
  ASSERT_TRUE(lock.ok());
  EXPECT_FALSE(std::filesystem::exists(socket));
}

TEST_F(InstanceLockTest, OtherFileInTheSocketsPlaceIsLeftAlone) {
  const std::string socket = folder_ / "t.sock";
  { const UniqueFd file(creat(socket.c_str(), 0600)); }
  const Result<InstanceLock> lock = InstanceLock::Take(socket);
  ASSERT_TRUE(lock.ok());
  EXPECT_TRUE(std::filesystem::exists(socket));
}

TEST_F(InstanceLockTest, EndsWithItsHolder) {
  const std::string socket = folder_ / "t.sock";
  { const Result<InstanceLock> first = InstanceLock::Take(socket); }
  EXPECT_TRUE(InstanceLock::Take(socket).ok());
}

}  // namespace
}  // namespace terrace
