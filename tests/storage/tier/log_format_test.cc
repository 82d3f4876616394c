#include "storage/tier/log_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "storage/base/limits.h"

namespace terrace {
namespace {

using testing::HasSubstr;

LogIdentity Sample() {
  LogIdentity identity;
  for (uint8_t i = 0; i < 16; ++i) identity.set_id[i] = static_cast<uint8_t>(0xa0 + i);
  identity.tenant = "research";
  identity.device_index = 1;
  identity.device_count = 3;
  identity.segment_count = 0x0102;
  identity.segment_bytes = 256 * kMiB;
  identity.log_id = 0x31;
  identity.file_count = 2;
  identity.stripe_bytes = 512 * kMiB;
  return identity;
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

template <typename Block>
void Rechecksum(Block* block) {
  block->checksum = 0;
  block->checksum = HashBytes(block, sizeof(*block));
}

constexpr char kSetHex[] = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf";
constexpr char kTenantHex[] = "7265736561726368";

TEST(LogFormat, SuperblockBytesAreGolden) {
  LogSuperblock block;
  std::memset(&block, 0xEE, sizeof(block));
  BuildSuperblock(Sample(), &block);
  EXPECT_EQ(Hex(&block, 32),
            "544552524c4f4731"
            "02000000"
            "01000000"
            "03000000"
            "02010000"
            "0000001000000000");
  EXPECT_EQ(Hex(block.set_id, 24), std::string(kSetHex) + "08000000" + "00000000");
  EXPECT_EQ(Hex(&block.checksum, 8), "264e818981a44f01");
  EXPECT_EQ(Hex(block.tenant, 64), kTenantHex + std::string(112, '0'));
  EXPECT_EQ(Hex(&block.log_id, 32),
            "3100000000000000"
            "02000000"
            "00000000"
            "0000002000000000" +
                std::string(16, '0'));
}

TEST(LogFormat, NamespaceTableBytesAreGolden) {
  const std::vector<std::string> blobs = {"abc", ""};
  std::vector<uint8_t> image(NamespaceTableImageBytes(blobs), 0xEE);
  ASSERT_EQ(image.size(), 2u * kLogBlockBytes);
  BuildNamespaceTable(Sample().set_id, 7, blobs, image);
  EXPECT_EQ(Hex(image.data(), 48),
            "544552524e4e5331"
            "0700000000000000" +
                std::string(kSetHex) +
                "02000000"
                "0b000000"
                "95dca13964f2c789");
  EXPECT_EQ(Hex(image.data() + 48, 8), "527b91f6af04d745");
  EXPECT_EQ(Hex(image.data() + 4096, 12),
            "03000000616263"
            "00000000"
            "00");
}

TEST(LogFormat, SegmentHeadBytesAreGolden) {
  SegmentHead head;
  std::memset(&head, 0xEE, sizeof(head));
  BuildSegmentHead(Sample(), 0x0203, 0x0405060708, &head);
  EXPECT_EQ(Hex(&head, 24),
            "5445525253454731"
            "0807060504000000"
            "03020000"
            "01000000");
  EXPECT_EQ(Hex(head.set_id, 24), std::string(kSetHex) + "08000000" + "00000000");
  EXPECT_EQ(Hex(&head.checksum, 8), "74ad8627272c90bb");
  EXPECT_EQ(Hex(head.tenant, 64), kTenantHex + std::string(112, '0'));
  EXPECT_EQ(Hex(&head.log_id, 16), "3100000000000000" + std::string(16, '0'));
}

shm::RecordHeader PlacedHeader() {
  RecordIdentity identity;
  identity.key = shm::ChunkKey::FromBytes("golden", 6, 0x0203);
  identity.namespace_id = 0x11223344;
  identity.payload_bytes = 5000;
  const uint64_t leaf = 9;
  shm::RecordHeader header;
  BuildHeader(identity, &leaf, &header);
  PlaceHeader({.sequence = 3, .segment = 2, .offset_units = 1}, 0x0102030405, &header);
  return header;
}

TEST(LogFormat, FooterEntryBytesAreGolden) {
  const FooterEntry entry = EntryOf(PlacedHeader(), 1);
  EXPECT_EQ(Hex(&entry, 56), "676f6c64656e" + std::string(52, '0') +
                                 "01000000"
                                 "88130000"
                                 "88130000"
                                 "44332211"
                                 "0302"
                                 "06"
                                 "0504030201");
  EXPECT_EQ(AppendNumberOf(entry), 0x0102030405u);
  EXPECT_EQ(entry.header_checksum, PlacedHeader().header_checksum);
  EXPECT_EQ(IdentityOf(entry), IdentityOf(PlacedHeader()));
}

TEST(LogFormat, TrailerBytesAreGolden) {
  SegmentTrailer trailer;
  std::memset(&trailer, 0xEE, sizeof(trailer));
  BuildTrailer(Sample(), 0x0203, 0x0405060708, 17, 0x0a0b, 0x1112131415161718, &trailer);
  EXPECT_EQ(Hex(&trailer, 24),
            "54455252464f5431"
            "0807060504000000"
            "03020000"
            "01000000");
  EXPECT_EQ(Hex(trailer.set_id, 32), std::string(kSetHex) +
                                         "11000000"
                                         "0b0a0000"
                                         "1817161514131211");
  EXPECT_EQ(Hex(&trailer.checksum, 8), "212add05ef0a50e2");
  EXPECT_EQ(Hex(&trailer.log_id, 16), "3100000000000000" + std::string(16, '0'));
}

TEST(LogFormat, BlocksSayWhatWasWritten) {
  LogSuperblock block;
  BuildSuperblock(Sample(), &block);
  EXPECT_EQ(*ReadSuperblock(block), Sample());
  SegmentHead head;
  BuildSegmentHead(Sample(), 5, 99, &head);
  EXPECT_EQ(*ReadSegmentHead(Sample(), 5, head), 99u);
  const std::vector<std::string> blobs = {std::string(100'000, 'x'), "", "y"};
  std::vector<uint8_t> image(NamespaceTableImageBytes(blobs));
  BuildNamespaceTable(Sample().set_id, 3, blobs, image);
  const Result<NamespaceTableImage> table = ReadNamespaceTable(Sample().set_id, image);
  ASSERT_TRUE(table.ok());
  EXPECT_EQ(table->generation, 3u);
  EXPECT_EQ(table->blobs, blobs);
}

template <typename Block>
void ExpectEveryFlipRefused(Block* block, const std::function<bool(const Block&)>& taken) {
  ASSERT_TRUE(taken(*block));
  uint8_t* const bytes = reinterpret_cast<uint8_t*>(block);
  for (size_t i = 0; i < sizeof(Block); ++i) {
    for (const uint8_t flip : {uint8_t{0x01}, uint8_t{0x80}, uint8_t{0xFF}}) {
      bytes[i] ^= flip;
      EXPECT_FALSE(taken(*block)) << "byte " << i;
      bytes[i] ^= flip;
    }
  }
}

TEST(LogFormat, EveryFlippedByteIsRefused) {
  LogSuperblock block;
  BuildSuperblock(Sample(), &block);
  ExpectEveryFlipRefused<LogSuperblock>(
      &block, [](const LogSuperblock& b) { return ReadSuperblock(b).ok(); });
  SegmentHead head;
  BuildSegmentHead(Sample(), 5, 99, &head);
  ExpectEveryFlipRefused<SegmentHead>(
      &head, [](const SegmentHead& h) { return ReadSegmentHead(Sample(), 5, h).ok(); });
  SegmentTrailer trailer;
  BuildTrailer(Sample(), 5, 99, 1, 9, 1234, &trailer);
  ExpectEveryFlipRefused<SegmentTrailer>(
      &trailer, [](const SegmentTrailer& t) { return CheckTrailer(Sample(), 5, t).ok(); });
}

TEST(LogFormat, TrailersOfOthersAreDenied) {
  SegmentTrailer trailer;
  BuildTrailer(Sample(), 5, 99, 1, 9, 1234, &trailer);
  LogIdentity other = Sample();
  other.set_id[0] = 0;
  EXPECT_EQ(CheckTrailer(other, 5, trailer).code(), StatusCode::kDenied);
  other = Sample();
  ++other.log_id;
  EXPECT_EQ(CheckTrailer(other, 5, trailer).code(), StatusCode::kDenied);
  EXPECT_EQ(CheckTrailer(Sample(), 6, trailer).code(), StatusCode::kCorrupt);
}

TEST(LogFormat, EmptyBlocksAreNotFoundRatherThanCorrupt) {
  EXPECT_EQ(ReadSegmentHead(Sample(), 0, SegmentHead{}).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ReadNamespaceTableHead(Sample().set_id, NamespaceTableHead{}).status().code(),
            StatusCode::kNotFound);
}

TEST(LogFormat, NewerVersionIsRefusedByName) {
  LogSuperblock block;
  BuildSuperblock(Sample(), &block);
  block.version = 3;
  block.reserved[7] = 1;  // what a newer version keeps there is its own
  Rechecksum(&block);
  const Status status = ReadSuperblock(block).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalid);
  EXPECT_THAT(status.message(), HasSubstr("version 3, this build reads 2"));
}

TEST(LogFormat, AnotherIdentityIsRefusedByName) {
  const auto refused = [](const std::function<void(LogIdentity&)>& change) {
    LogIdentity found = Sample();
    change(found);
    return MatchIdentity(found, Sample());
  };
  EXPECT_TRUE(refused([](LogIdentity&) {}).ok());
  Status status = refused([](LogIdentity& i) { i.set_id[15] = 0; });
  EXPECT_EQ(status.code(), StatusCode::kDenied);
  EXPECT_THAT(status.message(), HasSubstr("a0a1a2a3a4a5a6a7a8a9aaabacadae00"));
  status = refused([](LogIdentity& i) { i.tenant = "other"; });
  EXPECT_EQ(status.code(), StatusCode::kDenied);
  EXPECT_THAT(status.message(), HasSubstr("tenant is other, not research"));
  EXPECT_THAT(refused([](LogIdentity& i) { i.segment_bytes = 2 * kMiB; }).message(),
              HasSubstr("segment size is 2097152, not 268435456"));
  EXPECT_THAT(refused([](LogIdentity& i) { i.segment_count = 1; }).message(),
              HasSubstr("number of segments is 1, not 258"));
  EXPECT_THAT(refused([](LogIdentity& i) { i.device_index = 2; }).message(),
              HasSubstr("place in the set is 2, not 1"));
  EXPECT_THAT(refused([](LogIdentity& i) { i.file_count = 3; }).message(),
              HasSubstr("number of files is 3, not 2"));
  EXPECT_THAT(refused([](LogIdentity& i) { i.stripe_bytes = 1; }).message(),
              HasSubstr("stripe size is 1, not 536870912"));
}

TEST(LogFormat, HeadsOfOthersAreDeniedAndMisplacedOnesCorrupt) {
  SegmentHead head;
  BuildSegmentHead(Sample(), 5, 99, &head);
  LogIdentity other = Sample();
  other.set_id[0] = 0;
  EXPECT_EQ(ReadSegmentHead(other, 5, head).status().code(), StatusCode::kDenied);
  other = Sample();
  other.tenant = "other";
  EXPECT_EQ(ReadSegmentHead(other, 5, head).status().code(), StatusCode::kDenied);
  other = Sample();
  ++other.log_id;
  EXPECT_EQ(ReadSegmentHead(other, 5, head).status().code(), StatusCode::kDenied);
  EXPECT_EQ(ReadSegmentHead(Sample(), 6, head).status().code(), StatusCode::kCorrupt);
  other = Sample();
  other.device_index = 0;
  EXPECT_EQ(ReadSegmentHead(other, 5, head).status().code(), StatusCode::kCorrupt);
}

// As a forger would, or a bug of ours: the checksums fit and the content does not.
TEST(LogFormat, FootersThatCannotBeAreRefused) {
  const auto check =
      [](const std::function<void(SegmentTrailer&, std::vector<FooterEntry>&)>& change) {
        std::vector<FooterEntry> entries(64);
        entries[0] = EntryOf(PlacedHeader(), 1);  // 3 units
        entries[1] = EntryOf(PlacedHeader(), 4);
        SegmentTrailer trailer;
        BuildTrailer(Sample(), 2, 99, 2, 7, 0, &trailer);
        change(trailer, entries);
        trailer.footer_checksum = HashBytes(entries.data(), entries.size() * sizeof(FooterEntry));
        Rechecksum(&trailer);
        if (Status checked = CheckTrailer(Sample(), 2, trailer); !checked.ok()) return checked;
        return CheckFooter(trailer, {reinterpret_cast<const uint8_t*>(entries.data()),
                                     entries.size() * sizeof(FooterEntry)});
      };
  using Entries = std::vector<FooterEntry>;
  EXPECT_TRUE(check([](SegmentTrailer&, Entries&) {}).ok());
  const auto corrupt = [&](const auto& change) {
    EXPECT_EQ(check(change).code(), StatusCode::kCorrupt);
  };
  corrupt([](SegmentTrailer& t, Entries&) { t.fill_units = 6; });
  corrupt([](SegmentTrailer& t, Entries&) { t.record_count = 0xFFFFFFFF; });
  corrupt([](SegmentTrailer& t, Entries&) { t.fill_units = 0xFFFFFFFF; });
  corrupt([](SegmentTrailer&, Entries& e) { e[0].offset_units = 0; });
  corrupt([](SegmentTrailer&, Entries& e) { e[1].offset_units = 3; });
  corrupt([](SegmentTrailer&, Entries& e) { e[1].stored_bytes = 8193; });
  corrupt([](SegmentTrailer&, Entries& e) { e[1].payload_bytes = 0; });
  corrupt([](SegmentTrailer&, Entries& e) { e[1].payload_bytes = shm::kPayloadBytesMax + 1; });
  corrupt([](SegmentTrailer&, Entries& e) { e[0].key_length = 0; });
  corrupt([](SegmentTrailer&, Entries& e) { e[0].key_length = 5; });
}

TEST(LogFormat, NamespaceTablesThatCannotBeAreRefused) {
  const std::vector<std::string> blobs = {"abc", "de"};
  const auto check = [&](const std::function<void(NamespaceTableHead&, uint8_t*)>& change) {
    std::vector<uint8_t> image(NamespaceTableImageBytes(blobs));
    BuildNamespaceTable(Sample().set_id, 7, blobs, image);
    NamespaceTableHead head;
    std::memcpy(&head, image.data(), sizeof(head));
    change(head, image.data() + sizeof(head));
    head.blobs_checksum = HashBytes(image.data() + sizeof(head), image.size() - sizeof(head));
    Rechecksum(&head);
    std::memcpy(image.data(), &head, sizeof(head));
    if (Status status = ReadNamespaceTableHead(Sample().set_id, head).status(); !status.ok()) {
      return status.code();
    }
    return ReadNamespaceTable(Sample().set_id, image).status().code();
  };
  EXPECT_EQ(check([](NamespaceTableHead&, uint8_t*) {}), StatusCode::kOk);
  EXPECT_EQ(check([](NamespaceTableHead& h, uint8_t*) { h.blob_count = 3; }), StatusCode::kCorrupt);
  EXPECT_EQ(check([](NamespaceTableHead& h, uint8_t*) { h.blobs_bytes = 0xFFFFFFFF; }),
            StatusCode::kCorrupt);
  EXPECT_EQ(check([](NamespaceTableHead&, uint8_t* b) { b[0] = 200; }), StatusCode::kCorrupt);
  EXPECT_EQ(check([](NamespaceTableHead& h, uint8_t*) { h.generation = 0; }), StatusCode::kCorrupt);
  EXPECT_EQ(check([](NamespaceTableHead& h, uint8_t*) { h.set_id[0] = 0; }), StatusCode::kDenied);
}

}  // namespace
}  // namespace terrace
