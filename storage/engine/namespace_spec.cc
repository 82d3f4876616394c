#include "storage/engine/namespace_spec.h"

namespace terrace {

std::optional<std::string> DifferingField(const NamespaceSpec& a, const NamespaceSpec& b) {
  if (a.model != b.model) return "model";
  if (a.weights_digest != b.weights_digest) return "weights_digest";
  if (a.dtype != b.dtype) return "dtype";
  if (a.layout != b.layout) return "layout";
  if (a.tokens_per_chunk != b.tokens_per_chunk) return "tokens_per_chunk";
  if (a.layer_bytes != b.layer_bytes) return "layer_bytes";
  if (a.ranks != b.ranks) return "ranks";
  if (a.groups != b.groups) return "groups";
  if (a.hash_algorithm != b.hash_algorithm) return "hash_algorithm";
  if (a.hash_seed != b.hash_seed) return "hash_seed";
  if (a.engine_build != b.engine_build) return "engine_build";
  if (a.isa != b.isa) return "isa";
  if (a.salt != b.salt) return "salt";
  return std::nullopt;
}

}  // namespace terrace
