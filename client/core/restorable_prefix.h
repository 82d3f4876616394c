#pragma once

// How long a prefix of chunks can be restored: the rule of a namespace's ranks and KV groups.
//
// Threads: pure.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

namespace terrace {

// Whether chunk `index` is ready in `part` (rank + ranks x group).
using ReadyFn = std::function<bool(size_t index, uint16_t part)>;

// The greatest n <= chunk_count such that for every rank and every group the chunks that a restore
// of n chunks reads are ready: all n where the group's trailing is 0, the last min(t, n) where it
// is t (a sliding window or a state needs no more).  Asks for each (index, part) at most once.
size_t RestorablePrefix(size_t chunk_count, uint32_t ranks,
                        std::span<const uint32_t> group_trailing, const ReadyFn& ready);

}  // namespace terrace
