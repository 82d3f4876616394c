#include "bench/supervised.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

namespace terrace {
namespace {

int ExitCode(int status) {
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace

int RunSupervised(const std::function<int(const std::string& folder)>& work,
                  const std::string& parent) {
  std::string folder = parent + "/terrace-bench-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) {
    std::fprintf(stderr, "terrace bench: mkdtemp %s: %s\n", folder.c_str(), std::strerror(errno));
    return 1;
  }
  sigset_t watched, before;
  sigemptyset(&watched);
  for (const int signal : {SIGCHLD, SIGINT, SIGTERM, SIGHUP}) sigaddset(&watched, signal);
  sigprocmask(SIG_BLOCK, &watched, &before);
  const pid_t run = fork();
  if (run == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigprocmask(SIG_SETMASK, &before, nullptr);
    const int code = work(folder);
    std::fflush(nullptr);
    _exit(code);
  }
  int status = 1 << 8;
  int told = 0;
  if (run < 0) std::perror("terrace bench: fork");
  while (run > 0 && waitpid(run, &status, WNOHANG) == 0) {
    int signal = 0;
    sigwait(&watched, &signal);
    if (signal == SIGCHLD) continue;
    told = signal;
    kill(run, SIGTERM);
  }
  std::error_code error;
  std::filesystem::remove_all(folder, error);
  sigprocmask(SIG_SETMASK, &before, nullptr);
  // A shell that runs us in a loop stops only when we ended as we were told to.
  if (told != 0 && WIFSIGNALED(status)) return 128 + told;
  return ExitCode(status);
}

}  // namespace terrace
