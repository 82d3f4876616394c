#include "tests/sim/sim_model.h"

#include "tests/storage/engine/store_harness.h"

namespace terrace {

// Of some no codec gains.
uint64_t SimModel::NewVersion() {
  const uint64_t version = ++versions_;
  return version % 6 == 0 ? version | kNoiseSeed : version;
}

uint32_t SimModel::BytesOf(uint64_t version) const {
  return static_cast<uint32_t>(1 + version * 0x9e3779b97f4a7c15 % payload_bytes_max_);
}

void SimModel::Committed(const SimKey& key, uint64_t version) {
  Chunk& chunk = chunks_[key];
  chunk.state = State::kKnown;
  chunk.version = version;
  chunk.committed.push_back(version);
}

void SimModel::GoneAll(uint32_t label, uint64_t epoch) {
  for (auto& [key, chunk] : chunks_) {
    if (key.label == label && key.epoch == epoch) chunk.state = State::kAbsent;
  }
}

void SimModel::NewLife() {
  for (auto& [key, chunk] : chunks_) {
    chunk.state = chunk.committed.empty() ? State::kAbsent : State::kPossible;
  }
}

bool SimModel::MayExist(const SimKey& key) const {
  const auto found = chunks_.find(key);
  return found != chunks_.end() && found->second.state != State::kAbsent;
}

uint64_t SimModel::Recognise(const SimKey& key, const std::byte* payload, uint32_t bytes) {
  const auto found = chunks_.find(key);
  if (found == chunks_.end()) return 0;
  Chunk& chunk = found->second;
  const auto is = [&](uint64_t version) {
    return BytesOf(version) == bytes && PayloadIs(payload, bytes, version);
  };
  switch (chunk.state) {
    case State::kAbsent: return 0;
    case State::kKnown: return is(chunk.version) ? chunk.version : 0;
    case State::kPossible: break;
  }
  for (const uint64_t version : chunk.committed) {
    if (!is(version)) continue;
    chunk.state = State::kKnown;
    chunk.version = version;
    return version;
  }
  return 0;
}

}  // namespace terrace
