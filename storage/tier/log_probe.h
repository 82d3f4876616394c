#pragma once

// What lies on files that are about to be a tenant's log, read before anything is written to them
// or their sizes change.  What it takes for the log, NamespaceStore judges again, whole.
//
// Threads: blocks while it reads, as long as the medium does.

#include <string>

#include "storage/io/device_files.h"
#include "storage/tier/log_format.h"

namespace terrace {

enum class LogFound : uint8_t {
  kNothing,     // every file is empty, or begins with 8 MiB of zeros
  kLog,         // the tenant's, on these files
  kOtherFiles,  // the tenant's, on more or fewer files
  kOthers,      // other data, another tenant's log, or one of another version
  kDamaged,     // the tenant's, with both superblocks damaged
  kUnreadable,
};

struct LogProbe {
  LogFound found = LogFound::kNothing;
  LogIdentity identity;  // of kLog
  Status why;            // not Ok but for kNothing and kLog; names path and mend
};

// REQUIRES: paths opened, in the order of the settings.
LogProbe ProbeLog(const DeviceFiles& files, const LogSetId& set_id, const std::string& tenant);

// Whose log lies there, by either superblock.  kNotFound: both are zeros; kInvalid: another
// version; kCorrupt: neither is one; else as the medium says.
Result<LogIdentity> PeekLog(const DeviceFiles& files);

// The least stripe of a log over several files: what is not a segment lies in the first file, and
// each other one begins with a segment.
inline constexpr uint64_t kLogStripeBytesMin = kLogStartBytes;

}  // namespace terrace
