// Compiled with -mavx512f: nothing here runs before SupportedVariants() has asked the CPU.

#include "storage/record/copy_hash_variants.h"

#if defined(__x86_64__)

#include "storage/record/leaf_kernel.h"

namespace terrace::copy_hash {
namespace {

// Some intrinsics are written in their zero-masked form with every lane selected: the same
// instruction, but gcc 12 warns of an uninitialised value inside the unmasked one.
constexpr __mmask8 kAll8 = 0xff;
constexpr __mmask16 kAll16 = 0xffff;

struct Avx512 {
  struct Stripe {
    __m512i words;
  };

  static __m512i Multiply(__m512i a, __m512i b) { return _mm512_maskz_mul_epu32(kAll8, a, b); }

  static Stripe Load(const uint8_t* from) { return {_mm512_loadu_si512(from)}; }

  static void Stream(uint8_t* to, Stripe data) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), data.words);
  }

  static Stripe Accumulate(Stripe lanes, Stripe data, const uint8_t* secret) {
    const __m512i keyed = _mm512_xor_si512(data.words, _mm512_loadu_si512(secret));
    const __m512i product = Multiply(keyed, _mm512_maskz_srli_epi64(kAll8, keyed, 32));
    const __m512i swapped = _mm512_maskz_shuffle_epi32(kAll16, data.words, _MM_PERM_BADC);
    return {_mm512_add_epi64(product, _mm512_add_epi64(lanes.words, swapped))};
  }

  static Stripe Scramble(Stripe lanes, const uint8_t* secret) {
    const __m512i prime = _mm512_set1_epi64(static_cast<int64_t>(kPrime32x1));
    const __m512i folded =
        _mm512_xor_si512(lanes.words, _mm512_maskz_srli_epi64(kAll8, lanes.words, 47));
    const __m512i keyed = _mm512_xor_si512(folded, _mm512_loadu_si512(secret));
    const __m512i high = Multiply(_mm512_maskz_srli_epi64(kAll8, keyed, 32), prime);
    return {_mm512_add_epi64(Multiply(keyed, prime), _mm512_maskz_slli_epi64(kAll8, high, 32))};
  }

  static void Spill(uint64_t words[8], Stripe lanes) { _mm512_store_si512(words, lanes.words); }
};

}  // namespace

const Variant kAvx512 = {"avx512", Kernel<Avx512, false>::CopyAndHash,
                         Kernel<Avx512, false>::HashLeaves, Kernel<Avx512, false>::Copy};
const Variant kAvx512Interleaved = {"avx512-interleaved", Kernel<Avx512, true>::CopyAndHash,
                                    Kernel<Avx512, true>::HashLeaves, Kernel<Avx512, true>::Copy};

}  // namespace terrace::copy_hash

#endif
