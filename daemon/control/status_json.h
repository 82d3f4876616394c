#pragma once

// What `terrace status --json` prints.
//
// Threads: call on the shard's thread.

#include <cstdint>
#include <string>

#include "daemon/history/chunk_archive.h"
#include "daemon/session/shard.h"

namespace terrace {

struct StatusContext {
  std::string version, socket;
  uint64_t boot_epoch = 0;
  int64_t started_ns = 0;
  const ChunkArchive* archive = nullptr;  // null: none
};

// What the reader may see: its own tenant, with its sessions, or all of them.
struct StatusView {
  bool all = false;
  std::string tenant;

  bool Shows(const std::string& name) const { return all || name == tenant; }
};

std::string StatusJson(const StatusContext& context, const StatusView& view, Shard& shard);

}  // namespace terrace
