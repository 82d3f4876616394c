#include "storage/record/record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <xxhash.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "storage/record/copy_hash.h"

namespace terrace {
namespace {

using shm::RecordHeader;
using testing::HasSubstr;

RecordIdentity Sample() {
  RecordIdentity identity;
  identity.key = shm::ChunkKey::FromBytes("terrace golden", 14, 0x0203);
  identity.namespace_id = 0x11223344;
  identity.payload_bytes = 2 * shm::kLeafBytes + 1;
  return identity;
}

constexpr uint64_t kSampleLeaves[3] = {0x0102030405060708, 0x1112131415161718, 0x2122232425262728};

RecordHeader SampleHeader() {
  RecordHeader header;
  BuildHeader(Sample(), kSampleLeaves, &header);
  return header;
}

// As a forger would: any field, and the checksum that goes with it.
RecordHeader Forged(const std::function<void(RecordHeader&)>& change) {
  RecordHeader header = SampleHeader();
  change(header);
  header.header_checksum = 0;
  header.header_checksum = XXH3_64bits(&header, sizeof(header));
  return header;
}

std::string Hex(const void* bytes, size_t count) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (size_t i = 0; i < count; ++i) {
    const uint8_t byte = static_cast<const uint8_t*>(bytes)[i];
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

void ExpectCorrupt(const Status& status, const std::string& names) {
  EXPECT_EQ(status.code(), StatusCode::kCorrupt);
  EXPECT_THAT(status.message(), HasSubstr(names));
}

TEST(RecordHeader, BytesAreGolden) {
  RecordHeader header;
  std::memset(&header, 0xEE, sizeof(header));  // BuildHeader owes every byte
  BuildHeader(Sample(), kSampleLeaves, &header);
  EXPECT_EQ(Hex(&header, 16),
            "5452524543524431"
            "0100"
            "01"
            "0e"
            "0302"
            "0000");
  EXPECT_EQ(Hex(header.key, 32),
            "7465727261636520676f6c64656e"
            "0000"
            "00000000000000000000000000000000");
  EXPECT_EQ(Hex(&header.namespace_id, 16),
            "44332211"
            "01000200"
            "01000200"
            "03000000");
  EXPECT_EQ(Hex(&header.log_sequence, 24), std::string(48, '0'));
  EXPECT_EQ(Hex(&header.header_checksum, 8), "540ee3d3dddf1254");
  EXPECT_EQ(Hex(header.leaves, 24),
            "0807060504030201"
            "1817161514131211"
            "2827262524232221");
  const uint8_t* const behind = reinterpret_cast<const uint8_t*>(header.leaves + 3);
  const uint8_t* const end = reinterpret_cast<const uint8_t*>(&header + 1);
  EXPECT_TRUE(std::all_of(behind, end, [](uint8_t byte) { return byte == 0; }));
}

constexpr LogPlace kPlace{
    .sequence = 0x0102030405060708, .segment = 0x11121314, .offset_units = 0x21222324};

TEST(RecordHeader, PlacedBytesAreGolden) {
  RecordHeader header = SampleHeader();
  PlaceHeader(kPlace, 7, &header);
  EXPECT_EQ(Hex(&header.log_sequence, 24),
            "0807060504030201"
            "14131211"
            "24232221"
            "0000000000000000");
  EXPECT_EQ(Hex(&header.append_number, 8), "0700000000000000");
  EXPECT_EQ(Hex(&header.header_checksum, 8), "3e6b55ab545dd0a9");
}

TEST(RecordHeader, PlacedIsRefusedInDramAndAtAnyOtherPlace) {
  RecordHeader header = SampleHeader();
  ExpectCorrupt(CheckHeader(header, kPlace), "log_sequence is 0");
  PlaceHeader(kPlace, 7, &header);
  EXPECT_TRUE(CheckHeader(header, kPlace).ok());
  EXPECT_TRUE(ValidateHeader(header, Sample(), kPlace).ok());
  ExpectCorrupt(CheckHeader(header), "log_sequence");
  ExpectCorrupt(ValidateHeader(header, Sample()), "log_sequence");
  LogPlace other = kPlace;
  ++other.sequence;
  ExpectCorrupt(CheckHeader(header, other), "log_sequence");
  other = kPlace;
  ++other.segment;
  ExpectCorrupt(ValidateHeader(header, Sample(), other), "log_segment");
  other = kPlace;
  ++other.offset_units;
  ExpectCorrupt(ValidateHeader(header, Sample(), other), "log_offset_units");
  RecordIdentity identity = Sample();
  identity.key.part = 7;
  ExpectCorrupt(ValidateHeader(header, identity, kPlace), "part is 515, expected 7");
}

TEST(RecordHeader, ValidatesForItsIdentity) {
  const RecordHeader header = SampleHeader();
  EXPECT_TRUE(CheckHeader(header).ok());
  EXPECT_TRUE(ValidateHeader(header, Sample()).ok());
  EXPECT_EQ(IdentityOf(header), Sample());
}

TEST(RecordHeader, EveryFlippedByteIsRefused) {
  RecordHeader header = SampleHeader();
  uint8_t* const bytes = reinterpret_cast<uint8_t*>(&header);
  for (size_t i = 0; i < sizeof(header); ++i) {
    for (const uint8_t flip : {uint8_t{0x01}, uint8_t{0x80}, uint8_t{0xFF}}) {
      bytes[i] ^= flip;
      EXPECT_EQ(CheckHeader(header).code(), StatusCode::kCorrupt) << "byte " << i;
      EXPECT_EQ(ValidateHeader(header, Sample()).code(), StatusCode::kCorrupt) << "byte " << i;
      bytes[i] ^= flip;
    }
  }
  EXPECT_TRUE(ValidateHeader(header, Sample()).ok());
}

TEST(RecordHeader, EmptyMemoryIsRefused) {
  RecordHeader header;
  std::memset(&header, 0, sizeof(header));
  ExpectCorrupt(CheckHeader(header), "magic");
}

TEST(RecordHeader, AnotherIdentityIsRefusedByName) {
  const RecordHeader header = SampleHeader();
  RecordIdentity other = Sample();
  other.namespace_id = 9;
  ExpectCorrupt(ValidateHeader(header, other), "namespace is 287454020, expected 9");
  other = Sample();
  other.key.part = 7;
  ExpectCorrupt(ValidateHeader(header, other), "part is 515, expected 7");
  other = Sample();
  other.key.length = 15;
  ExpectCorrupt(ValidateHeader(header, other), "key length is 14, expected 15");
  other = Sample();
  other.key.words[0] ^= 1;
  ExpectCorrupt(ValidateHeader(header, other), "key differs");
  other = Sample();
  other.payload_bytes = 4096;
  ExpectCorrupt(ValidateHeader(header, other), "payload_bytes is 131073, expected 4096");
}

TEST(RecordHeader, HashedKeyNeverEqualsAKeyOfTheSameBytes) {
  const std::string bytes(32, 'k');
  RecordIdentity plain = Sample();
  plain.key = shm::ChunkKey::FromBytes(bytes.data(), 32, 0);
  RecordIdentity hashed = plain;
  hashed.key.length = shm::kKeyLengthHashed;
  RecordHeader header;
  BuildHeader(hashed, kSampleLeaves, &header);
  EXPECT_TRUE(ValidateHeader(header, hashed).ok());
  ExpectCorrupt(ValidateHeader(header, plain), "key length");
}

TEST(RecordHeader, ForgedFieldsAreRefusedByName) {
  const auto forged = [](const std::function<void(RecordHeader&)>& change) {
    return CheckHeader(Forged(change));
  };
  ASSERT_TRUE(forged([](RecordHeader&) {}).ok());
  ExpectCorrupt(forged([](RecordHeader& h) { h.version = 2; }), "version is 2, expected 1");
  ExpectCorrupt(forged([](RecordHeader& h) { h.hash_algorithm = 2; }), "hash algorithm 2");
  ExpectCorrupt(forged([](RecordHeader& h) { h.codec = 1; }), "codec 1 outside a log");
  ExpectCorrupt(forged([](RecordHeader& h) { h.codec = 2; }), "codec 2");
  ExpectCorrupt(forged([](RecordHeader& h) { h.key_length = 0; }), "key length 0");
  ExpectCorrupt(forged([](RecordHeader& h) { h.key_length = 34; }), "key length 34");
  ExpectCorrupt(forged([](RecordHeader& h) { h.key_length = 13; }), "zero past its length");
  ExpectCorrupt(forged([](RecordHeader& h) { h.payload_bytes = h.stored_bytes = 0; }),
                "payload_bytes 0");
  ExpectCorrupt(forged([](RecordHeader& h) {
                  h.payload_bytes = h.stored_bytes = shm::kPayloadBytesMax + 1;
                  h.leaf_count = shm::kLeafCountMax + 1;
                }),
                "payload_bytes 16777217");
  ExpectCorrupt(forged([](RecordHeader& h) { h.stored_bytes = 5; }), "stored_bytes is 5");
  ExpectCorrupt(forged([](RecordHeader& h) { h.leaf_count = 0xFFFFFFFF; }), "leaf_count");
  ExpectCorrupt(forged([](RecordHeader& h) { h.log_sequence = 1; }), "log_sequence is 1");
  ExpectCorrupt(forged([](RecordHeader& h) { h.log_segment = 1; }), "log_segment is 1");
  ExpectCorrupt(forged([](RecordHeader& h) { h.log_offset_units = 1; }), "log_offset_units is 1");
  ExpectCorrupt(forged([](RecordHeader& h) { h.seal = 1; }), "seal");
  ExpectCorrupt(forged([](RecordHeader& h) { h.leaves[3] = 1; }), "leaf table");
  ExpectCorrupt(forged([](RecordHeader& h) { h.append_number = 1; }), "append_number");
  ExpectCorrupt(forged([](RecordHeader& h) { h.padding[1943] = 1; }), "leaf table");
}

TEST(RecordHeader, OfAnEncodedPayloadIsTakenInALogAlone) {
  RecordHeader sealed = SampleHeader();
  SealHeader({.stored_bytes = 90'000, .seal = 0x0123456789abcdef}, &sealed);
  ExpectCorrupt(CheckHeader(sealed), "codec 1 outside a log");
  PlaceHeader(kPlace, 7, &sealed);
  EXPECT_TRUE(ValidateHeader(sealed, Sample(), kPlace).ok());
  EXPECT_EQ(sealed.codec, shm::kCodecFrames);
  EXPECT_EQ(sealed.leaves[0], kSampleLeaves[0]);
  const auto forged = [&](const std::function<void(RecordHeader&)>& change) {
    RecordHeader header = sealed;
    change(header);
    PlaceHeader(kPlace, 7, &header);  // with its checksum
    return CheckHeader(header, kPlace);
  };
  EXPECT_TRUE(forged([](RecordHeader& h) { h.seal = 0; }).ok());
  ExpectCorrupt(forged([](RecordHeader& h) { h.codec = 2; }), "codec 2");
  ExpectCorrupt(forged([](RecordHeader& h) { h.codec = 0; }), "stored_bytes is 90000");
  ExpectCorrupt(forged([](RecordHeader& h) { h.stored_bytes = h.payload_bytes; }),
                "encoded stored_bytes 131073");
  ExpectCorrupt(forged([](RecordHeader& h) { h.stored_bytes = 0; }), "encoded stored_bytes 0");
}

TEST(RecordHeader, SmallestAndLargestPayloadValidate) {
  const std::vector<uint64_t> leaves(shm::kLeafCountMax, 3);
  for (const uint32_t bytes : {uint32_t{1}, shm::kLeafBytes, shm::kPayloadBytesMax}) {
    RecordIdentity identity = Sample();
    identity.payload_bytes = bytes;
    RecordHeader header;
    BuildHeader(identity, leaves.data(), &header);
    EXPECT_TRUE(ValidateHeader(header, identity).ok()) << bytes;
  }
}

class RecordPayload : public testing::Test {
 protected:
  void SetUp() override {
    for (size_t i = 0; i < payload_.size(); ++i) payload_[i] = static_cast<uint8_t>(i * 7 + i / 99);
    HashLeaves(payload_.data(), payload_.size(), leaves_);
  }
  uint32_t bytes() const { return static_cast<uint32_t>(payload_.size()); }

  std::vector<uint8_t> payload_ = std::vector<uint8_t>(3 * shm::kLeafBytes + 11);
  uint64_t leaves_[4] = {};
};

TEST_F(RecordPayload, WholeAndPartsVerify) {
  EXPECT_TRUE(VerifyPayload(payload_.data(), bytes(), leaves_).ok());
  for (uint32_t first = 0; first <= 4; ++first) {
    for (uint32_t count = 0; first + count <= 4; ++count) {
      const LeafRange range{.first = first, .count = count};
      EXPECT_TRUE(VerifyPayload(payload_.data(), bytes(), leaves_, range).ok());
    }
  }
}

TEST_F(RecordPayload, DamageIsNamedByLeafAndSeenInItsRangeOnly) {
  payload_[2 * shm::kLeafBytes] ^= 0x10;
  ExpectCorrupt(VerifyPayload(payload_.data(), bytes(), leaves_), "leaf 2 differs");
  const LeafRange before{.first = 0, .count = 2};
  const LeafRange behind{.first = 3, .count = 1};
  EXPECT_TRUE(VerifyPayload(payload_.data(), bytes(), leaves_, before).ok());
  EXPECT_TRUE(VerifyPayload(payload_.data(), bytes(), leaves_, behind).ok());
}

TEST_F(RecordPayload, LastByteCounts) {
  payload_.back() ^= 1;
  ExpectCorrupt(VerifyPayload(payload_.data(), bytes(), leaves_), "leaf 3 differs");
}

TEST_F(RecordPayload, DamagedTableIsRefused) {
  leaves_[0] ^= 1;
  ExpectCorrupt(VerifyPayload(payload_.data(), bytes(), leaves_), "leaf 0 differs");
}

}  // namespace
}  // namespace terrace
