#pragma once

// A forked child that runs one function under limits of its own.
//
// Threads: call it from a process' only thread.

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

namespace terrace {

// The function's answer (0 to 100), or -1 when the child died otherwise.
template <typename Body>
int InChild(const Body& body) {
  std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid < 0) return -1;
  if (pid == 0) _exit(body());
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace terrace
