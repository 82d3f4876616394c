#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <string>
#include <string_view>

#include "client/core/client.h"

namespace terrace {
namespace {

std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

TEST(MakeKey, ShortKeysAreTheirBytes) {
  const Result<shm::ChunkKey> key = MakeKey(Bytes("abc"), 5);
  ASSERT_TRUE(key.ok());
  EXPECT_EQ(key->length, 3);
  EXPECT_EQ(key->part, 5);
  EXPECT_EQ(key->words[0], 0x636261u);
  EXPECT_TRUE(key->zero_padded());
}

TEST(MakeKey, LongKeysAreTheirSha256) {
  const std::string text(33, 'a');
  const Result<shm::ChunkKey> key = MakeKey(Bytes(text));
  ASSERT_TRUE(key.ok());
  EXPECT_EQ(key->length, shm::kKeyLengthHashed);
  // printf 'a%.0s' {1..33} | sha256sum
  const std::array<uint8_t, 32> digest{0x85, 0x27, 0x85, 0xc8, 0x05, 0xc7, 0x7e, 0x71,
                                       0xa2, 0x23, 0x40, 0xa5, 0x4e, 0x9d, 0x95, 0x93,
                                       0x3e, 0xd4, 0x91, 0x21, 0xe7, 0xd2, 0xbf, 0x3c,
                                       0x2d, 0x35, 0x88, 0x54, 0xbc, 0x13, 0x59, 0xea};
  EXPECT_EQ(std::memcmp(key->bytes(), digest.data(), digest.size()), 0);
}

TEST(MakeKey, ADigestGivenAsAKeyIsAnotherKey) {
  const std::string text(40, 'x');
  const Result<shm::ChunkKey> hashed = MakeKey(Bytes(text));
  ASSERT_TRUE(hashed.ok());
  const Result<shm::ChunkKey> given =
      MakeKey(std::as_bytes(std::span(hashed->bytes(), shm::kKeyBytes)));
  ASSERT_TRUE(given.ok());
  EXPECT_EQ(given->words, hashed->words);
  EXPECT_NE(*given, *hashed);
}

TEST(MakeKey, AnEmptyKeyIsInvalid) { EXPECT_EQ(MakeKey({}).status().code(), StatusCode::kInvalid); }

}  // namespace
}  // namespace terrace
