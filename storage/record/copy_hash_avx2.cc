// Compiled with -mavx2: nothing here runs before SupportedVariants() has asked the CPU.

#include "storage/record/copy_hash_variants.h"

#if defined(__x86_64__)

#include "storage/record/leaf_kernel.h"

namespace terrace::copy_hash {
namespace {

struct Avx2 {
  struct Stripe {
    __m256i low;
    __m256i high;
  };

  static __m256i LoadHalf(const uint8_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static Stripe Load(const uint8_t* from) { return {LoadHalf(from), LoadHalf(from + 32)}; }

  static void Stream(uint8_t* to, Stripe data) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to), data.low);
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + 32), data.high);
  }

  static __m256i AccumulateHalf(__m256i lanes, __m256i data, const uint8_t* secret) {
    const __m256i keyed = _mm256_xor_si256(data, LoadHalf(secret));
    const __m256i product = _mm256_mul_epu32(keyed, _mm256_srli_epi64(keyed, 32));
    const __m256i swapped = _mm256_shuffle_epi32(data, _MM_SHUFFLE(1, 0, 3, 2));
    return _mm256_add_epi64(product, _mm256_add_epi64(lanes, swapped));
  }
  static Stripe Accumulate(Stripe lanes, Stripe data, const uint8_t* secret) {
    return {AccumulateHalf(lanes.low, data.low, secret),
            AccumulateHalf(lanes.high, data.high, secret + 32)};
  }

  static __m256i ScrambleHalf(__m256i lanes, const uint8_t* secret) {
    const __m256i prime = _mm256_set1_epi64x(static_cast<int64_t>(kPrime32x1));
    const __m256i mixed =
        _mm256_xor_si256(_mm256_xor_si256(lanes, _mm256_srli_epi64(lanes, 47)), LoadHalf(secret));
    const __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(mixed, 32), prime);
    return _mm256_add_epi64(_mm256_mul_epu32(mixed, prime), _mm256_slli_epi64(high, 32));
  }
  static Stripe Scramble(Stripe lanes, const uint8_t* secret) {
    return {ScrambleHalf(lanes.low, secret), ScrambleHalf(lanes.high, secret + 32)};
  }

  static void Spill(uint64_t words[8], Stripe lanes) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(words), lanes.low);
    _mm256_store_si256(reinterpret_cast<__m256i*>(words + 4), lanes.high);
  }
};

}  // namespace

const Variant kAvx2 = {"avx2", Kernel<Avx2, false>::CopyAndHash, Kernel<Avx2, false>::HashLeaves,
                       Kernel<Avx2, false>::Copy};

}  // namespace terrace::copy_hash

#endif
