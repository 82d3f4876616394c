#include "storage/catalog/catalog_rows.h"

#include <gtest/gtest.h>

#include <cstring>

namespace terrace {
namespace {

using catalog::Kind;

std::string Hex(const std::string& bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char byte : bytes) {
    text.push_back(kDigits[static_cast<uint8_t>(byte) >> 4]);
    text.push_back(kDigits[static_cast<uint8_t>(byte) & 15]);
  }
  return text;
}

ChunkName SomeName() {
  return {.tenant = 2, .namespace_id = 0x01020304, .key = shm::ChunkKey::FromBytes("abc", 3, 9)};
}

ChunkRow SomeRow() {
  ChunkRow row;
  row.place = {.sequence = 0x1122334455667788, .segment = 5, .offset_units = 6};
  row.device = 7;
  row.payload_bytes = 8;
  row.stored_bytes = 9;
  row.header_checksum = 0xa1a2a3a4a5a6a7a8;
  row.attributes = "xyz";
  return row;
}

TEST(CatalogRows, LieAsTheyAlwaysDid) {
  EXPECT_EQ(Hex(catalog::NameKey(Kind::kChunk, SomeName())),
            "63"
            "00000002"
            "01020304"
            "6162630000000000000000000000000000000000000000000000000000000000"
            "03"
            "0900");
  EXPECT_EQ(Hex(catalog::Value(SomeRow())),
            "8877665544332211"
            "05000000"
            "06000000"
            "a8a7a6a5a4a3a2a1"
            "07000000"
            "08000000"
            "09000000"
            "00000000"
            "78797a");
  EXPECT_EQ(Hex(catalog::Value(GoneRow{.reason = 5, .bytes = 0x01020304, .wall_ns = 2})),
            "0200000000000000"
            "04030201"
            "05");
  EXPECT_EQ(Hex(catalog::NamespaceKey(1, "n")), "6e000000016e");
  EXPECT_EQ(Hex(catalog::Value(
                NamespaceRow{.tenant = 1, .label = "n", .id = 3, .epoch = 4, .spec = "s"})),
            "0400000000000000"
            "03000000"
            "73");
  EXPECT_EQ(Hex(catalog::EnduranceKey(1, 2)), "650000000100000002");
  EXPECT_EQ(Hex(catalog::NextIdKey(1)), "6900000001");
  EXPECT_EQ(Hex(catalog::TenantKey("t")), "7474");
  EXPECT_EQ(Hex(catalog::HistoryPrefix(5)), "6800000005");
}

TEST(CatalogRows, ComeBackFromTheirBytes) {
  ChunkName name;
  ChunkRow row;
  ASSERT_TRUE(catalog::Parse(catalog::NameKey(Kind::kChunk, SomeName()), catalog::Value(SomeRow()),
                             &name, &row));
  EXPECT_EQ(name, SomeName());
  EXPECT_EQ(row, SomeRow());

  const NamespaceRow space{.tenant = 1, .label = "label", .id = 3, .epoch = 4, .spec = "spec"};
  NamespaceRow space_back;
  ASSERT_TRUE(
      catalog::Parse(catalog::NamespaceKey(1, "label"), catalog::Value(space), &space_back));
  EXPECT_EQ(space_back, space);

  const LeaseRow lease{.name = SomeName(), .until_wall_ns = -5};
  LeaseRow lease_back;
  ASSERT_TRUE(catalog::Parse(catalog::NameKey(Kind::kLease, SomeName()), catalog::Value(lease),
                             &lease_back));
  EXPECT_EQ(lease_back, lease);

  const EnduranceRow endurance{.device = 1, .day = 20000, .written_bytes = 1ull << 50};
  EnduranceRow endurance_back;
  ASSERT_TRUE(
      catalog::Parse(catalog::EnduranceKey(1, 20000), catalog::Value(endurance), &endurance_back));
  EXPECT_EQ(endurance_back, endurance);
}

TEST(CatalogRows, RefuseBytesOfNoRow) {
  ChunkName name;
  ChunkRow row;
  const std::string key = catalog::NameKey(Kind::kChunk, SomeName());
  const std::string value = catalog::Value(SomeRow());
  EXPECT_FALSE(catalog::Parse(key.substr(0, key.size() - 1), value, &name, &row));
  EXPECT_FALSE(catalog::Parse(key, value.substr(0, 39), &name, &row));
  std::string long_key = key;
  long_key[41] = 34;  // its length
  EXPECT_FALSE(catalog::Parse(long_key, value, &name, &row));
  std::string unpadded = key;
  unpadded[9 + 3] = 'd';
  EXPECT_FALSE(catalog::Parse(unpadded, value, &name, &row));
  GoneRow gone;
  EXPECT_TRUE(catalog::Parse(catalog::Value(GoneRow{}), &gone));
  EXPECT_FALSE(catalog::Parse(catalog::Value(GoneRow{.reason = 0}), &gone));
  EXPECT_FALSE(catalog::Parse(catalog::Value(GoneRow{}) + "x", &gone));
}

TEST(CatalogRows, PrefixesEndWhereTheNextOneBegins) {
  EXPECT_EQ(catalog::PrefixEnd(catalog::ChunkPrefix(1, 2)), catalog::ChunkPrefix(1, 3));
  EXPECT_EQ(Hex(catalog::PrefixEnd(catalog::ChunkPrefix(1, 0xffffffff))), "6300000002");
  EXPECT_EQ(catalog::PrefixEnd(catalog::ChunkPrefix(0xffffffff, 0xffffffff)),
            catalog::KindEnd(Kind::kChunk));
  // Big-endian in keys: so is their order.
  EXPECT_LT(catalog::ChunkPrefix(1, 255), catalog::ChunkPrefix(1, 256));
}

}  // namespace
}  // namespace terrace
