#include "storage/engine/codec_geometry.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <numeric>
#include <string_view>

#include "storage/codec/frame_layout.h"

namespace terrace {
namespace {

constexpr uint64_t kElementBytes = 2;
constexpr std::array<std::string_view, 2> kBf16Names = {"bf16", "bfloat16"};
constexpr std::array<std::string_view, 4> kF16Names = {"f16", "fp16", "float16", "half"};

}  // namespace

ElementType ElementOf(const std::string& dtype) {
  std::string name = dtype;
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  constexpr std::string_view kTorch = "torch.";
  if (name.starts_with(kTorch)) name.erase(0, kTorch.size());
  if (std::count(kBf16Names.begin(), kBf16Names.end(), name) != 0) return ElementType::kBf16;
  if (std::count(kF16Names.begin(), kF16Names.end(), name) != 0) return ElementType::kF16;
  return ElementType::kOpaque;
}

std::vector<Layer> LayersOf(const NamespaceSpec& spec, uint64_t payload_bytes) {
  const std::vector<uint64_t>& of_spec = spec.layer_bytes;
  if (of_spec.empty() || of_spec.size() > shm::kFrameCountMax) return {};
  const bool possible = std::all_of(of_spec.begin(), of_spec.end(), [&](uint64_t bytes) {
    return bytes != 0 && bytes <= payload_bytes;
  });
  if (!possible || std::accumulate(of_spec.begin(), of_spec.end(), uint64_t{0}) != payload_bytes) {
    return {};
  }
  std::vector<Layer> layers;
  const uint64_t column_bytes = spec.tokens_per_chunk * kElementBytes;
  for (const uint64_t bytes : of_spec) {
    const bool rows = column_bytes != 0 && bytes % column_bytes == 0;
    layers.push_back({.bytes = static_cast<uint32_t>(bytes),
                      .row_elements = static_cast<uint32_t>(rows ? bytes / column_bytes : 0)});
  }
  return layers;
}

bool CodecTrial::Try() {
  if (misses_ < kMissesMax) return true;
  skipped_ = (skipped_ + 1) % kTryOneIn;
  return skipped_ == 0;
}

void CodecTrial::Gained(bool gained) {
  misses_ = gained ? 0 : std::min(misses_ + 1, kMissesMax);
  if (gained) skipped_ = 0;
}

}  // namespace terrace
