#include "daemon/control/convert.h"

#include "storage/base/clock.h"
#include "storage/base/limits.h"

namespace terrace {

// The schema lists the codes in the order of StatusCode.
rpc::Code ToRpc(StatusCode code) { return static_cast<rpc::Code>(code); }
static_assert(static_cast<int>(rpc::Code::IO_ERROR) == static_cast<int>(StatusCode::kIoError));
static_assert(static_cast<int>(rpc::Code::UNAVAILABLE) ==
              static_cast<int>(StatusCode::kUnavailable));

void ToRpc(const Status& status, rpc::Status::Builder out) {
  out.setCode(ToRpc(status.code()));
  out.setMessage(status.message().c_str());
}

shm::ChunkKey FromRpc(rpc::Key::Reader key) {
  const capnp::Data::Reader bytes = key.getBytes();
  if (bytes.size() == 0 || bytes.size() > shm::kKeyBytes) return {};
  if (key.getHashed() && bytes.size() != shm::kKeyBytes) return {};
  shm::ChunkKey out = shm::ChunkKey::FromBytes(bytes.begin(), bytes.size(), key.getPart());
  if (key.getHashed()) out.length = shm::kKeyLengthHashed;
  return out;
}

void ToRpc(const shm::ChunkKey& key, rpc::Key::Builder out) {
  out.setBytes(kj::arrayPtr(key.bytes(), key.byte_count()));
  out.setPart(key.part);
  out.setHashed(key.length == shm::kKeyLengthHashed);
}

NamespaceSpec FromRpc(rpc::NamespaceSpec::Reader spec) {
  NamespaceSpec out;
  out.label = spec.getLabel().cStr();
  out.model = spec.getModel().cStr();
  out.weights_digest = spec.getWeightsDigest().cStr();
  out.dtype = spec.getDtype().cStr();
  out.layout = spec.getLayout().cStr();
  out.tokens_per_chunk = spec.getTokensPerChunk();
  for (const uint64_t bytes : spec.getLayerBytes()) out.layer_bytes.push_back(bytes);
  out.ranks = spec.getRanks();
  if (spec.getGroups().size() > 0) out.groups.clear();
  for (const auto group : spec.getGroups()) out.groups.push_back({group.getTrailing()});
  out.hash_algorithm = spec.getHashAlgorithm().cStr();
  out.hash_seed = spec.getHashSeed().cStr();
  out.engine_build = spec.getEngineBuild().cStr();
  out.isa = spec.getIsa().cStr();
  out.salt = spec.getSalt().cStr();
  return out;
}

void ToRpc(const NamespaceInfo& info, rpc::NamespaceInfo::Builder out) {
  auto spec = out.initSpec();
  spec.setLabel(info.spec.label.c_str());
  spec.setModel(info.spec.model.c_str());
  spec.setWeightsDigest(info.spec.weights_digest.c_str());
  spec.setDtype(info.spec.dtype.c_str());
  spec.setLayout(info.spec.layout.c_str());
  spec.setTokensPerChunk(info.spec.tokens_per_chunk);
  auto layers = spec.initLayerBytes(static_cast<uint32_t>(info.spec.layer_bytes.size()));
  for (uint32_t i = 0; i < layers.size(); ++i) layers.set(i, info.spec.layer_bytes[i]);
  spec.setRanks(info.spec.ranks);
  auto groups = spec.initGroups(static_cast<uint32_t>(info.spec.groups.size()));
  for (uint32_t i = 0; i < groups.size(); ++i) groups[i].setTrailing(info.spec.groups[i].trailing);
  spec.setHashAlgorithm(info.spec.hash_algorithm.c_str());
  spec.setHashSeed(info.spec.hash_seed.c_str());
  spec.setEngineBuild(info.spec.engine_build.c_str());
  spec.setIsa(info.spec.isa.c_str());
  spec.setSalt(info.spec.salt.c_str());
  out.setId(info.ref.id);
  out.setLiveIndex(info.ref.live_index);
  out.setEpoch(info.epoch);
  out.setChunkCount(info.chunk_count);
  out.setChunkBytes(info.chunk_bytes);
}

// The schema lists both in the order of the engine's.
static_assert(static_cast<int>(rpc::KeyAnswer::NEVER_PUT) ==
              static_cast<int>(ChunkAnswer::kNeverPut));
static_assert(static_cast<int>(rpc::GoneCause::NO_ROOM_TO_LOAD) ==
              static_cast<int>(ChunkCause::kNoRoomToLoad));
static_assert(static_cast<int>(ChunkCause::kNoRoomToLoad) == kChunkCauseLast);

void ToRpc(const ChunkExplanation& explanation, rpc::Explanation::Builder out) {
  out.setAnswer(static_cast<rpc::KeyAnswer>(explanation.answer));
  out.setCause(static_cast<rpc::GoneCause>(explanation.cause));
  out.setWhenMs(explanation.when_ms);
  out.setInDram(explanation.in_dram);
  out.setOnNvme(explanation.on_nvme);
  out.setPayloadBytes(explanation.payload_bytes);
  out.setPutMs(explanation.put_ms);
  out.setNamespaceKnown(explanation.namespace_known);
  out.setOtherLabel(explanation.other_label.c_str());
  out.setOtherField(explanation.other_field.c_str());
  out.setHistorySinceMs(explanation.history_since_ms);
  out.setDaemonStartedMs(explanation.begin_ms);
}

void ToRpc(const ChunkInfo& info, rpc::ChunkInfo::Builder out) {
  ToRpc(info.key, out.initKey());
  out.setNamespaceLabel(info.namespace_label.c_str());
  out.setPayloadBytes(info.payload_bytes);
  out.setState(static_cast<rpc::KeyState>(info.state));
  out.setSegment(info.location.segment);
  out.setOffset(info.location.offset);
  out.setWorth(info.worth);
  out.setReuseClass(info.reuse_class);
  out.setTier(info.tier == shm::SlotTier::kDram ? "dram" : "nvme");
  out.setDurable(info.durable);
  out.setLogSegment(info.nvme.segment);
  out.setLogOffset(uint64_t{info.nvme.offset_units} * kPageBytes);
  out.setLogBytes(info.nvme_bytes);
  out.setLeaseLeftMs(static_cast<uint64_t>(info.lease_left_ns / kNsPerMs));
}

}  // namespace terrace
