#pragma once

// One daemon a socket: SOCKET.lock, held for life.  A socket file without a holder is stale and is
// removed.
//
// Threads: main.

#include <string>
#include <utility>

#include "storage/base/lock_file.h"
#include "storage/base/result.h"

namespace terrace {

class InstanceLock {
 public:
  // kBusy names the process that holds the socket.  Makes the socket's folder when it is missing.
  static Result<InstanceLock> Take(const std::string& socket);

 private:
  explicit InstanceLock(LockFile lock) : lock_(std::move(lock)) {}
  LockFile lock_;
};

}  // namespace terrace
