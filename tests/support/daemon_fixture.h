#pragma once

// A terraced of a test's own: private socket, private memory, dead with the fixture at the latest.
// The binary is found under $TERRACE_BIN (the tests' runner sets it).
//
// Threads: one owner.

#include <sys/types.h>

#include <string>
#include <vector>

#include "storage/base/fd.h"

namespace terrace {

class DaemonFixture {
 public:
  // Starts it and waits until it serves; ends the process when it does not within 20 s.
  explicit DaemonFixture(std::vector<std::string> flags = {"--dram", "64MiB", "--segment", "2MiB"});
  ~DaemonFixture();
  DaemonFixture(const DaemonFixture&) = delete;
  DaemonFixture& operator=(const DaemonFixture&) = delete;

  const std::string& socket() const { return socket_; }
  pid_t pid() const { return pid_; }

  // After Kill or Terminate: a new one on the same socket.
  void Start();
  void Kill();       // SIGKILL, and waits for its end
  void Terminate();  // SIGTERM; answers once it has drained
  void Pause();      // SIGSTOP; it no longer runs when this returns
  void Resume();     // SIGCONT

 private:
  void Reap();
  void AwaitReady();

  std::vector<std::string> flags_;
  std::string folder_;
  std::string socket_;
  UniqueFd notify_;  // where the daemon says READY=1
  pid_t pid_ = -1;
};

}  // namespace terrace
