#include "storage/engine/namespace_codec.h"

#include <cstring>
#include <set>

namespace terrace {
namespace {

constexpr uint32_t kHeadVersion = 0x01534e54;  // "TNS" 1
constexpr uint8_t kBlobVersion = 1;

class Writer {
 public:
  template <typename T>
  void Number(T value) {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    out_.append(bytes, sizeof value);
  }
  void Text(const std::string& text) {
    Number(static_cast<uint32_t>(text.size()));
    out_ += text;
  }
  std::string Take() { return std::move(out_); }

 private:
  std::string out_;
};

class Reader {
 public:
  explicit Reader(const std::string& in) : in_(in) {}

  template <typename T>
  T Number() {
    T value{};
    if (in_.size() - at_ < sizeof value) {
      ok_ = false;
      return value;
    }
    std::memcpy(&value, in_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }
  std::string Text() {
    const auto size = Number<uint32_t>();
    if (!ok_ || in_.size() - at_ < size) {
      ok_ = false;
      return {};
    }
    at_ += size;
    return in_.substr(at_ - size, size);
  }
  // How many elements of `bytes` each follow.
  uint32_t Count(size_t bytes) {
    const auto count = Number<uint32_t>();
    if (ok_ && count > (in_.size() - at_) / bytes) ok_ = false;
    return ok_ ? count : 0;
  }
  bool ok() const { return ok_; }
  bool AtEnd() const { return ok_ && at_ == in_.size(); }

 private:
  const std::string& in_;
  size_t at_ = 0;
  bool ok_ = true;
};

std::string Encode(const NamespaceInfo& info) {
  const NamespaceSpec& spec = info.spec;
  Writer out;
  out.Number(kBlobVersion);
  out.Number(info.ref.id);
  out.Number(info.epoch);
  for (const std::string* text :
       {&spec.label, &spec.model, &spec.weights_digest, &spec.dtype, &spec.layout}) {
    out.Text(*text);
  }
  out.Number(spec.tokens_per_chunk);
  out.Number(static_cast<uint32_t>(spec.layer_bytes.size()));
  for (const uint64_t bytes : spec.layer_bytes) out.Number(bytes);
  out.Number(spec.ranks);
  out.Number(static_cast<uint32_t>(spec.groups.size()));
  for (const GroupRule& group : spec.groups) out.Number(group.trailing);
  for (const std::string* text :
       {&spec.hash_algorithm, &spec.hash_seed, &spec.engine_build, &spec.isa, &spec.salt}) {
    out.Text(*text);
  }
  return out.Take();
}

Result<NamespaceInfo> Decode(const std::string& blob) {
  Reader in(blob);
  NamespaceInfo info;
  NamespaceSpec& spec = info.spec;
  if (in.Number<uint8_t>() != kBlobVersion) return Status(StatusCode::kInvalid, "another version");
  info.ref.id = in.Number<uint32_t>();
  info.epoch = in.Number<uint64_t>();
  for (std::string* text :
       {&spec.label, &spec.model, &spec.weights_digest, &spec.dtype, &spec.layout}) {
    *text = in.Text();
  }
  spec.tokens_per_chunk = in.Number<uint32_t>();
  spec.layer_bytes.resize(in.Count(sizeof(uint64_t)));
  for (uint64_t& bytes : spec.layer_bytes) bytes = in.Number<uint64_t>();
  spec.ranks = in.Number<uint32_t>();
  spec.groups.resize(in.Count(sizeof(uint32_t)));
  for (GroupRule& group : spec.groups) group.trailing = in.Number<uint32_t>();
  for (std::string* text :
       {&spec.hash_algorithm, &spec.hash_seed, &spec.engine_build, &spec.isa, &spec.salt}) {
    *text = in.Text();
  }
  if (!in.AtEnd()) return Status(StatusCode::kCorrupt, "it is cut short, or has bytes behind it");
  return info;
}

}  // namespace

std::vector<std::string> EncodeNamespaces(uint32_t next_id, std::span<const NamespaceInfo> all) {
  std::vector<std::string> blobs;
  Writer head;
  head.Number(kHeadVersion);
  head.Number(next_id);
  blobs.push_back(head.Take());
  for (const NamespaceInfo& info : all) blobs.push_back(Encode(info));
  return blobs;
}

Result<StoredNamespaces> DecodeNamespaces(const std::vector<std::string>& blobs,
                                          std::vector<std::string>* damage) {
  StoredNamespaces stored;
  if (blobs.empty()) return stored;
  Reader head(blobs.front());
  const auto version = head.Number<uint32_t>();
  stored.next_id = head.Number<uint32_t>();
  if (!head.AtEnd()) return Status(StatusCode::kCorrupt, "the namespace table has no head");
  if (version != kHeadVersion) {
    return Status(StatusCode::kInvalid, "the namespace table is of another version");
  }
  std::set<uint32_t> ids;
  std::set<std::string> labels;
  for (size_t i = 1; i < blobs.size(); ++i) {
    Result<NamespaceInfo> info = Decode(blobs[i]);
    // Left out it would be written over, and its chunks with it.
    if (info.status().code() == StatusCode::kInvalid) {
      return Status(StatusCode::kInvalid,
                    "namespace " + std::to_string(i) +
                        " of the device is of another version: start the daemon that wrote it, or "
                        "name another path");
    }
    std::string wrong = info.ok() ? "" : info.status().ToString();
    if (info.ok()) {
      const uint32_t id = info->ref.id;
      if (id == 0 || (stored.next_id != 0 && id >= stored.next_id))
        wrong = "its id was never given";
      if (!ids.insert(id).second) wrong = "its id is another one's";
      if (!labels.insert(info->spec.label).second) wrong = "its label is another one's";
    }
    if (wrong.empty()) {
      stored.all.push_back(*std::move(info));
    } else {
      damage->push_back("namespace " + std::to_string(i) + " is left out: " + wrong);
    }
  }
  return stored;
}

}  // namespace terrace
