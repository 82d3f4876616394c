#pragma once

// The variants behind copy_hash.h, by name, so that tests can force each one.  Others call
// copy_hash.h.
//
// Threads: constants.

#include <cstddef>
#include <cstdint>
#include <span>

namespace terrace::copy_hash {

// REQUIRES of the functions: as in copy_hash.h.
struct Variant {
  const char* name;
  void (*copy_and_hash)(void* destination, const void* source, size_t bytes, uint64_t* leaves);
  void (*hash_leaves)(const void* source, size_t bytes, uint64_t* leaves);
  void (*copy)(void* destination, const void* source, size_t bytes);
};

// What this CPU can run, the preferred one first; "portable" is always the last.
std::span<const Variant> SupportedVariants();

extern const Variant kPortable;
#if defined(__x86_64__)
extern const Variant kAvx2;
extern const Variant kAvx512;
extern const Variant kAvx512Interleaved;
#endif

}  // namespace terrace::copy_hash
