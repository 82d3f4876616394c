#pragma once

// The two superblocks and the two copies of the namespace table: opens a log, formats an empty
// device, heals a damaged copy from the other, grows a log that got more room, replaces the table.
// What a blob means it does not know.
//
// A table is replaced copy by copy, each written and synced before the next, the older first: at
// any moment one copy is whole, and once an update is done neither copy holds what it replaced.
//
// Threads: belongs to the device's thread.  `done` is called from the device's Poll.

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "storage/io/block_device.h"
#include "storage/tier/aligned_bytes.h"
#include "storage/tier/log_format.h"

namespace terrace {

// Repeats of a failed read: one hiccup of the cable must not turn a log away.
inline constexpr uint32_t kNamespaceReadRetries = 2;

class NamespaceStore {
 public:
  using Done = std::function<void(const Status& status)>;

  struct Opened {
    LogIdentity identity;
    bool formatted = false;           // the device was empty
    uint32_t healed = 0;              // damaged copies that were written anew
    std::vector<std::string> damage;  // for the log: what was found damaged, or could not be healed
  };

  explicit NamespaceStore(BlockDevice& device) : device_(device) {}

  // Reads superblocks and table.  `expected.segment_count` 0: as many as the device says, and more
  // where it has room: both superblocks then say so, one after the other, and of two that differ in
  // this alone the larger counts.  `expected.log_id`: of the log that an empty device becomes; 0:
  // drawn. An error leaves the device as it is, but for a format that failed halfway:
  //   kDenied: another set's or tenant's log      kInvalid: another cut, a newer version, an empty
  //   device opened read-only      kCorrupt: both copies of something damaged, one overwritten by
  //   someone else, or not a log at all      as the device says, when it cannot be read
  // REQUIRES: not busy().
  void Open(const LogIdentity& expected, Done done);

  // Of the last Open that was done with Ok.
  const Opened& opened() const { return opened_; }
  const std::vector<std::string>& blobs() const { return blobs_; }

  // Replaces all blobs: once done with Ok, stable and the only ones.  After an error either may be
  // found by the next Open.  kInvalid when they are too many bytes, kBusy during another update.
  Status Replace(std::vector<std::string> blobs, Done done);

  bool busy() const { return done_ != nullptr; }

 private:
  enum class Step : uint8_t {
    kReadSuperblocks,
    kCheckEmpty,
    kReadTableHeads,
    kReadTables,
    kWrite,  // copy by copy
    kSync,
  };
  struct Request : IoRequest {
    NamespaceStore* store = nullptr;
    uint32_t retries = 0;
  };
  // What a copy held when it was read.
  struct Copy {
    Status superblock, table;
    bool foreign = false;  // it was overwritten by someone else rather than damaged
    LogIdentity identity;
    NamespaceTableImage image;
    uint64_t image_bytes = 0;
  };
  struct Write {
    uint32_t copy = 0;
    bool superblock = false;
    bool grows = false;  // a copy that is not damaged
  };
  // What a failed write means.
  enum class Purpose : uint8_t { kFormat, kHeal, kReplace };

  void Read(uint32_t copy, uint64_t offset, uint64_t bytes);
  void Submit(uint32_t copy);
  Status ResultOf(uint32_t copy) const;
  void OneDone(Request& request);
  void StepDone();
  void End(const Status& status);

  bool IsForeign(uint32_t copy, uint64_t magic, size_t set_id_at) const;
  void JudgeSuperblocks();
  Status RefuseSuperblocks() const;
  void CheckEmptiness();
  void ReadTableHeads();
  void ReadTables();
  void JudgeTables();
  void Heal();
  bool Grow();
  void NextWrite();
  void WriteEnded(const Status& status);

  // Constant after construction.
  BlockDevice& device_;

  // Owned by the device's thread.
  Done done_;
  Step step_ = Step::kReadSuperblocks;
  Purpose purpose_ = Purpose::kHeal;
  LogIdentity expected_;
  bool may_grow_ = false;
  uint32_t segments_before_ = 0;  // growing
  Opened opened_;
  std::array<Copy, kLogCopyCount> copies_;
  std::array<AlignedBytes, kLogCopyCount> memory_;
  std::array<Request, kLogCopyCount> requests_;
  std::array<Status, kLogCopyCount> refused_;  // by the device's Submit
  uint32_t outstanding_ = 0;
  uint64_t checked_bytes_ = 0;
  std::vector<Write> writes_;
  size_t written_ = 0;
  uint64_t generation_ = 0;                                 // the highest that may be on the device
  std::array<uint64_t, kLogCopyCount> copy_generations_{};  // 0: unknown
  std::vector<std::string> blobs_, next_blobs_;
};

}  // namespace terrace
