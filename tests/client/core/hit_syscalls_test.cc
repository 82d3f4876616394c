#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>

#include "client/core/client.h"
#include "tests/support/chunks.h"
#include "tests/support/daemon_fixture.h"

namespace terrace {
namespace {

// From now on this thread dies of any system call but the end of the process.
bool ForbidSystemCalls() {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
  };
  const sock_fprog program{.len = sizeof filter / sizeof filter[0], .filter = filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

// Runs `work` in a child with a client of its own: 0 when all of it went without a system call.
int InChild(const std::string& socket, bool (*work)(Namespace&)) {
  const pid_t child = fork();
  if (child == 0) {
    auto client = Client::Connect({.socket = socket, .client_name = "child"});
    if (!client.ok()) _exit(2);
    auto names = (*client)->Register(Identity());
    if (!names.ok()) _exit(3);
    const std::vector<std::byte> payload(8192, std::byte{1});
    const PutItem item{.key = Key(1), .payload = payload};
    const StatusCode put = (*names)->Put(std::span(&item, 1)).front();
    if (put != StatusCode::kOk && put != StatusCode::kExists) _exit(4);
    if (!work(**names)) _exit(5);  // warm: pages touched, lazy symbols bound
    if (!ForbidSystemCalls()) _exit(6);
    for (int i = 0; i < 1000; ++i) {
      if (!work(**names)) _exit(7);
    }
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// The sanitizers' own runtimes make system calls now and then.
class HitSystemCalls : public testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "a sanitizer makes system calls of its own";
#endif
  }
};

TEST_F(HitSystemCalls, AHitTakesNone) {
  const DaemonFixture daemon;
  EXPECT_EQ(InChild(daemon.socket(),
                    [](Namespace& names) {
                      Pin pin;
                      return names.GetOne(Key(1), &pin) == StatusCode::kOk &&
                             pin.bytes()[8191] == std::byte{1};
                    }),
            0);
}

TEST_F(HitSystemCalls, AMissTakesNone) {
  const DaemonFixture daemon;
  EXPECT_EQ(InChild(daemon.socket(),
                    [](Namespace& names) {
                      Pin pin;
                      return names.GetOne(Key(2), &pin) == StatusCode::kNotFound;
                    }),
            0);
}

TEST_F(HitSystemCalls, AMatchAndAGetOfManyTakeNone) {
  const DaemonFixture daemon;
  EXPECT_EQ(InChild(daemon.socket(),
                    [](Namespace& names) {
                      const std::vector<shm::ChunkKey> keys(64, Key(1));
                      if (names.Match(keys).prefix != 64) return false;
                      const std::vector<GetResult> got = names.Get(keys);
                      return got.back().status == StatusCode::kOk &&
                             got.back().pin.bytes()[0] == std::byte{1};
                    }),
            0);
}

// The trap itself: a call that must reach the daemon dies of it.
TEST_F(HitSystemCalls, ARequestToTheDaemonIsCaught) {
  const DaemonFixture daemon;
  EXPECT_EQ(InChild(daemon.socket(),
                    [](Namespace& names) {
                      const std::vector<shm::ChunkKey> keys(1, Key(1));
                      return names.Prefetch(keys).front() == StatusCode::kOk;
                    }),
            128 + SIGSYS);
}

}  // namespace
}  // namespace terrace
