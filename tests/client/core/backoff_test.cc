#include "client/core/backoff.h"

#include <gtest/gtest.h>

namespace terrace {
namespace {

TEST(Backoff, DoublesUntilTheLongestPause) {
  Backoff backoff;
  int64_t before_ns = Backoff::kNsMin;
  for (int attempt = 0; attempt < 6; ++attempt) {
    const int64_t pause_ns = backoff.NextNs(false);
    EXPECT_EQ(pause_ns, 2 * before_ns);
    before_ns = pause_ns;
  }
  for (int attempt = 0; attempt < 100; ++attempt) before_ns = backoff.NextNs(false);
  EXPECT_EQ(before_ns, Backoff::kNsMax);
}

TEST(Backoff, EachOfManyReturnsIsNoticedAsSoonAsTheFirst) {
  Backoff backoff;
  for (int round = 0; round < 10; ++round) {
    for (int attempt = 0; attempt < 20; ++attempt) static_cast<void>(backoff.NextNs(false));
    EXPECT_EQ(backoff.NextNs(true), Backoff::kNsMin) << round;
    EXPECT_EQ(backoff.NextNs(false), 2 * Backoff::kNsMin) << round;
  }
}

}  // namespace
}  // namespace terrace
