#include "bench/workers.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace terrace {

Workers::~Workers() {
  for (const pid_t pid : running_) kill(pid, SIGKILL);
  Join();
}

void Workers::Start(const std::function<void()>& work) {
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid > 0) running_.push_back(pid);
  if (pid != 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() == parent) work();
  _exit(0);
}

bool Workers::AllRun() {
  size_t alive = 0;
  for (const pid_t pid : running_) {
    siginfo_t ended{};
    if (waitid(P_PID, static_cast<id_t>(pid), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
        ended.si_pid == 0) {
      ++alive;
    }
  }
  return alive == running_.size();
}

void Workers::Join() {
  for (const pid_t pid : running_) waitpid(pid, nullptr, 0);
  running_.clear();
}

}  // namespace terrace
