#include "storage/engine/namespace_spec.h"

#include <gtest/gtest.h>

#include <functional>
#include <utility>

namespace terrace {
namespace {

TEST(NamespaceSpec, EveryFieldOfTheIdentityIsComparedAndNamed) {
  const std::pair<std::string, std::function<void(NamespaceSpec&)>> changes[] = {
      {"model", [](NamespaceSpec& s) { s.model = "x"; }},
      {"weights_digest", [](NamespaceSpec& s) { s.weights_digest = "x"; }},
      {"dtype", [](NamespaceSpec& s) { s.dtype = "x"; }},
      {"layout", [](NamespaceSpec& s) { s.layout = "x"; }},
      {"tokens_per_chunk", [](NamespaceSpec& s) { s.tokens_per_chunk = 64; }},
      {"layer_bytes", [](NamespaceSpec& s) { s.layer_bytes = {1}; }},
      {"ranks", [](NamespaceSpec& s) { s.ranks = 2; }},
      {"groups", [](NamespaceSpec& s) { s.groups[0].trailing = 1; }},
      {"hash_algorithm", [](NamespaceSpec& s) { s.hash_algorithm = "x"; }},
      {"hash_seed", [](NamespaceSpec& s) { s.hash_seed = "x"; }},
      {"engine_build", [](NamespaceSpec& s) { s.engine_build = "x"; }},
      {"isa", [](NamespaceSpec& s) { s.isa = "x"; }},
      {"salt", [](NamespaceSpec& s) { s.salt = "x"; }},
  };
  for (const auto& [field, change] : changes) {
    NamespaceSpec a, b;
    EXPECT_EQ(DifferingField(a, b), std::nullopt);
    change(b);
    EXPECT_EQ(DifferingField(a, b), field);
  }
}

}  // namespace
}  // namespace terrace
