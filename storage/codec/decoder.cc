#include "storage/codec/decoder.h"

#include <zstd.h>

#include <cstring>
#include <string>

#include "storage/base/check.h"

namespace terrace {
namespace {

using shm::FrameMethod;

constexpr size_t kPlaneBytesMax = shm::kFrameBytesMax / 2;

// The bytes of each part of a stored frame of planes; `bases` counts the bases behind the high
// plane.
struct Parts {
  size_t elements = 0;
  size_t odd = 0;
  size_t bases = 0;
  planes::Shape shape = {};
};

// False when the frame's rows are none that an encoder writes.  `rows` begins with row_elements.
bool ReadShape(FrameMethod method, std::span<const uint8_t> rows, Parts* parts) {
  if (rows.size() < shm::kRowElementsBytes) return false;
  uint32_t row_elements;
  std::memcpy(&row_elements, rows.data(), sizeof(row_elements));
  if (row_elements == 0 || parts->elements % row_elements != 0) return false;
  parts->shape = {.rows = parts->elements / row_elements, .columns = row_elements};
  parts->bases = method == FrameMethod::kColumnBases ? parts->shape.columns : parts->shape.rows;
  return parts->bases >= 1 && parts->bases <= parts->elements / shm::kElementsPerBaseMin;
}

}  // namespace

void Decoder::FreeContext::operator()(ZSTD_DCtx_s* context) const { ZSTD_freeDCtx(context); }

Decoder::Decoder(const planes::Variant& variant)
    : variant_(variant),
      context_(ZSTD_createDCtx()),
      plane_(kPlaneBytesMax + kPlaneBytesMax / shm::kElementsPerBaseMin) {
  TERRACE_CHECK(context_ != nullptr);
}

// Exactly one frame of today's format: the library also takes rows of frames, and formats of former
// years with decoders, and allocations, of their own.
bool Decoder::Decompress(std::span<const uint8_t> from, std::span<uint8_t> to) {
  uint32_t magic;
  if (from.size() < sizeof(magic)) return false;
  std::memcpy(&magic, from.data(), sizeof(magic));
  if (magic != ZSTD_MAGICNUMBER) return false;
  if (ZSTD_findFrameCompressedSize(from.data(), from.size()) != from.size()) return false;
  const size_t bytes =
      ZSTD_decompressDCtx(context_.get(), to.data(), to.size(), from.data(), from.size());
  return !ZSTD_isError(bytes) && bytes == to.size();
}

bool Decoder::DecodePlanes(FrameMethod method, std::span<const uint8_t> stored,
                           std::span<uint8_t> plain) {
  Parts parts{.elements = plain.size() / 2, .odd = plain.size() % 2};
  if (method != FrameMethod::kPlanes) {
    if (!ReadShape(method, stored, &parts)) return false;
    stored = stored.subspan(shm::kRowElementsBytes);
  }
  if (stored.size() < parts.elements + parts.odd) return false;
  const uint8_t* const low = stored.data();
  const std::span<const uint8_t> coded = stored.subspan(parts.elements + parts.odd);
  if (!Decompress(coded, std::span(plane_).first(parts.elements + parts.bases))) return false;
  const uint8_t* const bases = plane_.data() + parts.elements;
  if (method == FrameMethod::kColumnBases) {
    variant_.add_columns(plane_.data(), parts.shape, bases);
  } else if (method == FrameMethod::kRowBases) {
    variant_.add_rows(plane_.data(), parts.shape, bases);
  }
  variant_.merge(plane_.data(), low, parts.elements, plain.data());
  if (parts.odd != 0) plain.back() = low[parts.elements];
  return true;
}

Status Decoder::DecodeFrame(const Frame& frame, std::span<const uint8_t> stored,
                            std::span<uint8_t> plain) {
  TERRACE_CHECK(stored.size() == frame.stored_bytes && plain.size() == frame.plain_bytes);
  TERRACE_CHECK(plain.size() <= shm::kFrameBytesMax);
  if (variant_.hash(stored.data(), stored.size()) != frame.hash) {
    return Status(StatusCode::kCorrupt, "the stored frame's hash differs");
  }
  bool decoded = false;
  switch (frame.method) {
    case FrameMethod::kRaw:
      decoded = stored.size() == plain.size();
      if (decoded) std::memcpy(plain.data(), stored.data(), plain.size());
      break;
    case FrameMethod::kBytes: decoded = Decompress(stored, plain); break;
    case FrameMethod::kPlanes:
    case FrameMethod::kColumnBases:
    case FrameMethod::kRowBases: decoded = DecodePlanes(frame.method, stored, plain); break;
  }
  if (!decoded) return Status(StatusCode::kCorrupt, "the stored frame cannot be decoded");
  return Status::Ok();
}

Status Decoder::Decode(std::span<const uint8_t> encoded, std::span<uint8_t> payload) {
  if (encoded.size() > UINT32_MAX || payload.size() > shm::kPayloadBytesMax) {
    return Status(StatusCode::kCorrupt, "no payload is that long");
  }
  Status parsed = table_.Parse(encoded, static_cast<uint32_t>(payload.size()),
                               static_cast<uint32_t>(encoded.size()));
  if (!parsed.ok()) return parsed;
  for (uint32_t i = 0; i < table_.frame_count(); ++i) {
    const Frame& frame = table_.frame(i);
    const Status decoded =
        DecodeFrame(frame, encoded.subspan(frame.stored_offset, frame.stored_bytes),
                    payload.subspan(frame.plain_offset, frame.plain_bytes));
    if (!decoded.ok()) {
      return Status(decoded.code(), "frame " + std::to_string(i) + ": " + decoded.message());
    }
  }
  return Status::Ok();
}

}  // namespace terrace
