#pragma once

// What a tenant's chunks may be, as its clients know it.  Each put has a version of its own, from
// which its bytes follow, so that bytes of another key, epoch or put are told apart.
//
//   absent --Committed--> known --Gone--> absent
//   NewLife: known and absent become possible: any version that was ever committed in the epoch may
//   have been recovered, as may what was removed.  The first one seen is the known one.
//
// Evictions are not modelled: a miss is always right, wrong bytes never are.
//
// Threads: a value.

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace terrace {

struct SimKey {
  uint32_t label = 0;
  uint64_t epoch = 0;
  uint64_t key = 0;
  auto operator<=>(const SimKey&) const = default;
};

class SimModel {
 public:
  explicit SimModel(uint32_t payload_bytes_max) : payload_bytes_max_(payload_bytes_max) {}

  uint64_t NewVersion();
  uint32_t BytesOf(uint64_t version) const;

  void Committed(const SimKey& key, uint64_t version);
  void Gone(const SimKey& key) { chunks_[key].state = State::kAbsent; }
  void GoneAll(uint32_t label, uint64_t epoch);
  void NewLife();
  // Another disk: nothing of former lives can come back.
  void Forget() { chunks_.clear(); }

  // Whether a chunk may be there at all.
  bool MayExist(const SimKey& key) const;
  // The version whose bytes these are, when it may be found under this key; 0: wrong bytes.
  uint64_t Recognise(const SimKey& key, const std::byte* payload, uint32_t bytes);

 private:
  enum class State : uint8_t { kAbsent, kKnown, kPossible };
  struct Chunk {
    State state = State::kAbsent;
    uint64_t version = 0;             // of kKnown
    std::vector<uint64_t> committed;  // in all lives
  };

  const uint32_t payload_bytes_max_;
  std::map<SimKey, Chunk> chunks_;
  uint64_t versions_ = 0;
};

}  // namespace terrace
