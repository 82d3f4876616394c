#include "storage/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace terrace {

void CheckFailed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "terrace: invariant broken: %s (%s:%d)\n", condition, file, line);
  std::abort();
}

}  // namespace terrace
