#pragma once

// Segments cost a descriptor each: the limit is raised before the first is made, or refused.
//
// Threads: changes the process' RLIMIT_NOFILE; call it at start.

#include <cstdint>

#include "storage/base/status.h"

namespace terrace {

// Makes room for `needed` descriptors, raising the soft limit, and the hard one where this process
// may.  Never lowers anything.  kInvalid naming the limit where it cannot.
Status RaiseDescriptorLimit(uint64_t needed);

}  // namespace terrace
