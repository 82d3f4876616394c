#pragma once

// The loops that every variant shares as source: each includes them into its own file and compiles
// them for its own instruction set.
//
// Threads: pure functions.

#include <algorithm>
#include <cstring>

#include "storage/codec/planes_variants.h"

namespace terrace::planes {
namespace {

inline void SplitLoop(const uint8_t* elements, size_t count, uint8_t* high, uint8_t* low) {
  for (size_t i = 0; i < count; ++i) {
    uint16_t element;
    std::memcpy(&element, elements + 2 * i, sizeof(element));
    low[i] = static_cast<uint8_t>(element << 1 | element >> 15);
    high[i] = static_cast<uint8_t>(element >> 7);
  }
}

inline void MergeLoop(const uint8_t* high, const uint8_t* low, size_t count, uint8_t* elements) {
  for (size_t i = 0; i < count; ++i) {
    const uint32_t rotated = static_cast<uint32_t>(high[i]) << 8 | low[i];
    const auto element = static_cast<uint16_t>(rotated >> 1 | rotated << 15);
    std::memcpy(elements + 2 * i, &element, sizeof(element));
  }
}

inline void MeanColumnsLoop(const uint8_t* plane, Shape shape, uint16_t* __restrict sums,
                            uint8_t* bases) {
  const size_t columns = shape.columns;
  const size_t rows = std::min(shape.rows, kMeanRowsMax);
  std::fill_n(sums, columns, uint16_t{0});
  for (size_t row = 0; row < rows; ++row, plane += columns) {
    for (size_t i = 0; i < columns; ++i) sums[i] = static_cast<uint16_t>(sums[i] + plane[i]);
  }
  for (size_t i = 0; i < columns; ++i) bases[i] = static_cast<uint8_t>((sums[i] + rows / 2) / rows);
}

inline void MeanRowsLoop(const uint8_t* plane, Shape shape, uint8_t* bases) {
  for (size_t row = 0; row < shape.rows; ++row, plane += shape.columns) {
    uint32_t sum = 0;
    for (size_t i = 0; i < shape.columns; ++i) sum += plane[i];
    bases[row] = static_cast<uint8_t>((sum + shape.columns / 2) / shape.columns);
  }
}

template <bool kAdd>
void MoveColumnsLoop(uint8_t* __restrict plane, Shape shape, const uint8_t* __restrict bases) {
  for (size_t row = 0; row < shape.rows; ++row, plane += shape.columns) {
    for (size_t i = 0; i < shape.columns; ++i) {
      plane[i] = static_cast<uint8_t>(kAdd ? plane[i] + bases[i] : plane[i] - bases[i]);
    }
  }
}

template <bool kAdd>
void MoveRowsLoop(uint8_t* plane, Shape shape, const uint8_t* bases) {
  for (size_t row = 0; row < shape.rows; ++row, plane += shape.columns) {
    const uint8_t base = bases[row];
    for (size_t i = 0; i < shape.columns; ++i) {
      plane[i] = static_cast<uint8_t>(kAdd ? plane[i] + base : plane[i] - base);
    }
  }
}

// Merges write past the caches, in whole lines: who decodes a payload does not read it at once.  An
// odd address cannot.
inline bool Streams(const uint8_t* elements) {
  return reinterpret_cast<uintptr_t>(elements) % 2 == 0;
}

// Elements before the first whole line.
inline size_t StreamHead(const uint8_t* elements, size_t count) {
  constexpr size_t kLineBytes = 64;
  const size_t past = reinterpret_cast<uintptr_t>(elements) % kLineBytes;
  return std::min(count, (kLineBytes - past) % kLineBytes / 2);
}

using Hash = decltype(Variant::hash);
using Split = decltype(Variant::split);
using Merge = decltype(Variant::merge);

constexpr Variant MakeVariant(const char* name, Split split, Merge merge, Hash hash) {
  return {name,
          split,
          merge,
          MeanColumnsLoop,
          MeanRowsLoop,
          MoveColumnsLoop<false>,
          MoveColumnsLoop<true>,
          MoveRowsLoop<false>,
          MoveRowsLoop<true>,
          hash};
}

}  // namespace
}  // namespace terrace::planes
