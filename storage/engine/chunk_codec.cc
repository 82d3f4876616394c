#include "storage/engine/chunk_codec.h"

#include <algorithm>
#include <utility>

#include "storage/base/check.h"
#include "storage/base/limits.h"

namespace terrace {
namespace {

constexpr uint64_t kPayloadsARegion = 2;

constexpr uint64_t RegionBytes(uint32_t chunk_bytes_max) {
  const uint64_t bytes = kPayloadsARegion * EncodedBytesMax(chunk_bytes_max);
  return (bytes + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
}
static_assert(EncodedBytesMax(kChunkBytesMax) >= shm::RecordBytes(kChunkBytesMax));

// Takes `which` out of `from`.
template <typename Job>
std::unique_ptr<Job> Extract(std::vector<std::unique_ptr<Job>>& from, const CodecJob* which) {
  const auto at = std::find_if(from.begin(), from.end(),
                               [which](const auto& job) { return job.get() == which; });
  TERRACE_CHECK(at != from.end());
  std::unique_ptr<Job> job = std::move(*at);
  *at = std::move(from.back());
  from.pop_back();
  return job;
}

template <typename Job>
std::unique_ptr<Job> Reuse(std::vector<std::unique_ptr<Job>>& idle) {
  if (idle.empty()) return std::make_unique<Job>();
  std::unique_ptr<Job> job = std::move(idle.back());
  idle.pop_back();
  return job;
}

}  // namespace

bool ChunkCodec::Encoding::gained() const {
  return status.ok() && outcome.kept &&
         shm::RecordBytes(outcome.stored_bytes) < shm::RecordBytes(header.payload_bytes);
}

Result<std::unique_ptr<ChunkCodec>> ChunkCodec::Create(CodecPool& pool, BlockDevice& device,
                                                       uint32_t chunk_bytes_max,
                                                       const MemoryFileOptions& memory) {
  std::unique_ptr<ChunkCodec> codec(new ChunkCodec(pool));
  for (std::unique_ptr<CodecArena>* const arena : {&codec->encodings_, &codec->records_}) {
    Result<std::unique_ptr<CodecArena>> made =
        CodecArena::Create(device, RegionBytes(chunk_bytes_max), memory);
    if (!made.ok()) return made.status();
    *arena = *std::move(made);
  }
  return codec;
}

ChunkCodec::~ChunkCodec() { pool_.Withdraw(results_); }

// Ids are never used again, so that those of ended namespaces are the lowest.
ChunkCodec::Space& ChunkCodec::SpaceOf(const NamespaceInfo& of) {
  const auto [at, fresh] = spaces_.try_emplace(of.ref.id);
  Space& space = at->second;
  if (!fresh) return space;
  space.element = ElementOf(of.spec.dtype);
  if (spaces_.size() > kNamespaceCountMax && spaces_.begin() != at) spaces_.erase(spaces_.begin());
  return space;
}

ChunkCodec::Begun ChunkCodec::Encode(const Wish& wish, const NamespaceInfo& of) {
  Space& space = SpaceOf(of);
  const uint32_t payload_bytes = wish.identity.payload_bytes;
  if (space.element == ElementType::kOpaque || payload_bytes < kEncodeBytesMin) {
    return Begun::kNotWorthIt;
  }
  const std::span<uint8_t> room = encodings_->Take(EncodedBytesMax(payload_bytes));
  if (room.empty()) return Begun::kNoRoom;
  if (!space.trial.Try()) {
    encodings_->Give(room);
    return Begun::kNotWorthIt;
  }
  std::unique_ptr<Encoding> encoding = Reuse(idle_);
  encoding->work = CodecJob::Work::kEncode;
  encoding->results = &results_;
  encoding->chunk = wish.chunk;
  encoding->segment = wish.segment;
  BuildHeader(wish.identity, wish.leaves, &encoding->header);
  encoding->plain = wish.plain;
  encoding->element = space.element;
  encoding->layers = LayersOf(of.spec, payload_bytes);
  encoding->encoded = room;
  encoding->outcome = Encoded{};
  encoding->status = Status::Ok();
  if (!pool_.Submit(*encoding)) {
    encodings_->Give(room);
    idle_.push_back(std::move(encoding));
    return Begun::kNoRoom;
  }
  encoding_.push_back(std::move(encoding));
  return Begun::kStarted;
}

ChunkCodec::Encoding* ChunkCodec::TakeEncoded() {
  if (encoded_.empty()) return nullptr;
  Encoding* const encoding = encoded_.front();
  encoded_.pop_front();
  return encoding;
}

void ChunkCodec::Judge(const Encoding& encoding) {
  const auto space = spaces_.find(encoding.header.namespace_id);
  if (space != spaces_.end()) space->second.trial.Gained(encoding.gained());
}

void ChunkCodec::Release(Encoding* encoding) {
  encodings_->Give(encoding->encoded);
  encoding->encoded = {};
  idle_.push_back(Extract(encoding_, encoding));
}

void ChunkCodec::Decode(const RecordIdentity& identity, const LogPlace& place,
                        std::span<const uint8_t> record, uint8_t* into, DecodeDone done) {
  std::unique_ptr<Decoding> decoding = Reuse(idle_decodings_);
  decoding->work = CodecJob::Work::kDecode;
  decoding->results = &results_;
  decoding->identity = identity;
  decoding->place = place;
  decoding->record = record;
  decoding->into = into;
  decoding->done = std::move(done);
  decoding->status = Status::Ok();
  to_submit_.push_back(decoding.get());
  decoding_.push_back(std::move(decoding));
}

bool ChunkCodec::Poll() {
  const std::vector<CodecJob*> ended = results_.Take();
  for (CodecJob* const job : ended) {
    if (job->work == CodecJob::Work::kEncode) {
      auto* const encoding = static_cast<Encoding*>(job);
      if (encoding->gained()) {
        encodings_->Shrink(&encoding->encoded, encoding->outcome.stored_bytes);
      }
      encoded_.push_back(encoding);
      continue;
    }
    std::unique_ptr<Decoding> decoding = Extract(decoding_, job);
    const DecodeDone done = std::exchange(decoding->done, nullptr);
    const Status status = decoding->status;
    idle_decodings_.push_back(std::move(decoding));
    done(status);
  }
  while (!to_submit_.empty() && pool_.Submit(*to_submit_.front())) to_submit_.pop_front();
  return !ended.empty();
}

}  // namespace terrace
