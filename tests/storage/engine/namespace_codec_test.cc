#include "storage/engine/namespace_codec.h"

#include <gtest/gtest.h>

#include <random>

namespace terrace {
namespace {

std::vector<NamespaceInfo> Two() {
  NamespaceInfo one;
  one.spec.label = "one";
  one.ref.id = 3;
  NamespaceInfo two;
  two.spec = {.label = "two",
              .model = "m",
              .weights_digest = "w",
              .dtype = "bf16",
              .layout = "l",
              .tokens_per_chunk = 256,
              .layer_bytes = {1, 2, uint64_t{1} << 40},
              .ranks = 4,
              .groups = {GroupRule{}, GroupRule{.trailing = 7}},
              .hash_algorithm = "h",
              .hash_seed = std::string("a\0b", 3),
              .engine_build = "e",
              .isa = "i",
              .salt = "s"};
  two.ref.id = 9;
  two.epoch = 5;
  return {one, two};
}

TEST(NamespaceCodec, GivesBackWhatItWasGiven) {
  std::vector<std::string> damage;
  const Result<StoredNamespaces> back = DecodeNamespaces(EncodeNamespaces(10, Two()), &damage);
  ASSERT_TRUE(back.ok());
  EXPECT_TRUE(damage.empty());
  EXPECT_EQ(back->next_id, 10u);
  ASSERT_EQ(back->all.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(back->all[i].spec.label, Two()[i].spec.label);
    EXPECT_EQ(DifferingField(back->all[i].spec, Two()[i].spec), std::nullopt);
    EXPECT_EQ(back->all[i].ref.id, Two()[i].ref.id);
    EXPECT_EQ(back->all[i].epoch, Two()[i].epoch);
  }
}

TEST(NamespaceCodec, AFreshLogHasNoneAndBeginsWithOne) {
  std::vector<std::string> damage;
  const Result<StoredNamespaces> fresh = DecodeNamespaces({}, &damage);
  ASSERT_TRUE(fresh.ok());
  EXPECT_EQ(fresh->next_id, 1u);
  EXPECT_TRUE(fresh->all.empty());
}

TEST(NamespaceCodec, WithoutItsHeadNothingIsTrusted) {
  std::vector<std::string> damage;
  std::vector<std::string> blobs = EncodeNamespaces(10, Two());
  blobs.erase(blobs.begin());
  EXPECT_FALSE(DecodeNamespaces(blobs, &damage).ok());
}

TEST(NamespaceCodec, IdsThatWereNeverGivenOrTwiceAreLeftOut) {
  std::vector<std::string> damage;
  std::vector<NamespaceInfo> all = Two();
  all[1].ref.id = all[0].ref.id;
  EXPECT_EQ(DecodeNamespaces(EncodeNamespaces(10, all), &damage)->all.size(), 1u);
  EXPECT_EQ(DecodeNamespaces(EncodeNamespaces(9, Two()), &damage)->all.size(), 1u);
  EXPECT_EQ(damage.size(), 2u);
}

// Left out it would be written over by the next table.
TEST(NamespaceCodec, ABlobOfAnotherVersionRefusesTheDevice) {
  std::vector<std::string> damage;
  std::vector<std::string> blobs = EncodeNamespaces(10, Two());
  ++blobs[2][0];
  EXPECT_EQ(DecodeNamespaces(blobs, &damage).status().code(), StatusCode::kInvalid);
}

TEST(NamespaceCodec, AnyBytesGiveAnAnswer) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 20'000; ++round) {
    std::vector<std::string> blobs = EncodeNamespaces(10, Two());
    std::string& blob = blobs[1 + random() % 2];
    for (uint64_t flips = 1 + random() % 4; flips > 0; --flips) {
      blob[random() % blob.size()] = static_cast<char>(random());
    }
    if (random() % 3 == 0) blob.resize(random() % (blob.size() + 1));
    std::vector<std::string> damage;
    const Result<StoredNamespaces> back = DecodeNamespaces(blobs, &damage);
    if (back.status().code() == StatusCode::kInvalid) continue;  // a version that may come
    ASSERT_TRUE(back.ok());
    ASSERT_EQ(back->all.size() + damage.size(), 2u);
  }
}

}  // namespace
}  // namespace terrace
