#include "storage/engine/namespace_table.h"

#include "storage/base/check.h"

namespace terrace {
namespace {

size_t BytesOf(const NamespaceSpec& spec) {
  size_t bytes =
      spec.layer_bytes.size() * sizeof(uint64_t) + spec.groups.size() * sizeof(GroupRule);
  for (const std::string* text :
       {&spec.model, &spec.weights_digest, &spec.dtype, &spec.layout, &spec.hash_algorithm,
        &spec.hash_seed, &spec.engine_build, &spec.isa, &spec.salt}) {
    bytes += text->size();
  }
  return bytes;
}

// As it is kept: with its label, and what goes with each.
size_t KeptBytes(const NamespaceSpec& spec) {
  constexpr size_t kOverhead = 256;
  return BytesOf(spec) + spec.label.size() + kOverhead;
}

Status CheckSpec(const NamespaceSpec& spec) {
  if (spec.label.empty() || spec.label.size() > kNamespaceLabelBytesMax) {
    return Status(StatusCode::kInvalid, "a namespace's label has 1 to 256 bytes, not " +
                                            std::to_string(spec.label.size()));
  }
  if (spec.ranks == 0 || spec.groups.empty() || spec.ranks * spec.groups.size() > 65536) {
    return Status(StatusCode::kInvalid,
                  "ranks x groups of namespace '" + spec.label + "' must be 1 to 65536");
  }
  if (BytesOf(spec) > kNamespaceSpecBytesMax) {
    return Status(StatusCode::kInvalid, "the fields of namespace '" + spec.label + "' have " +
                                            std::to_string(BytesOf(spec)) +
                                            " bytes: at most 65536 are kept");
  }
  return Status::Ok();
}

Status NoNamespace(std::string_view label) {
  return Status(StatusCode::kNotFound, "no namespace '" + std::string(label) + "'");
}

}  // namespace

Result<NamespaceInfo> NamespaceTable::Register(const NamespaceSpec& spec) {
  Status checked = CheckSpec(spec);
  if (!checked.ok()) return checked;
  const auto found = by_label_.find(spec.label);
  if (found != by_label_.end()) {
    const std::optional<std::string> differs = DifferingField(found->second.spec, spec);
    if (!differs) return found->second;
    return Status(StatusCode::kInvalid, "namespace '" + spec.label +
                                            "' is registered with another " + *differs +
                                            ": use another label");
  }
  while (spec_bytes_ + KeptBytes(spec) > kNamespacesBytesMax) {
    if (ForgetOneEmpty()) continue;
    return Status(StatusCode::kBusy, "the fields of the tenant's namespaces have " +
                                         std::to_string(spec_bytes_) + " bytes, of at most " +
                                         std::to_string(kNamespacesBytesMax) + ": clear one");
  }
  Result<shm::NamespaceRef> ref = Allocate();
  if (!ref.ok() && next_id_ != 0 && ForgetOneEmpty()) ref = Allocate();
  if (!ref.ok()) return ref.status();
  NamespaceInfo& info = by_label_[spec.label];
  info.spec = spec;
  spec_bytes_ += KeptBytes(spec);
  info.ref = *ref;
  by_id_[info.ref.id] = &info;
  ++version_;
  return info;
}

Status NamespaceTable::Restore(const NamespaceInfo& info) {
  Status checked = CheckSpec(info.spec);
  if (!checked.ok()) return checked;
  TERRACE_CHECK(!by_label_.contains(info.spec.label) && !by_id_.contains(info.ref.id));
  const Result<uint32_t> live = index_.AllocateLive(info.ref.id);
  if (!live.ok()) return live.status();
  NamespaceInfo& restored = by_label_[info.spec.label];
  restored.spec = info.spec;
  spec_bytes_ += KeptBytes(info.spec);
  restored.ref = {.id = info.ref.id, .live_index = *live};
  restored.epoch = info.epoch;
  by_id_[info.ref.id] = &restored;
  return Status::Ok();
}

Result<shm::NamespaceRef> NamespaceTable::Allocate() {
  if (next_id_ == 0) {
    return Status(StatusCode::kBusy, "all 2^32 namespace ids were used: restart the daemon");
  }
  const Result<uint32_t> live = index_.AllocateLive(next_id_);
  if (!live.ok()) {
    return Status(StatusCode::kBusy, "all 1024 namespaces of the tenant hold chunks: clear one");
  }
  return shm::NamespaceRef{.id = next_id_++, .live_index = *live};
}

// Who still holds the id is told that it is stale, and registers again.
bool NamespaceTable::ForgetOneEmpty() {
  auto oldest = by_label_.end();
  for (auto at = by_label_.begin(); at != by_label_.end(); ++at) {
    if (at->second.chunk_count != 0) continue;
    if (oldest == by_label_.end() || at->second.ref.id < oldest->second.ref.id) oldest = at;
  }
  if (oldest == by_label_.end()) return false;
  index_.ClearLive(oldest->second.ref.live_index);
  by_id_.erase(oldest->second.ref.id);
  spec_bytes_ -= KeptBytes(oldest->second.spec);
  by_label_.erase(oldest);
  ++version_;
  return true;
}

Result<NamespaceInfo> NamespaceTable::Find(std::string_view label) const {
  const auto found = by_label_.find(label);
  if (found == by_label_.end()) return NoNamespace(label);
  return found->second;
}

std::vector<NamespaceInfo> NamespaceTable::All() const {
  std::vector<NamespaceInfo> all;
  for (const auto& [label, info] : by_label_) all.push_back(info);
  return all;
}

Result<NamespaceInfo> NamespaceTable::Bump(std::string_view label) {
  const auto found = by_label_.find(label);
  if (found == by_label_.end()) return NoNamespace(label);
  NamespaceInfo& info = found->second;
  if (next_id_ == 0) return Allocate().status();
  index_.ClearLive(info.ref.live_index);
  by_id_.erase(info.ref.id);
  const Result<shm::NamespaceRef> ref = Allocate();
  TERRACE_CHECK(ref.ok());  // a live word was just given back
  info.ref = *ref;
  info.chunk_count = info.chunk_bytes = 0;
  ++info.epoch;
  ++version_;
  by_id_[info.ref.id] = &info;
  return info;
}

const NamespaceInfo* NamespaceTable::OfId(uint32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

void NamespaceTable::Count(uint32_t id, int64_t chunks, int64_t payload_bytes) {
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return;
  found->second->chunk_count += static_cast<uint64_t>(chunks);
  found->second->chunk_bytes += static_cast<uint64_t>(payload_bytes);
}

}  // namespace terrace
