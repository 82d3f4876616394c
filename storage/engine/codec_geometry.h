#pragma once

// What the codec is told of a namespace's payloads, from its spec, and whether it is worth asking.
//
// Threads: values.

#include <cstdint>
#include <vector>

#include "storage/codec/encoder.h"
#include "storage/engine/namespace_spec.h"

namespace terrace {

// The elements that `dtype` names: "bf16", "f16" and what engines call them; kOpaque for all
// others, which are not encoded: of what is quantised already nothing is gained.
ElementType ElementOf(const std::string& dtype);

// The frames of a payload of `payload_bytes`: a layer each, where the spec's layer_bytes add up to
// it, else empty, which is one layer of all.  Rows are a token's elements where the spec says how
// many tokens a chunk has: how keys and values lie within a layer is not known, so that the encoder
// tries whether their means are worth storing.
std::vector<Layer> LayersOf(const NamespaceSpec& spec, uint64_t payload_bytes);

// Whether the next chunk of a namespace is tried: of data that never gains one in kTryOneIn.
class CodecTrial {
 public:
  static constexpr uint32_t kMissesMax = 8;  // in a row
  static constexpr uint32_t kTryOneIn = 64;

  bool Try();
  void Gained(bool gained);

 private:
  uint32_t misses_ = 0;  // in a row
  uint32_t skipped_ = 0;
};

}  // namespace terrace
