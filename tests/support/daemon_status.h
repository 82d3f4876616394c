#pragma once

// What a daemon says of itself, read out of its status: the numbers that tests look at.
//
// Threads: values.

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "client/core/client.h"

namespace terrace {

struct SessionStatus {
  pid_t pid = 0;
  uint64_t pins = 0, claims = 0;
};

// Of the tier's codec; zeros without a tier.
struct CodecStatus {
  uint64_t encoded_chunks = 0, saved_bytes = 0, encodes = 0, decodes = 0, decodes_failed = 0;
};

// Of its one tenant.
struct DaemonStatus {
  uint64_t filling = 0;        // keys being written
  uint64_t claimed_bytes = 0;  // records being written
  uint64_t segments_open = 0;  // leased to sessions, or filled by the daemon itself
  uint64_t segments_total = 0, segments_stranded = 0, segments_missing = 0;
  uint64_t claims_ended = 0, stale_commits = 0, reclaims = 0;
  CodecStatus codec;
  std::vector<SessionStatus> sessions;

  const SessionStatus* Find(pid_t pid) const;  // null: none of this process
};

// Ends the test's process when the daemon does not answer.
DaemonStatus ReadStatus(Client& client);

}  // namespace terrace
