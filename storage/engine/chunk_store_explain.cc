// Why a chunk is not to be had: what is noted as chunks leave, and the answer from it.

#include "storage/engine/chunk_store.h"

namespace terrace {
namespace {

// Of namespaces that ended: what still leaves of them is told under their labels.
constexpr size_t kTagsMax = 4096;

}  // namespace

uint32_t ChunkStore::TagOf(uint32_t namespace_id) {
  if (const auto found = tags_.find(namespace_id); found != tags_.end()) return found->second;
  const NamespaceInfo* const info = namespaces_->OfId(namespace_id);
  if (info == nullptr) return 0;
  const uint32_t tag = LabelTag(info->spec.label);
  tags_.emplace(namespace_id, tag);
  if (tags_.size() > kTagsMax) tags_.erase(tags_.begin());  // ids grow: the oldest
  return tag;
}

void ChunkStore::Note(const shm::ChunkKey& key, uint32_t namespace_id, uint32_t payload_bytes,
                      ChunkCause cause) {
  if (cause == ChunkCause::kNone) return;  // another of the key takes its place
  const ChunkEvent event{.key = key,
                         .label_tag = TagOf(namespace_id),
                         .namespace_id = namespace_id,
                         .payload_bytes = payload_bytes,
                         .cause = cause,
                         .wall_ms = options_.wall_ms ? options_.wall_ms() : 0};
  if (history_.Note(event, index_->Hash(key, 0)) && options_.listener) options_.listener(event);
}

ChunkCause ChunkStore::CauseOfLeavingDram(const Chunk& chunk) const {
  if (nvme_ == nullptr || nvme_->state() == NvmeState::kOff || !nvme_->device().writable()) {
    return ChunkCause::kEvictedDram;
  }
  if (chunk.queued || chunk.urgent) return ChunkCause::kEvictedUnwritten;
  if (chunk.unwritten != ChunkCause::kNone) return chunk.unwritten;
  const bool asked = options_.nvme.admission != NvmeAdmission::kSecondHit;
  return asked ? ChunkCause::kEvictedUnwritten : ChunkCause::kEvictedNotAdmitted;
}

// A chunk of an epoch that ended, whose sweep is still to come.
bool ChunkStore::FindEnded(uint32_t label_tag, const shm::ChunkKey& key,
                           ChunkExplanation* found) const {
  if (sweep_left_ == 0) return false;
  for (const auto& [id, tag] : tags_) {
    if (tag != label_tag || namespaces_->OfId(id) != nullptr) continue;
    const Result<SlotId> slot = index_->Find(key, id, index_->Hash(key, id));
    if (!slot.ok() || chunks_.OfSlot(*slot) == kNoChunk) continue;
    found->answer = ChunkAnswer::kGone;
    found->cause = ChunkCause::kEpochEnded;
    found->when_ms = options_.wall_ms ? options_.wall_ms() : 0;
    return true;
  }
  return false;
}

// The first that is ready, in the order of labels.
void ChunkStore::FindElsewhere(std::string_view label, const shm::ChunkKey& key,
                               ChunkExplanation* found) const {
  const Result<NamespaceInfo> asked = namespaces_->Find(label);
  namespaces_->Visit([&](const NamespaceInfo& other) {
    if (other.spec.label == label || other.chunk_count == 0) return true;
    const uint32_t id = other.ref.id;
    const Result<SlotId> slot = index_->Find(key, id, index_->Hash(key, id));
    if (!slot.ok() || chunks_.OfSlot(*slot) == kNoChunk) return true;
    found->other_label = other.spec.label;
    found->other_field = "label";
    if (asked.ok()) found->other_field = DifferingField(asked->spec, other.spec).value_or("label");
    return false;
  });
}

ChunkExplanation ChunkStore::Explain(std::string_view label, const shm::ChunkKey& key) const {
  ChunkExplanation out;
  out.history_since_ms = history_.since_ms();
  out.begin_ms = history_.begin_ms();
  const uint32_t tag = LabelTag(label);
  const std::optional<ChunkEvent> last = history_.Last(key, tag, index_->Hash(key, 0));
  if (last) {
    out.cause = last->cause;
    out.when_ms = last->wall_ms;
    out.payload_bytes = last->payload_bytes;
    out.answer = IsRefusal(last->cause) ? ChunkAnswer::kRefused : ChunkAnswer::kGone;
  }
  FindElsewhere(label, key, &out);
  const Result<NamespaceInfo> info = namespaces_->Find(label);
  out.namespace_known = info.ok();
  if (info.ok()) {
    const uint32_t id = info->ref.id;
    const Result<SlotId> slot = index_->Find(key, id, index_->Hash(key, id));
    if (slot.ok()) {
      out.payload_bytes = index_->Read(*slot).length;
      const uint32_t chunk = chunks_.OfSlot(*slot);
      out.answer = ChunkAnswer::kFilling;
      if (chunk == kNoChunk) return out;
      const Chunk& at = chunks_.at(chunk);
      out.answer = at.loading ? ChunkAnswer::kLoading : ChunkAnswer::kReady;
      out.in_dram = at.in_dram;
      out.on_nvme = at.on_nvme();
      out.put_ms = int64_t{at.put_at_s} * 1000;
      return out;
    }
  }
  if (FindEnded(tag, key, &out) || last) return out;
  if (!out.other_label.empty()) out.answer = ChunkAnswer::kOtherNamespace;
  return out;
}

}  // namespace terrace
