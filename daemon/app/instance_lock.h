#pragma once

// One daemon a socket: an exclusive lock on SOCKET.lock, held for life, in which the holder's pid
// stands.  A socket file without a holder is stale and is removed.
//
// Threads: main.

#include <string>

#include "storage/base/fd.h"
#include "storage/base/result.h"

namespace terrace {

class InstanceLock {
 public:
  // kBusy names the process that holds the socket.  Makes the socket's folder when it is missing.
  static Result<InstanceLock> Take(const std::string& socket);

 private:
  explicit InstanceLock(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace terrace
