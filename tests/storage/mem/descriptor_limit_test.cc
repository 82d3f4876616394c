#include "storage/mem/descriptor_limit.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>

namespace terrace {
namespace {

// Limits belong to the process, and a hard one that was lowered stays: each case has a child.
int ExitCodeOf(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
}

bool SetLimit(rlim_t soft, rlim_t hard) {
  const rlimit limit{.rlim_cur = soft, .rlim_max = hard};
  return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

rlim_t SoftLimit() {
  rlimit limit{};
  return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 0;
}

TEST(DescriptorLimit, SoftLimitIsRaised) {
  EXPECT_EQ(ExitCodeOf([] {
              if (!SetLimit(64, 256)) return 2;
              return RaiseDescriptorLimit(200).ok() && SoftLimit() == 200 ? 0 : 1;
            }),
            0);
}

TEST(DescriptorLimit, EnoughIsLeftAlone) {
  EXPECT_EQ(ExitCodeOf([] {
              if (!SetLimit(128, 256)) return 2;
              return RaiseDescriptorLimit(100).ok() && SoftLimit() == 128 ? 0 : 1;
            }),
            0);
}

TEST(DescriptorLimit, HardLimitIsNamed) {
  EXPECT_EQ(ExitCodeOf([] {
              if (!SetLimit(64, 256)) return 2;
              if (geteuid() == 0 && setuid(65534) != 0) return 3;
              const Status status = RaiseDescriptorLimit(1000);
              if (status.code() != StatusCode::kInvalid) return 1;
              const bool named = status.message().find("RLIMIT_NOFILE") != std::string::npos &&
                                 status.message().find("1000") != std::string::npos &&
                                 status.message().find("256") != std::string::npos;
              return named && SoftLimit() == 64 ? 0 : 4;
            }),
            0);
}

TEST(DescriptorLimit, HardLimitIsRaisedWhereTheProcessMay) {
  constexpr int kMayNot = 77;
  const int code = ExitCodeOf([] {
    if (!SetLimit(64, 256)) return 2;
    if (!SetLimit(64, 257)) return kMayNot;
    return RaiseDescriptorLimit(1000).ok() && SoftLimit() == 1000 ? 0 : 1;
  });
  if (code == kMayNot) GTEST_SKIP() << "raising a hard limit needs CAP_SYS_RESOURCE";
  EXPECT_EQ(code, 0);
}

}  // namespace
}  // namespace terrace
