// Compiled with -mavx512f -mavx512bw: nothing here runs before SupportedVariants() has asked the
// CPU.

#include "storage/codec/planes_variants.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include "storage/codec/hash_inline.h"
#include "storage/codec/planes_loops.h"

namespace terrace::planes {
namespace {

// The zero-masked forms with every lane selected are the same instructions, but gcc 12 warns of an
// uninitialised value inside some of the unmasked ones.
constexpr __mmask32 kAll = 0xFFFFFFFF;
constexpr size_t kStep = 32;  // elements

__m256i LoadBytes(const uint8_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
void StoreBytes(uint8_t* to, __m256i bytes) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bytes);
}
template <unsigned kBits>
__m512i Left(__m512i words) {
  return _mm512_maskz_slli_epi16(kAll, words, kBits);
}
template <unsigned kBits>
__m512i Right(__m512i words) {
  return _mm512_maskz_srli_epi16(kAll, words, kBits);
}

void SplitAvx512(const uint8_t* elements, size_t count, uint8_t* high, uint8_t* low) {
  size_t i = 0;
  for (; count - i >= kStep; i += kStep) {
    const __m512i words = _mm512_loadu_si512(elements + 2 * i);
    StoreBytes(high + i, _mm512_maskz_cvtepi16_epi8(kAll, Right<7>(words)));
    const __m512i rotated = _mm512_or_si512(Left<1>(words), Right<15>(words));
    StoreBytes(low + i, _mm512_maskz_cvtepi16_epi8(kAll, rotated));
  }
  SplitLoop(elements + 2 * i, count - i, high + i, low + i);
}

__m512i MergeWords(const uint8_t* high, const uint8_t* low) {
  const __m512i highs = Left<8>(_mm512_maskz_cvtepu8_epi16(kAll, LoadBytes(high)));
  const __m512i lows = _mm512_maskz_cvtepu8_epi16(kAll, LoadBytes(low));
  const __m512i rotated = _mm512_or_si512(highs, lows);
  return _mm512_or_si512(Right<1>(rotated), Left<15>(rotated));
}

template <bool kStream>
size_t MergeSteps(const uint8_t* high, const uint8_t* low, size_t count, uint8_t* elements) {
  size_t i = 0;
  for (; count - i >= kStep; i += kStep) {
    const __m512i words = MergeWords(high + i, low + i);
    if constexpr (kStream) {
      _mm512_stream_si512(reinterpret_cast<__m512i*>(elements + 2 * i), words);
    } else {
      _mm512_storeu_si512(elements + 2 * i, words);
    }
  }
  if constexpr (kStream) _mm_sfence();
  return i;
}

void MergeAvx512(const uint8_t* high, const uint8_t* low, size_t count, uint8_t* elements) {
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

const Variant kAvx512 = MakeVariant("avx512", SplitAvx512, MergeAvx512, HashInline);

}  // namespace terrace::planes

#endif
