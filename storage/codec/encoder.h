#pragma once

// Makes KV payloads smaller without loss, for tiers where room and endurance cost more than a
// core's time.  Knows nothing of records, tiers or threads; what it writes is drawn in
// storage/codec/frame_layout.h.
//
// The high byte of a rotated bf16 element is its exponent, with some 3 bits of information; the
// other byte is noise and stays as it is.  zstd runs without match finding, as a Huffman coder: KV
// repeats nothing, and decoding is twice as fast.  Keys differ by channel, so the exponents' means
// are taken off first: 1.50 instead of 1.47 of the demo model's K at 64 tokens a frame, at the same
// speed, where transposing to channel-major with match finding reaches 1.49 at a third of it.
//
// Threads: an Encoder belongs to one thread at a time.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "storage/base/result.h"
#include "storage/codec/frame_layout.h"
#include "storage/codec/planes_variants.h"

struct ZSTD_CCtx_s;

namespace terrace {

enum class ElementType : uint8_t { kOpaque, kBf16, kF16 };
enum class LayerRole : uint8_t { kUnknown, kKeys, kValues };
enum class LayerOrder : uint8_t { kTokenMajor, kChannelMajor };

// One layer's keys, or values, or whatever is read together: coded alone, so that a reader of the
// layer decodes nothing else.
struct Layer {
  uint32_t bytes = 0;
  // Elements of a row: the channels of a token, or in channel-major order the tokens of a channel.
  // 0: not known.
  uint32_t row_elements = 0;
  LayerRole role = LayerRole::kUnknown;
  LayerOrder order = LayerOrder::kTokenMajor;
};

struct Geometry {
  ElementType element = ElementType::kOpaque;
  // In the payload's order, bytes adding up to the payload's; empty: one layer of all of it.
  std::span<const Layer> layers;
};

struct Encoded {
  // Whether it gained: the payload in `stored_bytes` is at most 1 / 1.1 of its size.  Otherwise
  // store the payload as it is; what the output buffer holds means nothing.
  bool kept = false;
  uint32_t stored_bytes = 0;
  uint32_t frame_count = 0;
  uint64_t table_checksum = 0;
};

// Room that Encode needs for its output.
constexpr uint64_t EncodedBytesMax(uint64_t payload_bytes) { return payload_bytes + 64 * 1024; }

class Encoder {
 public:
  // Takes the scratch and zstd's context; with what zstd takes at the first large frames, 1.1 MiB.
  explicit Encoder(const planes::Variant& variant = planes::Chosen());
  Encoder(Encoder&&) = default;
  Encoder& operator=(Encoder&&) = default;

  // Encodes `payload` into `out`.  Layers over kFrameBytesMax are cut, at whole rows where rows are
  // known; a payload of more than kFrameCountMax frames is not kept.  kInvalid: an empty payload or
  // layer, one over kPayloadBytesMax, or layers that do not add up to it.
  // REQUIRES: out.size() >= EncodedBytesMax(payload.size()); no overlap.
  Result<Encoded> Encode(std::span<const uint8_t> payload, const Geometry& geometry,
                         std::span<uint8_t> out);

 private:
  struct FreeContext {
    void operator()(ZSTD_CCtx_s* context) const;
  };
  struct Written {
    shm::FrameMethod method;
    uint32_t stored_bytes;
  };

  Written EncodeFrame(std::span<const uint8_t> plain, ElementType element, const Layer& layer,
                      std::span<uint8_t> out);
  uint64_t EncodePlanes(std::span<const uint8_t> plain, const Layer& layer, std::span<uint8_t> out,
                        shm::FrameMethod* method);
  bool BasesGain(shm::FrameMethod method, planes::Shape shape, const uint8_t* bases) const;
  uint64_t Compress(std::span<const uint8_t> from, std::span<uint8_t> to);

  planes::Variant variant_;
  std::unique_ptr<ZSTD_CCtx_s, FreeContext> context_;
  std::vector<uint8_t> plane_;  // a high plane, then its bases
  std::vector<uint16_t> sums_;
};

}  // namespace terrace
