#pragma once

// Memory that the kernel keeps pinned for I/O counts against RLIMIT_MEMLOCK: what it takes is
// raised before the first buffer is registered, as far as this process may.
//
// Threads: changes the process' RLIMIT_MEMLOCK; call it at start.

#include <cstdint>

#include "storage/base/status.h"

namespace terrace {

// Makes room for `needed` bytes, raising the soft limit, and the hard one where this process may;
// else the soft limit as far as the hard one goes, and kInvalid naming the limit.  Never lowers
// anything.  Processes with CAP_IPC_LOCK are not held to it.
Status RaiseLockedMemoryLimit(uint64_t needed);

}  // namespace terrace
