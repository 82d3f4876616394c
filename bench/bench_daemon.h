#pragma once

// The daemon that a workload measures: one of its own, which ends with this object, or one that
// runs already.
//
// Threads: main.

#include <sys/types.h>

#include <string>
#include <vector>

#include "storage/base/result.h"

namespace terrace {

class BenchDaemon {
 public:
  // Starts the terraced that lies beside this program, with its socket in `folder`; waits until it
  // serves.
  static Result<BenchDaemon> Start(const std::string& folder,
                                   const std::vector<std::string>& arguments);
  // The one behind `socket`, which goes on afterwards.
  static BenchDaemon Borrow(const std::string& socket);
  BenchDaemon(BenchDaemon&& other) noexcept;
  BenchDaemon& operator=(BenchDaemon&&) = delete;
  ~BenchDaemon();

  const std::string& socket() const { return socket_; }

 private:
  BenchDaemon(pid_t pid, std::string socket) : pid_(pid), socket_(std::move(socket)) {}

  pid_t pid_;  // 0: not ours
  std::string socket_;
};

}  // namespace terrace
