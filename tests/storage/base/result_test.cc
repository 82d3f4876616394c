#include "storage/base/result.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace terrace {
namespace {

TEST(Result, HoldsItsValue) {
  Result<std::string> result(std::string("bytes"));
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(*result, "bytes");
  EXPECT_EQ(result->size(), 5u);
  EXPECT_TRUE(result.status().ok());
}

TEST(Result, HoldsItsStatus) {
  const Result<int> result(Status(StatusCode::kNotFound, "no such chunk"));
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), StatusCode::kNotFound);
  EXPECT_EQ(result.status().message(), "no such chunk");
}

TEST(Result, MovesOutWhatCannotBeCopied) {
  Result<std::unique_ptr<int>> result(std::make_unique<int>(7));
  const std::unique_ptr<int> value = *std::move(result);
  EXPECT_EQ(*value, 7);
}

TEST(ResultDeathTest, ReadingAnAbsentValueEndsTheProcess) {
  const Result<int> result{Status(StatusCode::kBusy)};
  EXPECT_DEATH(static_cast<void>(*result), "invariant broken");
}

TEST(ResultDeathTest, OkWithoutValueEndsTheProcess) {
  EXPECT_DEATH(static_cast<void>(Result<int>(Status::Ok())), "invariant broken");
}

}  // namespace
}  // namespace terrace
