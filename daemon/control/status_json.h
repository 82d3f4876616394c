#pragma once

// What `terrace status --json` prints.
//
// Threads: call on the shard's thread.

#include <cstdint>
#include <string>

#include "daemon/session/shard.h"

namespace terrace {

struct StatusContext {
  std::string version, socket;
  uint64_t boot_epoch = 0;
  int64_t started_ns = 0;
};

std::string StatusJson(const StatusContext& context, Shard& shard);

}  // namespace terrace
