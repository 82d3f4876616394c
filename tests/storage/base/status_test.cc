#include "storage/base/status.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <set>
#include <string>

namespace terrace {
namespace {

TEST(Status, DefaultIsOkAndSaysSo) {
  const Status status;
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(status.code(), StatusCode::kOk);
  EXPECT_EQ(status.ToString(), "ok");
}

TEST(Status, ToStringJoinsCodeAndMessage) {
  EXPECT_EQ(Status(StatusCode::kBusy, "the pool has no room").ToString(),
            "busy: the pool has no room");
  EXPECT_EQ(Status(StatusCode::kStale).ToString(), "stale");
}

TEST(Status, EveryCodeHasItsOwnName) {
  std::set<std::string_view> names;
  for (int code = 0; code <= static_cast<int>(StatusCode::kIoError); ++code) {
    const std::string_view name = StatusCodeName(static_cast<StatusCode>(code));
    EXPECT_NE(name, "unknown") << code;
    EXPECT_TRUE(names.insert(name).second) << name;
  }
}

TEST(Status, ErrnoBecomesWhatTheCallerMustDo) {
  EXPECT_EQ(ErrnoStatus("write x", ENOSPC).code(), StatusCode::kNoSpace);
  EXPECT_EQ(ErrnoStatus("mmap x", ENOMEM).code(), StatusCode::kNoSpace);
  EXPECT_EQ(ErrnoStatus("open x", EACCES).code(), StatusCode::kDenied);
  EXPECT_EQ(ErrnoStatus("fcntl x", EPERM).code(), StatusCode::kDenied);
  EXPECT_EQ(ErrnoStatus("open x", EMFILE).code(), StatusCode::kBusy);
  EXPECT_EQ(ErrnoStatus("read x", EIO).code(), StatusCode::kIoError);
}

TEST(Status, ErrnoMessageNamesCallAndReason) {
  EXPECT_EQ(ErrnoStatus("open /x", ENOENT).message(), "open /x: No such file or directory");
}

}  // namespace
}  // namespace terrace
