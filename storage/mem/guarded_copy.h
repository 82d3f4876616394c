#pragma once

// The only way in which the daemon reads memory that a client can write: one pass into private
// memory, and a fault in it (a hole punched into a hugetlb file with no page left, a file cut
// short) is an answer instead of the end of the process.
//
// The guard is a SIGBUS handler of the whole process.  It recognises the one instruction that
// copies; any other SIGBUS goes to the handler that was there before, or ends the process as ever.
//
// Threads: safe from any thread.

#include <cstddef>

#include "storage/base/status.h"

namespace terrace {

// Installs the handler; further calls change nothing.  Call it before other threads start, and
// let nobody replace the handler afterwards.  kIoError when the system refuses.
Status InstallGuard();

// Copies `bytes`, reading each source byte once.  kCorrupt when the source could not be read; what
// `into` holds is then undefined.  A concurrent writer gives any mix of old and new bytes: judge
// the copy, never the source.
// REQUIRES: InstallGuard() was called; both ranges are mapped; no overlap.
Status GuardedCopy(void* into, const void* from, size_t bytes);

}  // namespace terrace
