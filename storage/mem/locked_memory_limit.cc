#include "storage/mem/locked_memory_limit.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <string>

namespace terrace {

Status RaiseLockedMemoryLimit(uint64_t needed) {
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return ErrnoStatus("getrlimit RLIMIT_MEMLOCK", errno);
  if (limit.rlim_cur >= needed) return Status::Ok();

  const rlimit raised{.rlim_cur = needed, .rlim_max = std::max<rlim_t>(limit.rlim_max, needed)};
  if (setrlimit(RLIMIT_MEMLOCK, &raised) == 0) return Status::Ok();
  const rlimit most{.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
  static_cast<void>(setrlimit(RLIMIT_MEMLOCK, &most));  // what there is
  return Status(StatusCode::kInvalid,
                "RLIMIT_MEMLOCK: " + std::to_string(needed) +
                    " bytes are wanted, but the hard limit is " + std::to_string(limit.rlim_max) +
                    ": raise it (LimitMEMLOCK= in the unit, ulimit -Hl in a shell)");
}

}  // namespace terrace
