// The bytes of every layout that leaves the process, as docs/format.md draws them.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "proto/shm/chunk_key.h"
#include "proto/shm/index_layout.h"
#include "proto/shm/key_hash.h"
#include "proto/shm/record_layout.h"
#include "proto/shm/session_layout.h"

namespace terrace::shm {
namespace {

// "0123 .." with a space after every eight bytes.
std::string Hex(const void* from, size_t bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (size_t at = 0; at < bytes; ++at) {
    const uint8_t byte = static_cast<const uint8_t*>(from)[at];
    if (at != 0 && at % 8 == 0) text += ' ';
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

ChunkKey SomeKey() { return ChunkKey::FromBytes("abcdefghijklmnopqrstuvw", 23, 0x0203); }

TEST(Layout, SlotBytes) {
  Slot slot{};
  const ChunkKey key = SomeKey();
  slot.version = 0x0102;
  for (size_t word = 0; word < 4; ++word) slot.key[word] = key.words[word];
  slot.location =
      Location{.segment = 0xabc, .generation = 0x234567891, .offset = 0x12345 * 4096}.Pack();
  slot.length_namespace = PackLengthNamespace(0x00456789, 0x0badcafe);
  slot.attributes = SlotAttributes{.part = key.part,
                                   .key_length = key.length,
                                   .state = SlotState::kReady,
                                   .tier = SlotTier::kDram,
                                   .reach = 64}
                        .Pack();
  EXPECT_EQ(Hex(&slot, sizeof slot),
            "0201000000000000 "                                                     // version
            "6162636465666768 696a6b6c6d6e6f70 7172737475767700 0000000000000000 "  // key
            "452345e259d1c8ab "                                                     // location
            "89674500fecaad0b "   // length, namespace
            "0302170240000000");  // part, key length, state and tier, reach
}

TEST(Layout, LocationKeepsEveryField) {
  const Location largest{.segment = kSegmentCountMax - 1,
                         .generation = (uint64_t{1} << 34) - 1,
                         .offset = ((uint64_t{1} << 18) - 1) * Location::kOffsetUnitBytes};
  EXPECT_EQ(largest.Pack(), ~uint64_t{0});
  EXPECT_EQ(Location::Unpack(largest.Pack()), largest);
  const Location least{.segment = 0, .generation = 1, .offset = 0};
  EXPECT_EQ(least.Pack(), uint64_t{1} << 18);
  EXPECT_EQ(Location::Unpack(least.Pack()), least);
}

TEST(Layout, PinWordNamesTheMemfdAndNotThePlace) {
  Location at{.segment = 0xabc, .generation = 0x234567891, .offset = 4096};
  EXPECT_EQ(PinWord(at), 0x234567891abcu);
  at.offset = 8192;
  EXPECT_EQ(PinWord(at), 0x234567891abcu);
  EXPECT_NE(PinWord(0, 1), 0u);
  EXPECT_EQ(PinWord(kSegmentCountMax - 1, (uint64_t{1} << 34) - 1), (uint64_t{1} << 46) - 1);
}

TEST(Layout, AttributesKeepEveryField) {
  const SlotAttributes all{.part = 0xffff,
                           .key_length = 33,
                           .state = SlotState::kFilling,
                           .tier = SlotTier::kDram,
                           .reach = 64};
  EXPECT_EQ(all.Pack(), 0x000000400121ffffu);
  const SlotAttributes back = SlotAttributes::Unpack(all.Pack());
  EXPECT_EQ(back.part, all.part);
  EXPECT_EQ(back.key_length, all.key_length);
  EXPECT_EQ(back.state, all.state);
  EXPECT_EQ(back.tier, all.tier);
  EXPECT_EQ(back.reach, all.reach);
  EXPECT_EQ(SlotAttributes{}.Pack(), 0u);
}

TEST(Layout, TouchWordHoldsSlotAndVersionTag) {
  EXPECT_EQ(TouchWord(0x01234567, 0xaabbccdd89abcdef), 0x89abcdef01234567u);
}

TEST(Layout, KeyHashIsPinned) {
  const ChunkKey key = SomeKey();
  // XXH3-64 of the 40 bytes {key words, namespace id, part, length, 0} under the seed.
  uint8_t bytes[40] = "abcdefghijklmnopqrstuvw";
  const uint8_t tail[8] = {0xfe, 0xca, 0xad, 0x0b, 0x03, 0x02, 23, 0};
  std::memcpy(bytes + 32, tail, sizeof tail);
  EXPECT_EQ(XXH3_64bits_withSeed(bytes, sizeof bytes, 0x1122334455667788), 0x19ec4fa7a3cd9545u);
  EXPECT_EQ(KeyHash(key, 0x0badcafe, 0x1122334455667788), 0x19ec4fa7a3cd9545u);
}

TEST(Layout, IndexHeaderBytes) {
  auto memory = std::make_unique<IndexHeader>();
  IndexHeader& header = *memory;
  header.magic = kIndexMagic;
  header.layout_version = kIndexLayoutVersion;
  header.shard_count = 1;
  header.slot_count = 0x1000;
  header.seed = 0x1122334455667788;
  header.boot_epoch = 0x99;
  header.table_bytes = IndexBytes(0x1000);
  header.segment_bytes = 0x200000;
  header.segment_count = 0x1000;
  header.chunk_bytes_max = 0x0ff000;
  EXPECT_EQ(Hex(&header, 64),
            "5445525249445831 0100000001000000 0010000000000000 8877665544332211 "
            "9900000000000000 0000060000000000 0000200000000000 0010000000f00f00");

  const auto* begin = reinterpret_cast<const char*>(&header);
  EXPECT_EQ(reinterpret_cast<const char*>(&header.live[1023]) - begin, 4096 + 1023 * 8);
  EXPECT_EQ(reinterpret_cast<const char*>(&header.segments[4095].generation) - begin,
            12288 + 4095 * 16);
  EXPECT_EQ(reinterpret_cast<const char*>(&header.segments[4095].bytes) - begin,
            12288 + 4095 * 16 + 8);
  EXPECT_EQ(IndexBytes(64), 131072u + 64 * 64);
}

TEST(Layout, SessionHeaderBytes) {
  EXPECT_EQ(sizeof(SessionMemory), 1687552u);
  auto memory = std::make_unique<SessionMemory>();
  memory->magic = kSessionMagic;
  memory->layout_version = kSessionLayoutVersion;
  memory->request_count = kRequestCount;
  memory->batch_keys_max = kBatchKeysMax;
  memory->pin_count = kPinCount;
  memory->touch_count = kTouchCount;
  memory->session_id = 0x0807060504030201;
  memory->boot_epoch = 0x99;
  EXPECT_EQ(Hex(memory.get(), 48),
            "5445525253455331 0100000040000000 0001000000100000 0020000000000000 "
            "0102030405060708 9900000000000000");
}

TEST(Layout, SessionOffsets) {
  EXPECT_EQ(offsetof(SessionMemory, submit_tail), 4096u);
  EXPECT_EQ(offsetof(SessionMemory, submit_head), 4160u);
  EXPECT_EQ(offsetof(SessionMemory, daemon_sleeping), 4224u);
  EXPECT_EQ(offsetof(SessionMemory, complete_tail), 4288u);
  EXPECT_EQ(offsetof(SessionMemory, complete_head), 4352u);
  EXPECT_EQ(offsetof(SessionMemory, client_waiting), 4416u);
  EXPECT_EQ(offsetof(SessionMemory, touch_tail), 4480u);
  EXPECT_EQ(offsetof(SessionMemory, touch_head), 4544u);
  EXPECT_EQ(offsetof(SessionMemory, touches_dropped), 4608u);
  EXPECT_EQ(offsetof(SessionMemory, state), 4672u);
  EXPECT_EQ(offsetof(SessionMemory, submissions), 8192u);
  EXPECT_EQ(offsetof(SessionMemory, completions), 12288u);
  EXPECT_EQ(offsetof(SessionMemory, pins), 16384u);
  EXPECT_EQ(offsetof(SessionMemory, touches), 49152u);
  EXPECT_EQ(offsetof(SessionMemory, requests), 114688u);
  EXPECT_EQ(offsetof(RequestBlock, results), 16384u);
}

TEST(Layout, SubmissionBytes) {
  SubmissionEntry entry{};
  entry.op = static_cast<uint8_t>(Op::kGet);
  entry.flags = kWaitForFilling;
  entry.request = 0x3f;
  entry.namespace_id = 0x0badcafe;
  entry.key_count = 0x100;
  entry.deadline_ns = 0x0102030405060708;
  entry.tag = 0x1112131415161718;
  entry.argument = 0x2122232425262728;
  EXPECT_EQ(Hex(&entry, sizeof entry),
            "040001003f000000 fecaad0b00010000 0807060504030201 1817161514131211 "
            "2827262524232221 0000000000000000 0000000000000000 0000000000000000");
}

TEST(Layout, CompletionBytes) {
  CompletionEntry entry{};
  entry.request = 0x3f;
  entry.status = 2;
  entry.tag = 0x1112131415161718;
  entry.key_count = 0x100;
  entry.ok_count = 0xff;
  EXPECT_EQ(Hex(&entry, sizeof entry),
            "3f00000002000000 1817161514131211 00010000ff000000 0000000000000000");
}

TEST(Layout, KeyEntryBytes) {
  KeyEntry entry{};
  const ChunkKey key = SomeKey();
  std::memcpy(entry.key, key.words.data(), sizeof entry.key);
  entry.claim = 0x1112131415161718;
  entry.length = 0x00456789;
  entry.pin = 0xfff;
  entry.part = key.part;
  entry.key_length = key.length;
  EXPECT_EQ(Hex(&entry, sizeof entry),
            "6162636465666768 696a6b6c6d6e6f70 7172737475767700 0000000000000000 "
            "1817161514131211 89674500ff0f0000 0302170000000000 0000000000000000");
}

TEST(Layout, ResultEntryBytes) {
  ResultEntry entry{};
  entry.location = Location{.segment = 1, .generation = 2, .offset = 3 * 4096}.Pack();
  entry.claim = 0x1112131415161718;
  entry.touch = TouchWord(5, 6);
  entry.length = 0x00456789;
  entry.status = 9;
  EXPECT_EQ(Hex(&entry, sizeof entry),
            "0300080000001000 1817161514131211 0500000006000000 8967450009000000");
}

TEST(Layout, RecordHeaderBytes) {
  auto memory = std::make_unique<RecordHeader>();
  RecordHeader& header = *memory;
  const ChunkKey key = SomeKey();
  header.magic = kRecordMagic;
  header.version = kRecordVersion;
  header.hash_algorithm = static_cast<uint8_t>(HashAlgorithm::kXxh3_64);
  header.key_length = key.length;
  header.part = key.part;
  std::memcpy(header.key, key.words.data(), sizeof header.key);
  header.namespace_id = 0x0badcafe;
  header.payload_bytes = 0x00456789;
  header.stored_bytes = 0x00456789;
  header.leaf_count = LeafCount(0x00456789);
  header.header_checksum = 0x3132333435363738;
  header.leaves[0] = 0x4142434445464748;
  header.leaves[kLeafCountMax - 1] = 0x5152535455565758;
  const auto* bytes = reinterpret_cast<const uint8_t*>(&header);
  EXPECT_EQ(Hex(bytes, 104),
            "5452524543524431 0100011703020000 "
            "6162636465666768 696a6b6c6d6e6f70 7172737475767700 0000000000000000 "
            "fecaad0b89674500 8967450046000000 "
            "0000000000000000 0000000000000000 0000000000000000 3837363534333231 "
            "4847464544434241");
  EXPECT_EQ(Hex(bytes + 2136, 16), "5857565554535251 0000000000000000");
}

TEST(Layout, RecordsTakeWholePagesAndLeavesCoverEveryByte) {
  EXPECT_EQ(RecordBytes(1), 8192u);
  EXPECT_EQ(RecordBytes(4096), 8192u);
  EXPECT_EQ(RecordBytes(4097), 12288u);
  EXPECT_EQ(RecordBytes(kPayloadBytesMax), 4096u + kPayloadBytesMax);
  EXPECT_EQ(LeafCount(1), 1u);
  EXPECT_EQ(LeafCount(65536), 1u);
  EXPECT_EQ(LeafCount(65537), 2u);
  EXPECT_EQ(LeafCount(kPayloadBytesMax), kLeafCountMax);
}

TEST(ChunkKey, HashedKeyDiffersFromA32ByteKeyOfTheSameBytes) {
  const char bytes[] = "0123456789abcdef0123456789abcdef";
  const ChunkKey plain = ChunkKey::FromBytes(bytes, 32, 0);
  ChunkKey hashed = plain;
  hashed.length = kKeyLengthHashed;
  EXPECT_TRUE(hashed.valid());
  EXPECT_EQ(hashed.byte_count(), 32u);
  EXPECT_FALSE(plain == hashed);
  EXPECT_NE(KeyHash(plain, 1, 0), KeyHash(hashed, 1, 0));
}

TEST(ChunkKey, RefusesLengthsOutOfBoundsAndBytesBehindTheLength) {
  ChunkKey key = ChunkKey::FromBytes("ab", 2, 0);
  EXPECT_TRUE(key.valid());
  EXPECT_TRUE(key.zero_padded());
  key.length = 1;
  EXPECT_FALSE(key.zero_padded());
  key.length = 0;
  EXPECT_FALSE(key.valid());
  key.length = 34;
  EXPECT_FALSE(key.valid());
  key = ChunkKey::FromBytes("0123456789abcdef0123456789abcdef", 32, 0);
  EXPECT_TRUE(key.zero_padded());
}

}  // namespace
}  // namespace terrace::shm
