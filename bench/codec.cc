// `terrace bench codec`: the lossless codec on real KV (scripts/dump-demo-kv), cut into payloads as
// the llama.cpp adapter cuts chunks, K and V apart so that each has its ratio.  Speeds are plain
// bytes by CPU time of one thread, frame hashes included; a plain copy of the same payloads to the
// same places takes its turn in every round.

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <cstring>
#include <ctime>
#include <fstream>
#include <functional>
#include <span>

#include "bench/measure.h"
#include "storage/base/limits.h"
#include "storage/codec/decoder.h"
#include "storage/codec/encoder.h"

namespace terrace {
namespace {

using Bytes = std::vector<uint8_t>;

constexpr char kMagic[] = "TRRKVDMP";
constexpr uint32_t kVersion = 1;
constexpr uint32_t kStreamCountMax = 16;
constexpr uint64_t kStreamBytesMax = 4 * kGiB;
constexpr uint32_t kElementBytes = 2;

// As the file has them (client/python/terrace_kv/llama/dump.py).
struct FileHead {
  char magic[8];
  uint32_t version, streams;
};
struct StreamHead {
  char name[8];
  uint32_t layers, tokens, channels, element_bytes;
};
static_assert(sizeof(FileHead) == 16 && sizeof(StreamHead) == 24);

struct Stream {
  std::string name;  // "bf16_k"
  StreamHead head;
  ElementType element;
  LayerRole role;
  Bytes payloads;  // one after the other, each [layers][tokens a chunk][channels]
  size_t payload_bytes = 0;
  std::vector<Layer> layers;

  size_t count() const { return payloads.size() / payload_bytes; }
  std::span<const uint8_t> payload(size_t i) const {
    return std::span(payloads).subspan(i * payload_bytes, payload_bytes);
  }
};

Status Refused(const std::string& file, const std::string& why) {
  return Status(StatusCode::kInvalid, file + ": " + why + ": scripts/dump-demo-kv writes one");
}

Status CheckStream(const std::string& file, const Stream& stream, uint32_t chunk_tokens) {
  const StreamHead& head = stream.head;
  const uint64_t tokens_bytes = uint64_t{head.layers} * head.channels * kElementBytes;
  if (head.element_bytes != kElementBytes || head.layers < 1 || head.channels < 1 ||
      tokens_bytes > kStreamBytesMax || tokens_bytes * head.tokens > kStreamBytesMax) {
    return Refused(file, stream.name + " has a geometry that cannot be read");
  }
  if (head.tokens < chunk_tokens) return Refused(file, stream.name + " has too few tokens");
  if (tokens_bytes * chunk_tokens > kChunkBytesMax) {
    return Refused(file, "a chunk of " + stream.name + " is larger than a chunk may be");
  }
  return Status::Ok();
}

// Out of [layers][tokens][channels]; the tokens of the last, partial chunk are left out.
void CutPayloads(const Bytes& bytes, uint32_t chunk_tokens, Stream* stream) {
  const StreamHead& head = stream->head;
  const size_t row_bytes = size_t{head.channels} * kElementBytes;
  const size_t frame_bytes = chunk_tokens * row_bytes;
  const size_t chunks = head.tokens / chunk_tokens;
  stream->payload_bytes = frame_bytes * head.layers;
  stream->payloads.resize(chunks * stream->payload_bytes);
  stream->layers.assign(head.layers, {.bytes = static_cast<uint32_t>(frame_bytes),
                                      .row_elements = head.channels,
                                      .role = stream->role});
  for (size_t chunk = 0; chunk < chunks; ++chunk) {
    for (size_t layer = 0; layer < head.layers; ++layer) {
      std::memcpy(stream->payloads.data() + chunk * stream->payload_bytes + layer * frame_bytes,
                  bytes.data() + (layer * head.tokens + chunk * chunk_tokens) * row_bytes,
                  frame_bytes);
    }
  }
}

Result<std::vector<Stream>> ReadStreams(const CodecBenchOptions& options) {
  std::ifstream file(options.kv, std::ios::binary);
  if (!file) return Refused(options.kv, "cannot be opened");
  FileHead head;
  if (!file.read(reinterpret_cast<char*>(&head), sizeof(head)) ||
      std::memcmp(head.magic, kMagic, sizeof(head.magic)) != 0 || head.version != kVersion ||
      head.streams < 1 || head.streams > kStreamCountMax) {
    return Refused(options.kv, "no KV dump of version " + std::to_string(kVersion));
  }
  std::vector<Stream> streams(head.streams);
  for (Stream& stream : streams) {
    if (!file.read(reinterpret_cast<char*>(&stream.head), sizeof(stream.head))) {
      return Refused(options.kv, "ends within its table");
    }
    stream.name.assign(stream.head.name, strnlen(stream.head.name, sizeof(stream.head.name)));
    stream.element = stream.name.starts_with("bf16") ? ElementType::kBf16 : ElementType::kF16;
    stream.role = stream.name.ends_with("_k") ? LayerRole::kKeys : LayerRole::kValues;
  }
  for (Stream& stream : streams) {
    Status checked = CheckStream(options.kv, stream, options.tokens);
    if (!checked.ok()) return checked;
    Bytes bytes(size_t{stream.head.layers} * stream.head.tokens * stream.head.channels *
                kElementBytes);
    if (!file.read(reinterpret_cast<char*>(bytes.data()),
                   static_cast<std::streamsize>(bytes.size()))) {
      return Refused(options.kv, "ends within " + stream.name);
    }
    CutPayloads(bytes, options.tokens, &stream);
  }
  return streams;
}

double ThreadSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double Seconds(const std::function<void()>& work) {
  const double began = ThreadSeconds();
  work();
  return ThreadSeconds() - began;
}

// One stream's payloads through the codec; what they come to stays in `encoded`.
class Player {
 public:
  explicit Player(const Stream& stream)
      : stream_(stream),
        encoded_(stream.count()),
        room_(EncodedBytesMax(stream.payload_bytes)),
        decoded_(stream.payloads.size()) {}

  double plain_bytes() const { return static_cast<double>(stream_.payloads.size()); }

  // Bytes that the payloads take: an encoded one's, or its own.
  double StoredBytes() const {
    double sum = 0;
    for (const Bytes& encoded : encoded_) {
      sum += static_cast<double>(encoded.empty() ? stream_.payload_bytes : encoded.size());
    }
    return sum;
  }

  // False when one is refused.  Fills what Decode reads.
  bool Encode() {
    const Geometry geometry{.element = stream_.element, .layers = stream_.layers};
    for (size_t i = 0; i < stream_.count(); ++i) {
      const Result<Encoded> encoded = encoder_.Encode(stream_.payload(i), geometry, room_);
      if (!encoded.ok()) return false;
      encoded_[i].assign(room_.begin(),
                         room_.begin() + (encoded->kept ? encoded->stored_bytes : 0));
    }
    return true;
  }

  // False when one does not decode.
  bool Decode() {
    bool decoded = true;
    for (size_t i = 0; i < stream_.count(); ++i) {
      if (encoded_[i].empty()) {
        std::memcpy(place(i).data(), stream_.payload(i).data(), stream_.payload_bytes);
      } else {
        decoded = decoder_.Decode(encoded_[i], place(i)).ok() && decoded;
      }
    }
    return decoded;
  }

  void Copy() {
    for (size_t i = 0; i < stream_.count(); ++i) {
      std::memcpy(place(i).data(), stream_.payload(i).data(), stream_.payload_bytes);
    }
  }

  bool BytesAreBack() const { return decoded_ == stream_.payloads; }
  void Forget() { std::fill(decoded_.begin(), decoded_.end(), uint8_t{0xEE}); }

 private:
  std::span<uint8_t> place(size_t i) {
    return std::span(decoded_).subspan(i * stream_.payload_bytes, stream_.payload_bytes);
  }

  const Stream& stream_;
  std::vector<Bytes> encoded_;
  Bytes room_, decoded_;
  Encoder encoder_;
  Decoder decoder_;
};

struct Speeds {  // seconds, one a round
  std::vector<double> encode, decode, copy;
};

// A round of all three; false when bytes were not back.
bool Round(Player& player, Speeds* speeds) {
  bool right = true;
  speeds->encode.push_back(Seconds([&] { right = player.Encode() && right; }));
  player.Forget();
  speeds->decode.push_back(Seconds([&] { right = player.Decode() && right; }));
  right = player.BytesAreBack() && right;
  speeds->copy.push_back(Seconds([&] { player.Copy(); }));
  return right;
}

double Rounded(double value) { return std::round(value * 1000) / 1000; }

boost::json::object Report(const std::vector<Stream>& streams, const std::vector<double>& ratios,
                           const std::vector<Speeds>& speeds) {
  boost::json::object out;
  double bytes = 0, encode = 0, decode = 0, copy = 0;
  for (size_t i = 0; i < streams.size(); ++i) {
    out[streams[i].name] = Rounded(ratios[i]);
    bytes += static_cast<double>(streams[i].payloads.size());
    encode += Median(speeds[i].encode);
    decode += Median(speeds[i].decode);
    copy += Median(speeds[i].copy);
  }
  out["decode_gbps"] = Rounded(bytes / decode / 1e9);
  out["encode_gbps"] = Rounded(bytes / encode / 1e9);
  out["memcpy_gbps"] = Rounded(bytes / copy / 1e9);
  out["decode_vs_memcpy"] = Rounded(copy / decode);
  for (size_t i = 0; i < streams.size(); ++i) {
    const double ratio = Median(speeds[i].copy) / Median(speeds[i].decode);
    out[streams[i].name + "_decode_vs_memcpy"] = Rounded(ratio);
  }
  out["payload_bytes"] = streams.front().payload_bytes;
  return out;
}

}  // namespace

int RunCodec(const CodecBenchOptions& options) {
  const Result<std::vector<Stream>> streams = ReadStreams(options);
  if (!streams.ok()) {
    std::fprintf(stderr, "terrace bench: %s\n", streams.status().message().c_str());
    return 1;
  }
  std::vector<double> ratios;
  std::vector<Speeds> speeds(streams->size());
  bool right = true;
  for (size_t i = 0; i < streams->size(); ++i) {
    const Stream& stream = (*streams)[i];
    Progress(stream.name);
    Player player(stream);
    Speeds first;  // touches every page
    right = Round(player, &first) && right;
    for (uint32_t round = 0; round < options.rounds; ++round) {
      right = Round(player, &speeds[i]) && right;
    }
    ratios.push_back(player.plain_bytes() / player.StoredBytes());
  }
  boost::json::object out = Report(*streams, ratios, speeds);
  if (options.json) {
    std::printf("%s\n", boost::json::serialize(out).c_str());
  } else {
    for (const auto& [name, value] : out) {
      std::printf("%-28s %s\n", std::string(name).c_str(), boost::json::serialize(value).c_str());
    }
  }
  if (!right) std::fprintf(stderr, "terrace bench: a payload did not come back as it was\n");
  return right ? 0 : 1;
}

}  // namespace terrace
