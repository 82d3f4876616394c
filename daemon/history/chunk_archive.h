#pragma once

// Why chunks left or were refused, kept across restarts: all tenants' events, in the history of a
// catalog of its own.  What cannot be opened or written costs history and nothing else.
//
// A chunk is named by its labels here (tenant, namespace), for ids of namespaces end with their
// epochs and, without a device, begin anew with each life of the daemon.
//
// Threads: any.  Note costs a short lock and no I/O; the catalog's own thread does the rest.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "daemon/history/write_ledger.h"
#include "storage/base/limits.h"
#include "storage/engine/chunk_event.h"

namespace terrace {

class Catalog;

// Of its folder.  More keeps no more.
inline constexpr uint64_t kArchiveBytesMin = 8 * kMiB, kArchiveBytesMax = 384 * kMiB;

struct ArchivedEvent {
  ChunkCause cause = ChunkCause::kNone;
  uint32_t payload_bytes = 0;
  int64_t wall_ms = 0;
};

struct ArchiveStats {
  std::string folder;   // empty: none is configured
  std::string why_off;  // empty: it is open
  std::string error;    // of the last write, while it failed
  uint64_t rows = 0, bytes = 0;
  int64_t since_ms = 0;  // of the oldest event kept; 0: there is none
  uint64_t dropped = 0;  // events of this life that it lost: a full queue, failed writes
};

class ChunkArchive {
 public:
  // Empty folder: keeps nothing.  The folder takes `bytes` at most (kArchiveBytesMin where that is
  // less), besides one damaged catalog that was set aside.  A damaged catalog is set aside and made
  // anew; one that cannot be opened is named in the log and in stats(), and keeps nothing.
  static std::unique_ptr<ChunkArchive> Open(const std::string& folder,
                                            uint64_t bytes = kArchiveBytesMax);
  ~ChunkArchive();

  void Note(std::string_view tenant, const ChunkEvent& event);

  // The last event of the key, or nothing; `done` is called once, by another thread or at once.
  using Found = std::function<void(std::optional<ArchivedEvent> event)>;
  void FindLast(std::string_view tenant, std::string_view label, const shm::ChunkKey& key,
                Found done) const;

  ArchiveStats stats() const;

  // In the same catalog.  REQUIRES, of its Note: not closed.
  WriteLedger& ledger() { return *ledger_; }

  // Writes what waits.  Later notes are dropped, later questions answered with nothing.
  void Close();

 private:
  explicit ChunkArchive(std::string folder);

  // Constant after Open.
  const std::string folder_;
  std::string why_off_;
  std::unique_ptr<Catalog> catalog_;  // null: nothing is kept
  std::unique_ptr<WriteLedger> ledger_;
};

}  // namespace terrace
