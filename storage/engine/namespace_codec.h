#pragma once

// Namespaces as the NVMe tier keeps them: one blob for each, and one in front of them that holds
// the next id, so that no id is ever given twice on a device.
//
// A blob is little-endian: a version, then the fields in the order of NamespaceSpec, texts and
// lists behind a 32-bit count.
//
// Threads: pure functions.  Each Decode reads its input as hostile: any bytes give a Status.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "storage/base/result.h"
#include "storage/engine/namespace_spec.h"

namespace terrace {

struct StoredNamespaces {
  uint32_t next_id = 1;            // 0: all were used
  std::vector<NamespaceInfo> all;  // spec, ref.id and epoch; the rest is of this life only
};

std::vector<std::string> EncodeNamespaces(uint32_t next_id, std::span<const NamespaceInfo> all);

// No blobs: a log that has just been formatted.  kCorrupt when the first one is not as written;
// kInvalid for another version, of it or of a namespace.  A namespace that cannot be read, or whose
// id or label another one has, is left out and named in `damage`.
Result<StoredNamespaces> DecodeNamespaces(const std::vector<std::string>& blobs,
                                          std::vector<std::string>* damage);

}  // namespace terrace
