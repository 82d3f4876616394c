#pragma once

// Times a chunk was used since it was first put: 0, 1, 2, 3, 4 or more.  The classes whose hazards
// are learnt apart; coarser groups (Policy::ReuseClass) decide who shares a segment.

#include <algorithm>
#include <cstdint>

#include "storage/base/limits.h"

namespace terrace {

inline constexpr uint32_t kUseClassCount = 5;
static_assert(kUseClassCount >= kReuseClassCount);

inline constexpr uint32_t NextUseClass(uint32_t use_class) {
  return std::min(use_class + 1, kUseClassCount - 1);
}

inline constexpr uint32_t ReuseClassOf(uint32_t use_class) {
  return std::min(use_class, kReuseClassCount - 1);
}

}  // namespace terrace
