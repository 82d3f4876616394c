#pragma once

// A namespace: the identity contract under which bytes may be shared.  Registration fails closed: a
// label that exists with another identity is refused, naming the field that differs.
//
// Threads: values.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "proto/shm/lookup.h"
#include "storage/base/result.h"

namespace terrace {

// Which chunks of a KV group a restorable prefix needs.
struct GroupRule {
  uint32_t trailing = 0;  // 0: every chunk; n: the last n of the prefix (sliding window, state)
  friend bool operator==(const GroupRule&, const GroupRule&) = default;
};

// Every field is compared; what an engine does not know stays empty and is compared as empty.
struct NamespaceSpec {
  std::string label;  // the name under which it is registered
  std::string model;
  std::string weights_digest;
  std::string dtype;
  std::string layout;
  uint32_t tokens_per_chunk = 0;
  std::vector<uint64_t> layer_bytes;  // payload bytes of each layer, in order; empty: opaque
  uint32_t ranks = 1;
  std::vector<GroupRule> groups = {GroupRule{}};
  std::string hash_algorithm;
  std::string hash_seed;
  std::string engine_build;
  std::string isa;
  std::string salt;
};

// The first field in which two specs differ, or nothing.
std::optional<std::string> DifferingField(const NamespaceSpec& a, const NamespaceSpec& b);

struct NamespaceInfo {
  NamespaceSpec spec;
  shm::NamespaceRef ref;
  uint64_t epoch = 0;        // bumps so far
  uint64_t chunk_count = 0;  // ready chunks
  uint64_t chunk_bytes = 0;  // their payload
};

}  // namespace terrace
