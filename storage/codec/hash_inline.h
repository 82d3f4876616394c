#pragma once

// XXH3-64 compiled into the file that includes this, for that file's instruction set: the library
// is built for the oldest CPU, and takes a tenth of a decode's time.
//
// Threads: a pure function.

#define XXH_INLINE_ALL
// Wider ones too: gcc 12 warns of uninitialised values inside the AVX-512 intrinsics that it uses.
#if defined(__AVX512F__)
#define XXH_VECTOR XXH_AVX2
#endif
#include <xxhash.h>

#include <cstddef>
#include <cstdint>

namespace terrace::planes {
namespace {

inline uint64_t HashInline(const uint8_t* bytes, size_t count) { return XXH3_64bits(bytes, count); }

}  // namespace
}  // namespace terrace::planes
