#pragma once

// A client in a process of its own, driven step by step: the parent knows where it is because it
// answers each command, and between two commands it does nothing.  So a signal meets it at a step
// that the test has chosen.
//
// Commands, one a line; chunks by number (tests/support/chunks.h), `I` an index of the batch:
//   put N BYTES            its status
//   get N                  its status; the pin is kept, in place of one before
//   same N                 "same" when the pinned bytes are still those of chunk N
//   begin MS BYTES N...    claims with that deadline: a status a key
//   half I                 copies the first half of the payload: "done"
//   fill I                 copies and hashes all of it: "done"
//   seal I                 hashes what lies there: "done"
//   submit                 sends the commit: "done"
//   finish                 its end: a status a key
// These answer "running" and go on over and over until the next command, and at least once after it
// has come:
//   copy I...              copies whole payloads, by hand, as a DMA would: past any deadline
//   pinning N              gets and lets go
//
// Threads: one owner.

#include <string>
#include <vector>

#include "storage/base/fd.h"
#include "storage/base/status.h"
#include "tests/support/child_process.h"

namespace terrace {

class ClientProcess {
 public:
  // Connected and registered under Identity() when this returns.
  ClientProcess(const std::string& socket, const std::string& name);
  // Lets it end in order, and ends the test's process when it does not.
  ~ClientProcess();
  ClientProcess(const ClientProcess&) = delete;
  ClientProcess& operator=(const ClientProcess&) = delete;

  // Ends the test's process when no answer comes within 20 s.
  std::string Ask(const std::string& command);

  ChildProcess& process() { return process_; }

 private:
  std::string ReadLine();

  UniqueFd commands_, answers_;
  ChildProcess process_;
};

}  // namespace terrace
