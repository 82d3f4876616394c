#pragma once

// A terraced of a test's own: private socket, private memory, dead with the fixture at the latest.
// One that ends otherwise than it is told to (a failed check, a sanitizer's find) ends the test.
//
// Threads: one owner.

#include <string>
#include <vector>

#include "storage/base/fd.h"
#include "tests/support/child_process.h"

namespace terrace {

class DaemonFixture {
 public:
  // Starts it and waits until it serves; ends the process when it does not within 20 s.
  explicit DaemonFixture(std::vector<std::string> flags = {"--dram", "64MiB", "--segment", "2MiB"});
  ~DaemonFixture();
  DaemonFixture(const DaemonFixture&) = delete;
  DaemonFixture& operator=(const DaemonFixture&) = delete;

  const std::string& socket() const { return socket_; }
  pid_t pid() const { return process_.pid(); }

  // After Kill or Terminate: a new one on the same socket.
  void Start();
  void Kill() { process_.Kill(); }
  void Terminate();  // answers once it has drained
  void Pause() { process_.Pause(); }
  void Resume() { process_.Resume(); }

 private:
  void AwaitReady();

  std::vector<std::string> flags_;
  std::string folder_;
  std::string socket_;
  UniqueFd notify_;  // where the daemon says READY=1
  ChildProcess process_;
};

}  // namespace terrace
