// Finding, pinning, touching, leasing and dropping single chunks.

#include "storage/base/limits.h"
#include "storage/engine/chunk_store.h"
#include "storage/engine/session_entry.h"

namespace terrace {

Result<ReadyChunk> ChunkStore::Find(uint32_t namespace_id, const shm::ChunkKey& key) {
  if (namespaces_->OfId(namespace_id) == nullptr) return Status(StatusCode::kStale);
  shm::Found found;
  const shm::Look look =
      shm::Find(index_->view(), key, namespace_id, index_->Hash(key, namespace_id), &found);
  if (look == shm::Look::kFilling) return Status(StatusCode::kBusy);
  if (look != shm::Look::kReady) {
    if (look != shm::Look::kElsewhere) ++counts_.get_misses;
    return Status(StatusCode::kNotFound);
  }
  ++counts_.gets;
  return ReadyChunk{.location = found.location,
                    .payload_bytes = found.length,
                    .touch = shm::TouchWord(found.slot, found.version)};
}

// The store and every retirement run on this thread, so nothing can come between them.
Result<ReadyChunk> ChunkStore::FindAndPin(SessionId session, uint32_t namespace_id,
                                          const shm::ChunkKey& key, std::atomic<uint64_t>* pin) {
  if (!MayPin(session)) return Status(StatusCode::kBusy);
  Result<ReadyChunk> found = Find(namespace_id, key);
  if (found.ok()) pin->store(shm::PinWord(found->location), std::memory_order_seq_cst);
  return found;
}

void ChunkStore::Touch(uint64_t touch_word) {
  const auto slot = static_cast<uint32_t>(touch_word);
  if (slot >= options_.index_slots) return;
  const uint32_t chunk = chunks_.OfSlot(slot);
  if (chunk == kNoChunk) return;
  const auto tag = static_cast<uint32_t>(touch_word >> 32);
  if (static_cast<uint32_t>(index_->Read(slot).version) != tag) return;
  const Chunk& touched = chunks_.at(chunk);
  if (touched.in_dram) policy_->Touch(touched.policy);
  if (touched.on_nvme()) nvme_->policy().Touch(touched.nvme_policy);
  if (options_.nvme.admission == NvmeAdmission::kSecondHit) QueueDemotion(chunk);
  ++counts_.touches;
}

StatusCode ChunkStore::Remove(uint32_t namespace_id, const shm::ChunkKey& key, ChunkCause why) {
  if (namespaces_->OfId(namespace_id) == nullptr) return StatusCode::kStale;
  const Result<SlotId> slot = index_->Find(key, namespace_id, index_->Hash(key, namespace_id));
  if (!slot.ok()) return StatusCode::kNotFound;
  const uint32_t chunk = chunks_.OfSlot(*slot);
  if (chunk == kNoChunk) return StatusCode::kBusy;  // being written: its claim owns it
  DropChunk(chunk, why);
  ++counts_.removed;
  return StatusCode::kOk;
}

StatusCode ChunkStore::Lease(uint32_t namespace_id, const shm::ChunkKey& key, int64_t until_ns) {
  if (namespaces_->OfId(namespace_id) == nullptr) return StatusCode::kStale;
  const Result<SlotId> slot = index_->Find(key, namespace_id, index_->Hash(key, namespace_id));
  if (!slot.ok() || chunks_.OfSlot(*slot) == kNoChunk) return StatusCode::kNotFound;
  const uint32_t chunk = chunks_.OfSlot(*slot);
  const uint64_t record_bytes = shm::RecordBytes(index_->Read(*slot).length);
  const bool leased = chunks_.at(chunk).lease_until_ns != 0;
  if (!leased && leases_.bytes() + record_bytes > options_.dram_bytes / 2) {
    return StatusCode::kBusy;
  }
  leases_.Extend(chunks_, chunk, record_bytes, until_ns);
  if (!leased && chunks_.at(chunk).lease_until_ns != 0 && chunks_.at(chunk).in_dram) {
    pool_->at(chunks_.at(chunk).segment).leased_bytes += record_bytes;
  }
  return StatusCode::kOk;
}

void ChunkStore::EndLease(uint32_t chunk) {
  const Chunk& leased = chunks_.at(chunk);
  if (leased.lease_until_ns == 0) return;
  const uint64_t record_bytes = shm::RecordBytes(index_->Read(leased.slot).length);
  if (leased.in_dram) pool_->at(leased.segment).leased_bytes -= record_bytes;
  leases_.End(chunks_, chunk, record_bytes);
}

void ChunkStore::DropChunk(uint32_t chunk, ChunkCause why) {
  EndLease(chunk);
  const Chunk& dropped = chunks_.at(chunk);
  const Index::Entry entry = index_->Read(dropped.slot);
  Note(entry.key, entry.namespace_id, entry.length, why);
  if (dropped.in_dram) ForgetRecord(chunk, DepartureOf(why));
  if (dropped.on_nvme()) ForgetReplica(chunk, DepartureOf(why));
  namespaces_->Count(entry.namespace_id, -1, -int64_t{entry.length});
  index_->Retire(dropped.slot);
  chunks_.Remove(chunk);
  ++settled_;
}

void ChunkStore::ForgetRecord(uint32_t chunk, Departure why) {
  Chunk& at = chunks_.at(chunk);
  const uint32_t length = index_->Read(at.slot).length;
  const uint64_t record_bytes = shm::RecordBytes(length);
  Segment& segment = pool_->at(at.segment);
  segment.live_bytes -= record_bytes;
  segment.padding_bytes -= record_bytes - shm::kRecordHeaderBytes - length;
  if (at.lease_until_ns != 0) segment.leased_bytes -= record_bytes;
  policy_->Remove(at.policy, why);
  at.in_dram = false;
}

Result<ChunkInfo> ChunkStore::Describe(uint32_t namespace_id, const shm::ChunkKey& key,
                                       int64_t now_ns) const {
  const NamespaceInfo* owner = namespaces_->OfId(namespace_id);
  if (owner == nullptr) return Status(StatusCode::kStale);
  const Result<SlotId> slot = index_->Find(key, namespace_id, index_->Hash(key, namespace_id));
  if (!slot.ok()) return Status(StatusCode::kNotFound, "the key is not in the index");
  const Index::Entry entry = index_->Read(*slot);
  ChunkInfo info{.key = entry.key,
                 .namespace_label = owner->spec.label,
                 .payload_bytes = entry.length,
                 .state = entry.state,
                 .tier = entry.tier,
                 .location = entry.location,
                 .nvme = {}};
  const uint32_t chunk = chunks_.OfSlot(*slot);
  if (chunk != kNoChunk) {
    const Chunk& at = chunks_.at(chunk);
    const Policy& policy = at.in_dram ? *policy_ : nvme_->policy();
    const PolicyHandle handle = at.in_dram ? at.policy : at.nvme_policy;
    if (at.in_dram || at.on_nvme()) {  // neither while the last replica is being loaded
      info.worth = policy.Worth(handle);
      info.reuse_class = policy.ReuseClass(handle);
    }
    info.durable = at.on_nvme();
    info.nvme = at.nvme;
    info.nvme_bytes = at.on_nvme() ? at.stored_bytes : 0;
    info.lease_left_ns = std::max<int64_t>(at.lease_until_ns - now_ns, 0);
  }
  return info;
}

std::vector<ChunkInfo> ChunkStore::List(uint64_t* cursor, uint32_t limit, int64_t now_ns) const {
  std::vector<ChunkInfo> listed;
  uint64_t slot = *cursor;
  for (; slot < options_.index_slots && listed.size() < limit; ++slot) {
    if (chunks_.OfSlot(static_cast<SlotId>(slot)) == kNoChunk) continue;
    const Index::Entry entry = index_->Read(static_cast<SlotId>(slot));
    const Result<ChunkInfo> info = Describe(entry.namespace_id, entry.key, now_ns);
    if (info.ok()) listed.push_back(*info);
  }
  *cursor = slot < options_.index_slots ? slot : 0;
  return listed;
}

}  // namespace terrace
