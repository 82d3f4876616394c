#pragma once

// A run in a process of its own, with a folder for its sockets and files that is removed when the
// run ends, however it ends: Ctrl-C and SIGTERM end the run first.
//
// Threads: main, before there are others.

#include <functional>
#include <string>

namespace terrace {

// Answers what `work` answered; 128 + the signal when one ended it.  Its folder is made in
// `parent`.
int RunSupervised(const std::function<int(const std::string& folder)>& work,
                  const std::string& parent = "/tmp");

}  // namespace terrace
