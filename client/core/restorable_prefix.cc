#include "client/core/restorable_prefix.h"

#include <algorithm>
#include <vector>

namespace terrace {

size_t RestorablePrefix(size_t chunk_count, uint32_t ranks,
                        std::span<const uint32_t> group_trailing, const ReadyFn& ready) {
  // Groups that need every chunk bound the prefix; the others only say where it may end.
  size_t bound = chunk_count;
  for (size_t group = 0; group < group_trailing.size(); ++group) {
    if (group_trailing[group] != 0) continue;
    for (uint32_t rank = 0; rank < ranks; ++rank) {
      const auto part = static_cast<uint16_t>(rank + ranks * group);
      size_t run = 0;
      while (run < bound && ready(run, part)) ++run;
      bound = run;
    }
  }

  // ends[n]: the prefix of n chunks may end there under every trailing group looked at so far.
  std::vector<bool> ends(bound + 1, true);
  for (size_t group = 0; group < group_trailing.size(); ++group) {
    const size_t trailing = group_trailing[group];
    if (trailing == 0) continue;
    for (uint32_t rank = 0; rank < ranks; ++rank) {
      const auto part = static_cast<uint16_t>(rank + ranks * group);
      size_t run = 0;  // ready chunks in a row that end at n
      for (size_t n = 1; n <= bound; ++n) {
        run = ready(n - 1, part) ? run + 1 : 0;
        if (run < std::min(trailing, n)) ends[n] = false;
      }
    }
  }
  while (bound > 0 && !ends[bound]) --bound;
  return bound;
}

}  // namespace terrace
