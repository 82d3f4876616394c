#include "storage/mem/descriptor_limit.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <string>

namespace terrace {

Status RaiseDescriptorLimit(uint64_t needed) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return ErrnoStatus("getrlimit RLIMIT_NOFILE", errno);
  if (limit.rlim_cur >= needed) return Status::Ok();

  const rlimit raised{.rlim_cur = needed, .rlim_max = std::max<rlim_t>(limit.rlim_max, needed)};
  if (setrlimit(RLIMIT_NOFILE, &raised) == 0) return Status::Ok();
  return Status(StatusCode::kInvalid,
                "RLIMIT_NOFILE: " + std::to_string(needed) +
                    " descriptors are needed, but the hard limit is " +
                    std::to_string(limit.rlim_max) +
                    ": raise it (LimitNOFILE= in the unit, ulimit -Hn in a shell)");
}

}  // namespace terrace
