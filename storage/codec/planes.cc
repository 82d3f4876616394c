#include <xxhash.h>

#include <vector>

#include "storage/codec/planes_loops.h"
#include "storage/codec/planes_variants.h"

namespace terrace::planes {
namespace {

uint64_t HashByLibrary(const uint8_t* bytes, size_t count) { return XXH3_64bits(bytes, count); }

std::vector<Variant> FindSupported() {
  std::vector<Variant> found;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) {
    found.push_back(kAvx512);
  }
  if (__builtin_cpu_supports("avx2")) found.push_back(kAvx2);
#endif
  found.push_back(kPortable);
  return found;
}

}  // namespace

const Variant kPortable = MakeVariant("portable", SplitLoop, MergeLoop, HashByLibrary);

std::span<const Variant> SupportedVariants() {
  static const std::vector<Variant> supported = FindSupported();
  return supported;
}

const Variant& Chosen() { return SupportedVariants().front(); }

}  // namespace terrace::planes
