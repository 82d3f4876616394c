#pragma once

// A process that a test starts, stops, continues and kills; dead with the test at the latest.
//
// Threads: one owner.

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

#include "storage/base/fd.h"

namespace terrace {

class ChildProcess {
 public:
  struct Spec {
    std::vector<std::string> words;                       // the program's path, its arguments
    std::map<std::string, std::string> environment = {};  // over the test's own
    UniqueFd input = {}, output = {};                     // invalid: the test's own
  };

  ChildProcess() = default;  // none runs
  explicit ChildProcess(Spec spec);
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ~ChildProcess();

  bool running() const { return pid_ > 0; }
  pid_t pid() const { return pid_; }

  // REQUIRES, of all below: it runs.
  void Pause();     // SIGSTOP; no thread of it runs when this returns
  void Resume();    // SIGCONT
  void Kill();      // SIGKILL; ends the test's process when it had ended by itself before
  int Terminate();  // SIGTERM; its exit status, 128 and more after a signal
  int Await();      // the same, once it ends by itself

 private:
  int Reap();

  pid_t pid_ = -1;
};

// The path of a program of this build, found under $TERRACE_BIN (the tests' runner sets it).
std::string ProgramPath(const std::string& name);

}  // namespace terrace
