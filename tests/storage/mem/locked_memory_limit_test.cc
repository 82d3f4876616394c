#include "storage/mem/locked_memory_limit.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>

namespace terrace {
namespace {

constexpr rlim_t kLow = 64 << 10, kHigh = 1 << 20;

// Limits belong to the process, and a hard one that was lowered stays: each case has a child, which
// may not raise hard limits.
int ExitCodeOf(rlim_t hard, const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    const rlimit limit{.rlim_cur = kLow, .rlim_max = hard};
    if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0) _exit(2);
    if (geteuid() == 0 && setuid(65534) != 0) _exit(3);
    _exit(body());
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
}

rlim_t SoftLimit() {
  rlimit limit{};
  return getrlimit(RLIMIT_MEMLOCK, &limit) == 0 ? limit.rlim_cur : 0;
}

TEST(LockedMemoryLimit, SoftLimitIsRaised) {
  EXPECT_EQ(ExitCodeOf(kHigh,
                       [] {
                         return RaiseLockedMemoryLimit(kHigh / 2).ok() && SoftLimit() == kHigh / 2
                                    ? 0
                                    : 1;
                       }),
            0);
}

TEST(LockedMemoryLimit, WhatIsMissingIsNamedAndTheRestIsTaken) {
  EXPECT_EQ(ExitCodeOf(kHigh,
                       [] {
                         const Status status = RaiseLockedMemoryLimit(2 * kHigh);
                         if (status.code() != StatusCode::kInvalid) return 1;
                         const bool named =
                             status.message().find("RLIMIT_MEMLOCK") != std::string::npos &&
                             status.message().find(std::to_string(kHigh)) != std::string::npos;
                         return named && SoftLimit() == kHigh ? 0 : 4;
                       }),
            0);
}

TEST(LockedMemoryLimit, EnoughIsLeftAlone) {
  EXPECT_EQ(
      ExitCodeOf(
          kHigh,
          [] { return RaiseLockedMemoryLimit(kLow / 2).ok() && SoftLimit() == kLow ? 0 : 1; }),
      0);
}

}  // namespace
}  // namespace terrace
