// Compiled with -mavx2: nothing here runs before SupportedVariants() has asked the CPU.

#include "storage/codec/planes_variants.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include "storage/codec/hash_inline.h"
#include "storage/codec/planes_loops.h"

namespace terrace::planes {
namespace {

constexpr size_t kStep = 32;                  // elements
constexpr int kQuartersInOrder = 0b11011000;  // undoes the pack's interleaving of 128-bit lanes

__m256i Load(const uint8_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
void Store(uint8_t* to, __m256i bytes) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bytes);
}
__m256i RotateLeft(__m256i words) {
  return _mm256_or_si256(_mm256_slli_epi16(words, 1), _mm256_srli_epi16(words, 15));
}
__m256i RotateRight(__m256i words) {
  return _mm256_or_si256(_mm256_srli_epi16(words, 1), _mm256_slli_epi16(words, 15));
}

void SplitAvx2(const uint8_t* elements, size_t count, uint8_t* high, uint8_t* low) {
  const __m256i low_bytes = _mm256_set1_epi16(0xFF);
  size_t i = 0;
  for (; count - i >= kStep; i += kStep) {
    const __m256i a = RotateLeft(Load(elements + 2 * i));
    const __m256i b = RotateLeft(Load(elements + 2 * i + 32));
    const __m256i highs = _mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8));
    const __m256i lows =
        _mm256_packus_epi16(_mm256_and_si256(a, low_bytes), _mm256_and_si256(b, low_bytes));
    Store(high + i, _mm256_permute4x64_epi64(highs, kQuartersInOrder));
    Store(low + i, _mm256_permute4x64_epi64(lows, kQuartersInOrder));
  }
  SplitLoop(elements + 2 * i, count - i, high + i, low + i);
}

template <bool kStream>
void StoreMerged(uint8_t* to, __m256i words) {
  if constexpr (kStream) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to), words);
  } else {
    Store(to, words);
  }
}

template <bool kStream>
size_t MergeSteps(const uint8_t* high, const uint8_t* low, size_t count, uint8_t* elements) {
  size_t i = 0;
  for (; count - i >= kStep; i += kStep) {
    const __m256i highs = Load(high + i);
    const __m256i lows = Load(low + i);
    const __m256i a = RotateRight(_mm256_unpacklo_epi8(lows, highs));
    const __m256i b = RotateRight(_mm256_unpackhi_epi8(lows, highs));
    StoreMerged<kStream>(elements + 2 * i, _mm256_permute2x128_si256(a, b, 0x20));
    StoreMerged<kStream>(elements + 2 * i + 32, _mm256_permute2x128_si256(a, b, 0x31));
  }
  if constexpr (kStream) _mm_sfence();
  return i;
}

void MergeAvx2(const uint8_t* high, const uint8_t* low, size_t count, uint8_t* elements) {
  const size_t head = StreamHead(elements, count);
  MergeLoop(high, low, head, elements);
  size_t i = head;
  if (Streams(elements)) {
    i += MergeSteps<true>(high + i, low + i, count - i, elements + 2 * i);
  } else {
    i += MergeSteps<false>(high + i, low + i, count - i, elements + 2 * i);
  }
  MergeLoop(high + i, low + i, count - i, elements + 2 * i);
}

}  // namespace

const Variant kAvx2 = MakeVariant("avx2", SplitAvx2, MergeAvx2, HashInline);

}  // namespace terrace::planes

#endif
