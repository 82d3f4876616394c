#pragma once

// The kernels of the codec, by instruction set: elements of 16 bits to byte planes and back, and
// the bases of a high plane (storage/codec/frame_layout.h).  All variants give the same bytes.
//
// Threads: constants; the functions are pure.

#include <cstddef>
#include <cstdint>
#include <span>

namespace terrace::planes {

// A plane as a matrix.
struct Shape {
  size_t rows;
  size_t columns;
};

// Rows of which a column's base is the mean: a bound on the cost, and sums fit 16 bits.
inline constexpr size_t kMeanRowsMax = 256;

struct Variant {
  const char* name;
  // Elements, rotated left by one, to their high and low bytes.  No alignment needed; no overlap.
  // `merge` streams its stores and fences them.
  void (*split)(const uint8_t* elements, size_t count, uint8_t* high, uint8_t* low);
  void (*merge)(const uint8_t* high, const uint8_t* low, size_t count, uint8_t* elements);
  // The rounded mean of each column's first kMeanRowsMax bytes, or of each row.  `sums` has room
  // for shape.columns words.  REQUIRES: rows, columns >= 1.
  void (*mean_columns)(const uint8_t* plane, Shape shape, uint16_t* sums, uint8_t* bases);
  void (*mean_rows)(const uint8_t* plane, Shape shape, uint8_t* bases);
  // In place, modulo 256: a base a column, or a row.
  void (*subtract_columns)(uint8_t* plane, Shape shape, const uint8_t* bases);
  void (*add_columns)(uint8_t* plane, Shape shape, const uint8_t* bases);
  void (*subtract_rows)(uint8_t* plane, Shape shape, const uint8_t* bases);
  void (*add_rows)(uint8_t* plane, Shape shape, const uint8_t* bases);
  // XXH3-64 with seed 0.
  uint64_t (*hash)(const uint8_t* bytes, size_t count);
};

// What this CPU can run, the preferred one first; "portable" is always the last.
std::span<const Variant> SupportedVariants();

// The preferred one.
const Variant& Chosen();

extern const Variant kPortable;
#if defined(__x86_64__)
extern const Variant kAvx2;
extern const Variant kAvx512;
#endif

}  // namespace terrace::planes
