#include "storage/engine/codec_geometry.h"

#include <gtest/gtest.h>

namespace terrace {
namespace {

TEST(CodecGeometry, KnowsTheNamesOfTheElementsItGainsFrom) {
  for (const char* name : {"bf16", "bfloat16", "torch.bfloat16", "BF16"}) {
    EXPECT_EQ(ElementOf(name), ElementType::kBf16) << name;
  }
  for (const char* name : {"f16", "fp16", "float16", "torch.float16", "half"}) {
    EXPECT_EQ(ElementOf(name), ElementType::kF16) << name;
  }
  for (const char* name : {"", "fp8", "f32", "float8_e4m3", "q8_0", "bf16 "}) {
    EXPECT_EQ(ElementOf(name), ElementType::kOpaque) << name;
  }
}

TEST(CodecGeometry, LayersAreTheSpecsWhereTheyAddUp) {
  NamespaceSpec spec;
  EXPECT_TRUE(LayersOf(spec, 4096).empty());
  spec.layer_bytes = {4096, 8192, 100};
  spec.tokens_per_chunk = 16;
  EXPECT_TRUE(LayersOf(spec, 4096).empty());
  const std::vector<Layer> layers = LayersOf(spec, 12388);
  ASSERT_EQ(layers.size(), 3u);
  EXPECT_EQ(layers[0].bytes, 4096u);
  EXPECT_EQ(layers[0].row_elements, 128u);
  EXPECT_EQ(layers[1].bytes, 8192u);
  EXPECT_EQ(layers[1].row_elements, 256u);
  EXPECT_EQ(layers[2].row_elements, 0u);
  spec.tokens_per_chunk = 0;
  EXPECT_EQ(LayersOf(spec, 12388)[0].row_elements, 0u);
}

TEST(CodecGeometry, ASpecThatCannotBeIsOneLayer) {
  NamespaceSpec spec;
  spec.layer_bytes = {0, 4096};
  EXPECT_TRUE(LayersOf(spec, 4096).empty());
  spec.layer_bytes = {UINT64_MAX, 4097};
  EXPECT_TRUE(LayersOf(spec, 4096).empty());
  spec.layer_bytes.assign(4096, 1);
  EXPECT_TRUE(LayersOf(spec, 4096).empty());
}

TEST(CodecTrial, OfWhatNeverGainsFewAreTried) {
  CodecTrial trial;
  uint32_t tried = 0;
  for (uint32_t i = 0; i < CodecTrial::kMissesMax; ++i) {
    EXPECT_TRUE(trial.Try());
    trial.Gained(false);
  }
  for (uint32_t i = 0; i < 10 * CodecTrial::kTryOneIn; ++i) {
    if (!trial.Try()) continue;
    ++tried;
    trial.Gained(false);
  }
  EXPECT_EQ(tried, 10u);
}

TEST(CodecTrial, OneThatGainsOpensTheDoorAgain) {
  CodecTrial trial;
  for (uint32_t i = 0; i < CodecTrial::kMissesMax; ++i) trial.Gained(false);
  EXPECT_FALSE(trial.Try());
  trial.Gained(true);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(trial.Try());
}

}  // namespace
}  // namespace terrace
