#include "storage/codec/encoder.h"

#define ZSTD_STATIC_LINKING_ONLY  // names ZSTD_c_literalCompressionMode
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>

#include "storage/base/check.h"
#include "storage/codec/frame_table.h"

namespace terrace {
namespace {

using shm::FrameMethod;

constexpr size_t kPlaneBytesMax = shm::kFrameBytesMax / 2;
constexpr size_t kBaseCountMax = kPlaneBytesMax / shm::kElementsPerBaseMin;
// No match finding; literals are Huffman-coded because we say so below.
constexpr int kLevel = -(1 << 17);
// Of a plane, in the guess whether bases gain: 4,096 tell a hundredth apart in some 10 us.
constexpr size_t kSampleElements = 4096;

// kept when payload >= 1.1 x stored.
constexpr uint64_t StoredBytesMax(uint64_t payload_bytes) { return payload_bytes * 10 / 11; }

// The frame that ends past the budget still has its room.
static_assert(ZSTD_COMPRESSBOUND(kPlaneBytesMax + kBaseCountMax) + kPlaneBytesMax +
                  shm::kRowElementsBytes + 1 + shm::FrameTableBytes(shm::kFrameCountMax) <=
              EncodedBytesMax(shm::kFrameBytesMax));
static_assert(ZSTD_COMPRESSBOUND(shm::kFrameBytesMax) + shm::FrameTableBytes(shm::kFrameCountMax) <=
              EncodedBytesMax(shm::kFrameBytesMax));

// Plain bytes of the layer's pieces but the last: whole rows, and whole elements at least.
uint32_t PieceBytes(ElementType element, const Layer& layer) {
  const uint64_t row_bytes = uint64_t{layer.row_elements} * 2;
  if (element == ElementType::kOpaque || row_bytes == 0 || row_bytes > shm::kFrameBytesMax) {
    return shm::kFrameBytesMax;
  }
  return static_cast<uint32_t>(shm::kFrameBytesMax / row_bytes * row_bytes);
}

uint64_t FrameCount(const Geometry& geometry, std::span<const Layer> layers) {
  uint64_t count = 0;
  for (const Layer& layer : layers) {
    const uint64_t piece = PieceBytes(geometry.element, layer);
    count += (layer.bytes + piece - 1) / piece;
  }
  return count;
}

Status CheckGeometry(uint64_t payload_bytes, std::span<const Layer> layers) {
  if (payload_bytes < 1 || payload_bytes > shm::kPayloadBytesMax) {
    return Status(StatusCode::kInvalid, "codec: a payload of " + std::to_string(payload_bytes) +
                                            " bytes is not within 1.." +
                                            std::to_string(shm::kPayloadBytesMax));
  }
  uint64_t sum = 0;
  for (const Layer& layer : layers) {
    if (layer.bytes == 0) return Status(StatusCode::kInvalid, "codec: a layer of 0 bytes");
    sum += layer.bytes;
  }
  if (sum == payload_bytes) return Status::Ok();
  return Status(StatusCode::kInvalid, "codec: layers of " + std::to_string(sum) +
                                          " bytes do not make a payload of " +
                                          std::to_string(payload_bytes));
}

// The bases that the plane's rows allow; kPlanes when they allow none.
FrameMethod BasesAllowed(const Layer& layer, size_t elements, planes::Shape* shape) {
  const size_t columns = layer.row_elements;
  if (columns == 0 || elements == 0 || elements % columns != 0) return FrameMethod::kPlanes;
  *shape = {.rows = elements / columns, .columns = columns};
  const bool by_column = layer.order == LayerOrder::kTokenMajor;
  const size_t bases = by_column ? shape->columns : shape->rows;
  if (bases > elements / shm::kElementsPerBaseMin) return FrameMethod::kPlanes;
  return by_column ? FrameMethod::kColumnBases : FrameMethod::kRowBases;
}

// Bits that an ideal order-0 coder needs.
double EntropyBits(const std::array<uint32_t, 256>& counts, size_t total) {
  double bits = 0;
  for (const uint32_t count : counts) {
    const double share = static_cast<double>(count) / static_cast<double>(total);
    if (count > 0) bits -= count * std::log2(share);
  }
  return bits;
}

}  // namespace

void Encoder::FreeContext::operator()(ZSTD_CCtx_s* context) const { ZSTD_freeCCtx(context); }

Encoder::Encoder(const planes::Variant& variant)
    : variant_(variant),
      context_(ZSTD_createCCtx()),
      plane_(kPlaneBytesMax + kBaseCountMax),
      sums_(kBaseCountMax) {
  TERRACE_CHECK(context_ != nullptr);
  for (const auto& [parameter, value] :
       {std::pair(ZSTD_c_compressionLevel, kLevel),
        std::pair(ZSTD_c_literalCompressionMode, static_cast<int>(ZSTD_ps_enable))}) {
    TERRACE_CHECK(!ZSTD_isError(ZSTD_CCtx_setParameter(context_.get(), parameter, value)));
  }
}

// 0 when there is no room, or no memory.
uint64_t Encoder::Compress(std::span<const uint8_t> from, std::span<uint8_t> to) {
  const size_t bytes =
      ZSTD_compress2(context_.get(), to.data(), to.size(), from.data(), from.size());
  return ZSTD_isError(bytes) ? 0 : bytes;
}

// Compares order-0 entropies over rows spread through the plane.
bool Encoder::BasesGain(FrameMethod method, planes::Shape shape, const uint8_t* bases) const {
  const size_t width = std::min(shape.columns, kSampleElements);
  const size_t rows_wanted = std::max<size_t>(kSampleElements / width, 1);
  const size_t step = std::max<size_t>(shape.rows / rows_wanted, 1);
  std::array<uint32_t, 256> plain = {};
  std::array<uint32_t, 256> moved = {};
  size_t sampled = 0;
  for (size_t row = 0; row < shape.rows; row += step, sampled += width) {
    const uint8_t* const at = plane_.data() + row * shape.columns;
    for (size_t i = 0; i < width; ++i) {
      const uint8_t base = bases[method == FrameMethod::kColumnBases ? i : row];
      ++plain[at[i]];
      ++moved[static_cast<uint8_t>(at[i] - base)];
    }
  }
  const size_t elements = shape.rows * shape.columns;
  const size_t base_count = method == FrameMethod::kColumnBases ? shape.columns : shape.rows;
  const double scale = static_cast<double>(elements) / static_cast<double>(sampled);
  const double gain = (EntropyBits(plain, sampled) - EntropyBits(moved, sampled)) * scale;
  return gain > 8.0 * static_cast<double>(base_count);
}

// Stored bytes, 0 when they cannot be coded; `out` has room for them.
uint64_t Encoder::EncodePlanes(std::span<const uint8_t> plain, const Layer& layer,
                               std::span<uint8_t> out, FrameMethod* method) {
  const size_t elements = plain.size() / 2;
  const size_t odd = plain.size() % 2;
  planes::Shape shape = {};
  *method = FrameMethod::kPlanes;
  if (layer.role != LayerRole::kValues) *method = BasesAllowed(layer, elements, &shape);

  // The low plane's place depends on the method, which an unknown role learns from the high one.
  uint8_t* low = out.data() + (*method == FrameMethod::kPlanes ? 0 : shm::kRowElementsBytes);
  variant_.split(plain.data(), elements, plane_.data(), low);
  uint8_t* const bases = plane_.data() + elements;
  if (*method == FrameMethod::kColumnBases) {
    variant_.mean_columns(plane_.data(), shape, sums_.data(), bases);
  } else if (*method == FrameMethod::kRowBases) {
    variant_.mean_rows(plane_.data(), shape, bases);
  }
  if (*method != FrameMethod::kPlanes && layer.role == LayerRole::kUnknown &&
      !BasesGain(*method, shape, bases)) {
    *method = FrameMethod::kPlanes;
    std::memmove(out.data(), low, elements);
    low = out.data();
  }

  size_t coded_bytes = elements;
  if (*method == FrameMethod::kColumnBases) {
    variant_.subtract_columns(plane_.data(), shape, bases);
    coded_bytes += shape.columns;
  } else if (*method == FrameMethod::kRowBases) {
    variant_.subtract_rows(plane_.data(), shape, bases);
    coded_bytes += shape.rows;
  }
  if (*method != FrameMethod::kPlanes) {
    std::memcpy(out.data(), &layer.row_elements, shm::kRowElementsBytes);
  }
  if (odd != 0) low[elements] = plain.back();
  uint8_t* const coded = low + elements + odd;
  const auto before = static_cast<uint64_t>(coded - out.data());
  const uint64_t stored = Compress(std::span(plane_).first(coded_bytes), out.subspan(before));
  return stored == 0 ? 0 : before + stored;
}

Encoder::Written Encoder::EncodeFrame(std::span<const uint8_t> plain, ElementType element,
                                      const Layer& layer, std::span<uint8_t> out) {
  FrameMethod method = FrameMethod::kBytes;
  const uint64_t stored = element == ElementType::kOpaque
                              ? Compress(plain, out)
                              : EncodePlanes(plain, layer, out, &method);
  if (stored > 0 && stored < plain.size()) {
    return {.method = method, .stored_bytes = static_cast<uint32_t>(stored)};
  }
  std::memcpy(out.data(), plain.data(), plain.size());
  return {.method = FrameMethod::kRaw, .stored_bytes = static_cast<uint32_t>(plain.size())};
}

Result<Encoded> Encoder::Encode(std::span<const uint8_t> payload, const Geometry& geometry,
                                std::span<uint8_t> out) {
  TERRACE_CHECK(out.size() >= EncodedBytesMax(payload.size()));
  const Layer whole{
      .bytes = static_cast<uint32_t>(std::min<uint64_t>(payload.size(), shm::kPayloadBytesMax))};
  const std::span<const Layer> layers =
      geometry.layers.empty() ? std::span(&whole, 1) : geometry.layers;
  Status checked = CheckGeometry(payload.size(), layers);
  if (!checked.ok()) return checked;
  const uint64_t frame_count = FrameCount(geometry, layers);
  if (frame_count > shm::kFrameCountMax) return Encoded{};

  const uint64_t budget = StoredBytesMax(payload.size());
  const uint32_t table_bytes = shm::FrameTableBytes(static_cast<uint32_t>(frame_count));
  uint64_t used = table_bytes;
  uint64_t plain_offset = 0;
  uint32_t index = 0;
  for (const Layer& layer : layers) {
    const uint64_t end = plain_offset + layer.bytes;
    const uint64_t piece_bytes = PieceBytes(geometry.element, layer);
    while (plain_offset < end) {
      const auto bytes = static_cast<uint32_t>(std::min(piece_bytes, end - plain_offset));
      const Written written = EncodeFrame(payload.subspan(plain_offset, bytes), geometry.element,
                                          layer, out.subspan(used));
      const shm::FrameEntry entry{.hash = variant_.hash(out.data() + used, written.stored_bytes),
                                  .stored_bytes = written.stored_bytes,
                                  .packed = shm::PackFrame(bytes, written.method)};
      std::memcpy(out.data() + shm::FrameTableBytes(index++), &entry, sizeof(entry));
      used += written.stored_bytes;
      plain_offset += bytes;
      if (used > budget) return Encoded{};
    }
  }

  shm::FrameTableHead head{.magic = shm::kFrameTableMagic,
                           .version = shm::kFrameTableVersion,
                           .frame_count = static_cast<uint16_t>(frame_count),
                           .checksum = 0};
  std::memcpy(out.data(), &head, sizeof(head));
  head.checksum = FrameTableChecksum(out.first(table_bytes));
  std::memcpy(out.data(), &head, sizeof(head));
  return Encoded{.kept = true,
                 .stored_bytes = static_cast<uint32_t>(used),
                 .frame_count = static_cast<uint32_t>(frame_count),
                 .table_checksum = head.checksum};
}

}  // namespace terrace
