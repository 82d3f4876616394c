#include "client/core/rpc_convert.h"

namespace terrace {

// The schema lists the codes in the order of StatusCode.
static_assert(static_cast<int>(rpc::Code::UNAVAILABLE) ==
              static_cast<int>(StatusCode::kUnavailable));
static_assert(static_cast<int>(rpc::Code::IO_ERROR) == static_cast<int>(StatusCode::kIoError));

StatusCode FromRpc(rpc::Code code) {
  // A later daemon may know codes that we do not.
  if (code > rpc::Code::IO_ERROR) return StatusCode::kIoError;
  return static_cast<StatusCode>(code);
}

Status FromRpc(rpc::Status::Reader status) {
  return Status(FromRpc(status.getCode()), status.getMessage().cStr());
}

void ToRpc(const shm::ChunkKey& key, rpc::Key::Builder out) {
  out.setBytes(kj::arrayPtr(key.bytes(), key.byte_count()));
  out.setPart(key.part);
  out.setHashed(key.length == shm::kKeyLengthHashed);
}

shm::ChunkKey FromRpc(rpc::Key::Reader key) {
  const capnp::Data::Reader bytes = key.getBytes();
  if (bytes.size() == 0 || bytes.size() > shm::kKeyBytes) return {};
  shm::ChunkKey out = shm::ChunkKey::FromBytes(bytes.begin(), bytes.size(), key.getPart());
  if (key.getHashed()) out.length = shm::kKeyLengthHashed;
  return out;
}

KeyState FromRpc(rpc::KeyState state) {
  switch (state) {
    case rpc::KeyState::ABSENT: return KeyState::kAbsent;
    case rpc::KeyState::FILLING: return KeyState::kFilling;
    case rpc::KeyState::READY: return KeyState::kReady;
    case rpc::KeyState::NVME: return KeyState::kNvme;
  }
  return KeyState::kAbsent;
}

void ToRpc(const NamespaceIdentity& identity, rpc::NamespaceSpec::Builder out) {
  out.setLabel(identity.label.c_str());
  out.setModel(identity.model.c_str());
  out.setWeightsDigest(identity.weights_digest.c_str());
  out.setDtype(identity.dtype.c_str());
  out.setLayout(identity.layout.c_str());
  out.setTokensPerChunk(identity.tokens_per_chunk);
  auto layers = out.initLayerBytes(static_cast<uint32_t>(identity.layer_bytes.size()));
  for (uint32_t i = 0; i < layers.size(); ++i) layers.set(i, identity.layer_bytes[i]);
  out.setRanks(identity.ranks);
  auto groups = out.initGroups(static_cast<uint32_t>(identity.group_trailing.size()));
  for (uint32_t i = 0; i < groups.size(); ++i) groups[i].setTrailing(identity.group_trailing[i]);
  out.setHashAlgorithm(identity.hash_algorithm.c_str());
  out.setHashSeed(identity.hash_seed.c_str());
  out.setEngineBuild(identity.engine_build.c_str());
  out.setIsa(identity.isa.c_str());
  out.setSalt(identity.salt.c_str());
}

NamespaceIdentity FromRpc(rpc::NamespaceSpec::Reader spec) {
  NamespaceIdentity out;
  out.label = spec.getLabel().cStr();
  out.model = spec.getModel().cStr();
  out.weights_digest = spec.getWeightsDigest().cStr();
  out.dtype = spec.getDtype().cStr();
  out.layout = spec.getLayout().cStr();
  out.tokens_per_chunk = spec.getTokensPerChunk();
  for (const uint64_t bytes : spec.getLayerBytes()) out.layer_bytes.push_back(bytes);
  out.ranks = spec.getRanks();
  if (spec.getGroups().size() > 0) out.group_trailing.clear();
  for (const auto group : spec.getGroups()) out.group_trailing.push_back(group.getTrailing());
  out.hash_algorithm = spec.getHashAlgorithm().cStr();
  out.hash_seed = spec.getHashSeed().cStr();
  out.engine_build = spec.getEngineBuild().cStr();
  out.isa = spec.getIsa().cStr();
  out.salt = spec.getSalt().cStr();
  return out;
}

ListedNamespace FromRpc(rpc::NamespaceInfo::Reader info) {
  return ListedNamespace{.identity = FromRpc(info.getSpec()),
                         .id = info.getId(),
                         .epoch = info.getEpoch(),
                         .chunk_count = info.getChunkCount(),
                         .chunk_bytes = info.getChunkBytes()};
}

shm::NamespaceRef RefOf(rpc::NamespaceInfo::Reader info) {
  return shm::NamespaceRef{.id = info.getId(), .live_index = info.getLiveIndex()};
}

ListedChunk FromRpc(rpc::ChunkInfo::Reader info) {
  return ListedChunk{.key = FromRpc(info.getKey()),
                     .namespace_label = info.getNamespaceLabel().cStr(),
                     .payload_bytes = info.getPayloadBytes(),
                     .state = FromRpc(info.getState()),
                     .segment = info.getSegment(),
                     .offset = info.getOffset(),
                     .worth = info.getWorth(),
                     .reuse_class = info.getReuseClass(),
                     .lease_left_ms = static_cast<int64_t>(info.getLeaseLeftMs()),
                     .tier = info.getTier().cStr(),
                     .durable = info.getDurable(),
                     .log_segment = info.getLogSegment(),
                     .log_offset = info.getLogOffset(),
                     .log_bytes = info.getLogBytes()};
}

// The schema lists both in the order of ours.
static_assert(static_cast<int>(rpc::KeyAnswer::NEVER_PUT) ==
              static_cast<int>(KeyAnswer::kNeverPut));
static_assert(static_cast<int>(rpc::GoneCause::NO_ROOM_TO_LOAD) ==
              static_cast<int>(GoneCause::kNoRoomToLoad));

Explanation FromRpc(rpc::Explanation::Reader explanation) {
  const rpc::KeyAnswer answer = explanation.getAnswer();
  const rpc::GoneCause cause = explanation.getCause();
  // A later daemon may know more of both.
  const bool known_answer = answer <= rpc::KeyAnswer::NEVER_PUT;
  const bool known_cause = cause <= rpc::GoneCause::NO_ROOM_TO_LOAD;
  return Explanation{.answer = known_answer ? static_cast<KeyAnswer>(answer) : KeyAnswer::kGone,
                     .cause = known_cause ? static_cast<GoneCause>(cause) : GoneCause::kUnknown,
                     .when_ms = explanation.getWhenMs(),
                     .in_dram = explanation.getInDram(),
                     .on_nvme = explanation.getOnNvme(),
                     .payload_bytes = explanation.getPayloadBytes(),
                     .put_ms = explanation.getPutMs(),
                     .namespace_known = explanation.getNamespaceKnown(),
                     .other_label = explanation.getOtherLabel().cStr(),
                     .other_field = explanation.getOtherField().cStr(),
                     .history_since_ms = explanation.getHistorySinceMs(),
                     .history_lost = explanation.getHistoryLost(),
                     .daemon_started_ms = explanation.getDaemonStartedMs()};
}

}  // namespace terrace
