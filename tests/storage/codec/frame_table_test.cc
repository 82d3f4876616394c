#include "storage/codec/frame_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "storage/codec/decoder.h"
#include "storage/codec/encoder.h"

namespace terrace {
namespace {

using shm::FrameEntry;
using shm::FrameMethod;
using shm::FrameTableHead;
using testing::HasSubstr;

using Bytes = std::vector<uint8_t>;

std::string Hex(std::span<const uint8_t> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const uint8_t byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

Bytes FromHex(const std::string& text) {
  Bytes bytes;
  for (size_t i = 0; i < text.size(); i += 2) {
    bytes.push_back(static_cast<uint8_t>(std::stoul(text.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

Bytes Table(const std::vector<FrameEntry>& entries) {
  FrameTableHead head{.magic = shm::kFrameTableMagic,
                      .version = shm::kFrameTableVersion,
                      .frame_count = static_cast<uint16_t>(entries.size()),
                      .checksum = 0};
  Bytes table(shm::FrameTableBytes(static_cast<uint32_t>(entries.size())));
  std::memcpy(table.data(), &head, sizeof(head));
  for (size_t i = 0; i < entries.size(); ++i) {
    std::memcpy(table.data() + shm::FrameTableBytes(static_cast<uint32_t>(i)), &entries[i],
                sizeof(FrameEntry));
  }
  head.checksum = FrameTableChecksum(table);
  std::memcpy(table.data(), &head, sizeof(head));
  return table;
}

FrameEntry Entry(uint32_t plain, uint32_t stored, FrameMethod method) {
  return {
      .hash = 0x0102030405060708, .stored_bytes = stored, .packed = shm::PackFrame(plain, method)};
}

std::vector<FrameEntry> Sample() {
  return {Entry(1000, 700, FrameMethod::kPlanes), Entry(0x12345, 0x12345, FrameMethod::kRaw),
          Entry(3, 2, FrameMethod::kBytes)};
}
constexpr uint32_t kSamplePlain = 1000 + 0x12345 + 3;
constexpr uint32_t kSampleStored = 64 + 700 + 0x12345 + 2;

TEST(FrameTable, BytesAreGolden) {
  EXPECT_EQ(Hex(Table(Sample())),
            "5452543101000300"
            "ca8fd98459236abc"
            "0807060504030201"
            "bc020000"
            "e8030002"
            "0807060504030201"
            "45230100"
            "45230100"
            "0807060504030201"
            "02000000"
            "03000001");
}

TEST(FrameTable, SumsGiveOffsets) {
  FrameTable table;
  ASSERT_TRUE(table.Parse(Table(Sample()), kSamplePlain, kSampleStored).ok());
  ASSERT_EQ(table.frame_count(), 3u);
  EXPECT_EQ(table.frame(0).plain_offset, 0u);
  EXPECT_EQ(table.frame(0).stored_offset, 64u);
  EXPECT_EQ(table.frame(2).plain_offset, 1000u + 0x12345);
  EXPECT_EQ(table.frame(2).stored_offset, 64u + 700 + 0x12345);
  EXPECT_EQ(table.frame(2).method, FrameMethod::kBytes);
}

TEST(FrameTable, CoveringNamesTheFramesOfARange) {
  FrameTable table;
  ASSERT_TRUE(table.Parse(Table(Sample()), kSamplePlain, kSampleStored).ok());
  const auto expect = [&](uint32_t offset, uint32_t bytes, uint32_t first, uint32_t count) {
    const FrameRange range = table.Covering(offset, bytes);
    EXPECT_EQ(range.first, first) << offset << " " << bytes;
    EXPECT_EQ(range.count, count) << offset << " " << bytes;
  };
  expect(0, 1, 0, 1);
  expect(999, 1, 0, 1);
  expect(999, 2, 0, 2);
  expect(1000, 0x12345, 1, 1);
  expect(kSamplePlain - 1, 1, 2, 1);
  expect(0, kSamplePlain, 0, 3);
}

TEST(FrameTable, WhatNoEncoderWritesIsRefusedByName) {
  FrameTable table;
  const auto expect = [&](std::vector<FrameEntry> entries, const std::string& names) {
    const Status status = table.Parse(Table(entries), kSamplePlain, kSampleStored);
    EXPECT_EQ(status.code(), StatusCode::kCorrupt);
    EXPECT_THAT(status.message(), HasSubstr(names));
  };
  auto entries = Sample();
  entries[0].packed = 1000 | 5u << 24;
  expect(entries, "frame 0 has method 5");
  entries = Sample();
  entries[1].packed = 0;
  expect(entries, "frame 1 has plain_bytes 0");
  entries[1].packed = shm::kFrameBytesMax + 1;
  expect(entries, "frame 1 has plain_bytes 1048577");
  entries = Sample();
  entries[1].stored_bytes -= 1;
  expect(entries, "frame 1 has stored_bytes");
  entries = Sample();
  entries[0].stored_bytes = 1000;
  expect(entries, "frame 0 has stored_bytes 1000");
  entries[0].stored_bytes = 0;
  expect(entries, "frame 0 has stored_bytes 0");
  entries[0].stored_bytes = 699;
  expect(entries, "frames end at");
  entries = Sample();
  entries[0].packed += 1;
  expect(entries, "plain bytes, not");
  expect({}, "frame_count is 0");
}

TEST(FrameTable, RefusalLeavesTheTableAsItWas) {
  FrameTable table;
  ASSERT_TRUE(table.Parse(Table(Sample()), kSamplePlain, kSampleStored).ok());
  auto entries = Sample();
  entries[2].stored_bytes = 1;
  EXPECT_FALSE(table.Parse(Table(entries), kSamplePlain, kSampleStored).ok());
  EXPECT_EQ(table.frame_count(), 3u);
  EXPECT_EQ(table.frame(2).stored_bytes, 2u);
}

TEST(FrameTable, EveryFlippedByteAndEveryShorterTableIsRefused) {
  const Bytes good = Table(Sample());
  FrameTable table;
  for (size_t i = 0; i < good.size(); ++i) {
    for (const int flip : {0x01, 0x80, 0xFF}) {
      Bytes bad = good;
      bad[i] = static_cast<uint8_t>(bad[i] ^ flip);
      EXPECT_EQ(table.Parse(bad, kSamplePlain, kSampleStored).code(), StatusCode::kCorrupt) << i;
    }
    const Bytes shorter(good.begin(), good.begin() + static_cast<ptrdiff_t>(i));
    EXPECT_EQ(table.Parse(shorter, kSamplePlain, kSampleStored).code(), StatusCode::kCorrupt);
  }
}

// Rows of two channels: 0x3F80 + row and 0xC100 + row; and an odd byte.
Bytes GoldenPlain(uint32_t rows) {
  Bytes plain;
  for (uint32_t row = 0; row < rows; ++row) {
    for (const uint32_t element : {0x3F80 + row % 32, 0xC100 + row % 32}) {
      plain.push_back(static_cast<uint8_t>(element));
      plain.push_back(static_cast<uint8_t>(element >> 8));
    }
  }
  plain.push_back(0x77);
  return plain;
}

// Of 32 rows, with a zstd frame made by hand: 64 zeros as one run, then the two bases.
Bytes GoldenEncoded() {
  return FromHex(
      "5452543101000100"
      "4193c8841dcd6a46"
      "11b7b8e0ee8c8b91"
      "54000000"
      "81000003"
      "02000000"
      "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
      "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
      "77"
      "28b52ffd2042"
      "02020000"
      "1100007f82");
}

TEST(EncodedPayload, GoldenBytesDecode) {
  Decoder decoder;
  Bytes plain(GoldenPlain(32).size());
  const Status decoded = decoder.Decode(GoldenEncoded(), plain);
  ASSERT_TRUE(decoded.ok()) << decoded.ToString();
  EXPECT_EQ(plain, GoldenPlain(32));
}

// All but zstd's own bytes, which may differ by its version.
TEST(EncodedPayload, BytesBeforeTheCodedPlaneAreGolden) {
  const Bytes plain = GoldenPlain(256);
  const Layer layer{
      .bytes = static_cast<uint32_t>(plain.size()), .row_elements = 2, .role = LayerRole::kKeys};
  Encoder encoder;
  Bytes out(EncodedBytesMax(plain.size()));
  const Result<Encoded> encoded =
      encoder.Encode(plain, {.element = ElementType::kBf16, .layers = {&layer, 1}}, out);
  ASSERT_TRUE(encoded.ok());
  ASSERT_TRUE(encoded->kept);
  const std::span<const uint8_t> stored = std::span(out).first(encoded->stored_bytes);
  EXPECT_EQ(Hex(stored.first(8)), "5452543101000100");
  EXPECT_EQ(Hex(stored.subspan(28, 4)), "01040003");
  const std::span<const uint8_t> frame = stored.subspan(32);
  const Bytes golden = GoldenEncoded();
  const std::span<const uint8_t> golden_frame = std::span(golden).subspan(32);
  EXPECT_EQ(Hex(frame.first(4 + 64)), Hex(golden_frame.first(4 + 64)));
  EXPECT_EQ(Hex(frame.subspan(4 + 512, 5)), "7728b52ffd");
}

}  // namespace
}  // namespace terrace
