#pragma once

// What a child tells its parent before it goes on, and what the parent makes of it: which chunks
// the file must hold after the child's death, and which it may.
//
// Threads: one owner each.

#include <cstdint>
#include <map>
#include <set>
#include <utility>

namespace terrace {

enum class CrashNote : uint64_t {
  kReady,        // the tier serves: from now on the file opens
  kCommitted,    // key, version, epoch: may be found
  kDurable,      // key, version (0: any), epoch: must be found
  kGone,         // key: the store itself has given it up
  kEpochBegun,   // epoch: may be found
  kEpochStored,  // epoch: nothing older may be found
  kWrong,        // key: the child itself got wrong bytes
  kEnded,        // the workload is through; version: writes and syncs counted
};

struct CrashWord {
  CrashNote note = CrashNote::kReady;
  uint64_t key = 0, version = 0, epoch = 0;
};

struct CrashOracle {
  struct Must {
    uint64_t version = 0, epoch = 0;
  };
  bool ready = false, ended = false;
  uint64_t wrong = 0, boundaries = 0;
  uint64_t epoch_stored = 0, epoch_begun = 0;
  std::map<uint64_t, Must> durable;                                       // by key
  std::map<std::pair<uint64_t, uint64_t>, std::set<uint64_t>> committed;  // by epoch and key
  uint64_t told = 0;                                                      // durable, ever

  void Hear(const CrashWord& word) {
    switch (word.note) {
      case CrashNote::kReady:
        // The new store's reclaim may have taken some at once; what it still has is told next.
        ready = true;
        durable.clear();
        return;
      case CrashNote::kCommitted: committed[{word.epoch, word.key}].insert(word.version); return;
      case CrashNote::kDurable:
        durable[word.key] = {.version = word.version, .epoch = word.epoch};
        ++told;
        return;
      case CrashNote::kGone: durable.erase(word.key); return;
      case CrashNote::kEpochBegun: epoch_begun = word.epoch; return;
      case CrashNote::kEpochStored: epoch_stored = word.epoch; return;
      case CrashNote::kWrong: ++wrong; return;
      case CrashNote::kEnded:
        ended = true;
        boundaries = word.version;
        return;
    }
  }

  bool May(uint64_t epoch, uint64_t key, uint64_t version) const {
    const auto found = committed.find({epoch, key});
    return found != committed.end() && found->second.contains(version);
  }
};

}  // namespace terrace
