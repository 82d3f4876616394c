#include "storage/base/fd.h"

#include <fcntl.h>
#include <unistd.h>

namespace terrace {

void UniqueFd::Reset(int fd) {
  if (fd_ >= 0) close(fd_);
  fd_ = fd;
}

UniqueFd UniqueFd::Duplicate() const { return UniqueFd(fcntl(fd_, F_DUPFD_CLOEXEC, 3)); }

}  // namespace terrace
