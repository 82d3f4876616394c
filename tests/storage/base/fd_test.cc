#include "storage/base/fd.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <utility>

namespace terrace {
namespace {

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

UniqueFd OpenNull() { return UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC)); }

TEST(UniqueFd, ClosesWithItsOwner) {
  int number = -1;
  {
    const UniqueFd fd = OpenNull();
    ASSERT_TRUE(fd.valid());
    number = fd.get();
    EXPECT_TRUE(IsOpen(number));
  }
  EXPECT_FALSE(IsOpen(number));
}

TEST(UniqueFd, MoveLeavesOneOwner) {
  UniqueFd first = OpenNull();
  const int number = first.get();
  UniqueFd second = std::move(first);
  EXPECT_FALSE(first.valid());  // NOLINT: moved-from is empty by contract
  EXPECT_EQ(second.get(), number);

  UniqueFd third = OpenNull();
  const int replaced = third.get();
  third = std::move(second);
  EXPECT_FALSE(IsOpen(replaced));
  EXPECT_EQ(third.get(), number);
  EXPECT_TRUE(IsOpen(number));
}

TEST(UniqueFd, ReleaseGivesUpOwnership) {
  UniqueFd fd = OpenNull();
  const int number = fd.Release();
  EXPECT_FALSE(fd.valid());
  EXPECT_TRUE(IsOpen(number));
  const UniqueFd closes(number);
}

TEST(UniqueFd, DuplicateOutlivesItsOriginalAndClosesOnExec) {
  UniqueFd fd = OpenNull();
  const UniqueFd copy = fd.Duplicate();
  ASSERT_TRUE(copy.valid());
  EXPECT_NE(copy.get(), fd.get());
  fd.Reset();
  EXPECT_TRUE(IsOpen(copy.get()));
  EXPECT_NE(fcntl(copy.get(), F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_FALSE(UniqueFd().Duplicate().valid());
}

}  // namespace
}  // namespace terrace
