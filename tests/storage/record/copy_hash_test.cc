#include "storage/record/copy_hash.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "proto/shm/record_layout.h"
#include "storage/base/limits.h"
#include "storage/record/copy_hash_variants.h"

namespace terrace {
namespace {

using copy_hash::Variant;

constexpr size_t kLargest = 2 * kMiB + 64 * kKiB;
constexpr uint8_t kUntouched = 0xA5;
constexpr uint64_t kNoLeaf = 0x5A5A5A5A5A5A5A5A;

class CopyHash : public testing::TestWithParam<Variant> {
 protected:
  void SetUp() override {
    const uint64_t seed = std::random_device()();
    RecordProperty("seed", std::to_string(seed));
    std::printf("seed %lu\n", static_cast<unsigned long>(seed));
    random_.seed(seed);
    source_.resize(kLargest + 4096);
    for (uint8_t& byte : source_) byte = static_cast<uint8_t>(random_());
    destination_.resize(kLargest + 4096);
  }

  uint8_t* destination() {
    uint8_t* const at = destination_.data();
    return at + (64 - reinterpret_cast<uintptr_t>(at) % 64) % 64;
  }

  // Hashes by the library, each leaf by itself.
  static std::vector<uint64_t> Expected(const uint8_t* source, size_t bytes) {
    std::vector<uint64_t> leaves;
    for (size_t at = 0; at < bytes; at += shm::kLeafBytes) {
      leaves.push_back(XXH3_64bits(source + at, std::min<size_t>(shm::kLeafBytes, bytes - at)));
    }
    return leaves;
  }

  // Bytes, leaves, and that nothing behind either was written.
  void ExpectSame(size_t bytes, size_t misalignment) {
    SCOPED_TRACE(std::to_string(bytes) + " bytes, source off by " + std::to_string(misalignment));
    const uint8_t* const source = source_.data() + misalignment;
    const std::vector<uint64_t> expected = Expected(source, bytes);

    std::vector<uint64_t> leaves(expected.size() + 1, kNoLeaf);
    std::memset(destination(), kUntouched, bytes + 64);
    GetParam().copy_and_hash(destination(), source, bytes, leaves.data());
    ExpectCopied(source, bytes);
    EXPECT_EQ(leaves.back(), kNoLeaf);
    leaves.pop_back();
    EXPECT_EQ(leaves, expected);

    leaves.assign(expected.size() + 1, kNoLeaf);
    GetParam().hash_leaves(source, bytes, leaves.data());
    EXPECT_EQ(leaves.back(), kNoLeaf);
    leaves.pop_back();
    EXPECT_EQ(leaves, expected);

    std::memset(destination(), kUntouched, bytes + 64);
    GetParam().copy(destination(), source, bytes);
    ExpectCopied(source, bytes);
  }

  void ExpectCopied(const uint8_t* source, size_t bytes) {
    EXPECT_EQ(std::memcmp(destination(), source, bytes), 0);
    const uint8_t* const behind = destination() + bytes;
    EXPECT_TRUE(std::all_of(behind, behind + 64, [](uint8_t b) { return b == kUntouched; }));
  }

  std::mt19937_64 random_;
  std::vector<uint8_t> source_;
  std::vector<uint8_t> destination_;
};

TEST_P(CopyHash, EdgeSizesEqualLibraryAndMemcpy) {
  for (const size_t bytes : {size_t{1},
                             size_t{63},
                             size_t{64},
                             size_t{65},
                             size_t{239},
                             size_t{240},
                             size_t{241},
                             size_t{255},
                             size_t{1023},
                             size_t{1024},
                             size_t{1025},
                             size_t{1088},
                             size_t{4095},
                             size_t{4096},
                             size_t{16384},
                             size_t{65535},
                             size_t{65536},
                             size_t{65537},
                             size_t{4 * 65536 - 1},
                             size_t{4 * 65536},
                             size_t{4 * 65536 + 1},
                             size_t{5 * 65536},
                             size_t{kMiB},
                             size_t{kMiB + 5},
                             kLargest}) {
    for (const size_t misalignment : {size_t{0}, size_t{1}, size_t{8}, size_t{63}}) {
      ExpectSame(bytes, misalignment);
    }
  }
}

TEST_P(CopyHash, RandomSizesEqualLibraryAndMemcpy) {
  for (int round = 0; round < 60; ++round) {
    const size_t bytes = random_() % (round % 2 == 0 ? 8 * kKiB : kLargest) + 1;
    ExpectSame(bytes, random_() % 64);
  }
}

TEST_P(CopyHash, OneChangedByteChangesItsLeafOnly) {
  const size_t bytes = 5 * shm::kLeafBytes + 100;
  const std::vector<uint64_t> before = Expected(source_.data(), bytes);
  source_[3 * shm::kLeafBytes + 17] ^= 1;
  std::vector<uint64_t> after(before.size());
  GetParam().copy_and_hash(destination(), source_.data(), bytes, after.data());
  for (size_t leaf = 0; leaf < before.size(); ++leaf) {
    EXPECT_EQ(before[leaf] == after[leaf], leaf != 3) << leaf;
  }
}

// Prefetches reach past the end; loads must not.
TEST_P(CopyHash, SourceMayEndAtAnUnmappedPage) {
  const size_t bytes = 5 * shm::kLeafBytes;
  void* const mapped =
      mmap(nullptr, bytes + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(mapped, MAP_FAILED);
  uint8_t* const end = static_cast<uint8_t*>(mapped) + bytes;
  std::memcpy(mapped, source_.data(), bytes);
  ASSERT_EQ(mprotect(end, 4096, PROT_NONE), 0);
  for (const size_t length : {size_t{1}, size_t{64}, size_t{241}, size_t{5000}, bytes}) {
    std::vector<uint64_t> leaves(shm::LeafCount(length));
    GetParam().copy_and_hash(destination(), end - length, length, leaves.data());
    EXPECT_EQ(leaves, Expected(end - length, length)) << length;
  }
  ASSERT_EQ(munmap(mapped, bytes + 4096), 0);
}

INSTANTIATE_TEST_SUITE_P(Variants, CopyHash,
                         testing::ValuesIn(copy_hash::SupportedVariants().begin(),
                                           copy_hash::SupportedVariants().end()),
                         [](const testing::TestParamInfo<Variant>& variant) {
                           std::string name = variant.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(CopyHashChoice, FirstSupportedIsUsedAndPortableIsLast) {
  const auto supported = copy_hash::SupportedVariants();
  ASSERT_FALSE(supported.empty());
  EXPECT_EQ(CopyHashVariant(), supported.front().name);
  EXPECT_STREQ(supported.back().name, "portable");
  std::set<std::string> names;
  for (const Variant& variant : supported) names.insert(variant.name);
  EXPECT_EQ(names.size(), supported.size());
}

TEST(CopyHashChoice, PublicFunctionsGiveTheSameBytesAndLeaves) {
  const size_t bytes = 2 * shm::kLeafBytes + 7;
  const std::vector<uint8_t> source(bytes, 0x3C);
  std::vector<uint8_t> room(2 * bytes + 128);
  uint8_t* const first = room.data() + (64 - reinterpret_cast<uintptr_t>(room.data()) % 64) % 64;
  uint8_t* const second = first + (bytes + 63) / 64 * 64;
  uint64_t copied[3];
  uint64_t hashed[3];
  CopyAndHash(first, source.data(), bytes, copied);
  HashLeaves(source.data(), bytes, hashed);
  NonTemporalCopy(second, source.data(), bytes);
  EXPECT_EQ(std::memcmp(copied, hashed, sizeof(copied)), 0);
  EXPECT_EQ(copied[2], XXH3_64bits(source.data(), 7));
  EXPECT_EQ(std::memcmp(first, source.data(), bytes), 0);
  EXPECT_EQ(std::memcmp(second, source.data(), bytes), 0);
}

}  // namespace
}  // namespace terrace
