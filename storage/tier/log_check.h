#pragma once

// Reads a whole log and judges it, block by block; mends what can be mended.  For a log that no
// daemon has open: fsck's engine.  It knows nothing of files, tenants' settings or the catalog.
//
// Mending only takes away: a damaged record leaves its footer, so that it is never asked for again;
// a copy, a footer or a head is made from what proved itself.  No damaged byte becomes a good one.
// A mend that is broken off leaves the log no worse than it was, and the next one goes on; after
// one that was done a check finds nothing.
//
// What a crash leaves is no damage: segments without a footer, and in their last
// kLogUnsyncedBytesMax records that are not whole; copies of superblock or table that an update did
// not reach.  They are counted as unfinished, and a mend ends them as a daemon's start would.
//
// Threads: belongs to the device's thread; blocks.

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "storage/io/block_device.h"
#include "storage/tier/log_format.h"

namespace terrace {

enum class LogDamage : uint8_t {
  kSuperblock,
  kNamespaceTable,
  kHead,     // of a segment
  kFooter,   // entries or trailer
  kHeader,   // of a record
  kPayload,  // differs from its leaf table
  kMissing,  // segments behind the device's end
};
inline constexpr size_t kLogDamageCount = 7;
// "superblock", "namespace table", ...
const char* LogDamageName(LogDamage damage);

struct LogFinding {
  LogDamage damage = LogDamage::kHead;
  bool unreadable = false;               // the medium gave an error
  bool mended = false;                   // by this run
  uint64_t offset = 0;                   // on the device
  std::optional<uint32_t> segment;       // none: superblock or table
  std::optional<RecordIdentity> record;  // whose it is, where that is known
  std::string what;                      // for people; with the mend that is left
};

struct LogCheckReport {
  LogIdentity identity;
  uint32_t segments = 0, segments_done = 0;
  uint32_t free = 0, sealed = 0, open = 0;  // of these
  uint64_t records = 0, record_bytes = 0;   // that are good
  uint64_t read_bytes = 0;
  uint64_t unfinished = 0;  // as a crash leaves it
  std::array<uint64_t, kLogDamageCount> damage{};
  uint64_t damaged = 0, mended = 0;
  uint64_t sealed_now = 0;  // footers that were missing and are written

  uint64_t of(LogDamage kind) const { return damage[static_cast<size_t>(kind)]; }
};

// A record that is good.
struct CheckedRecord {
  FooterEntry entry;
  LogPlace place;
};

struct LogCheckOptions {
  bool payloads = true;
  bool repair = false;  // REQUIRES: payloads, a device that can be written
  // All may be null.  `go_on` is asked at least once each 16 MiB; false ends the run between two
  // segments' writes.
  std::function<bool()> go_on;
  std::function<void(const LogCheckReport& so_far)> progress;
  std::function<void(const LogFinding& finding)> on_finding;
  std::function<void(const CheckedRecord& record)> on_record;
  std::function<void()> wait;  // BlockingDevice's
};

// kOk: the report is whole, whatever it says.  kCancelled by `go_on`.  kCorrupt: both copies of
// superblock or namespace table are damaged, or contradict each other: nothing else can be told.
// As the device says, where neither superblock can be read.  `namespaces`, where given, gets the
// table's blobs.
Status CheckLog(BlockDevice& device, const LogCheckOptions& options, LogCheckReport* report,
                std::vector<std::string>* namespaces = nullptr);

}  // namespace terrace
