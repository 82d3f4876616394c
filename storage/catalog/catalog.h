#pragma once

// The durable metadata of the daemon: where chunks lie in the NVMe log, what must not be lost, and
// why chunks left.  It holds no payload and is on no read path: it is read when the daemon starts,
// and by people.  It knows nothing of tiers, policies or clocks.
//
//   chunk rows   hints, written behind.  What a full queue or a failed write dropped is counted;
//   the
//                log's footers and headers are right where they differ.
//   synced rows  tenants, namespaces and their next ids, leases, endurance: once Commit is done
//   with
//                Ok they are found again, or Open says kCorrupt.
//   history      why chunks left, written behind, the oldest dropped
//
// kill -9 loses what was not yet written (at most a queue, and what came in the last linger_ns); a
// loss of power also what was written since the last Flush or Commit.  What is left is a prefix of
// the calls, in their order.
//
//   chunk rows complete:   EndRebuild --a row dropped | death without Close--> not complete
//   After a clean Close it still says so at the next Open.
//
// Threads: any; the rows are written, and callbacks called, by a thread of the catalog's own.  A
// callback must not call Close and should only post the answer to its own thread.  The shard's
// calls cost a short lock and no I/O.  Load* and Close block, and read or wait for the disk.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "storage/base/clock.h"
#include "storage/base/limits.h"
#include "storage/base/result.h"
#include "storage/catalog/catalog_folder.h"
#include "storage/catalog/catalog_history.h"
#include "storage/catalog/catalog_rows.h"
#include "storage/catalog/catalog_update.h"
#include "storage/catalog/row_store.h"

namespace terrace {

inline constexpr uint32_t kCatalogVersion = 1;
inline constexpr uint32_t kCatalogBatchRows = 512;  // rows behind, in one write
inline constexpr uint32_t kCatalogTasksMax = 1024;  // Commit, Flush, FindGone under way
inline constexpr uint64_t kCatalogUpdateBytesQueued = 16 * kMiB;
static_assert(kCatalogUpdateBytesQueued >= kUpdateBytesMax);

enum class CatalogRepair : uint8_t {
  kRefuse,       // a damaged catalog is kCorrupt and stays where it is
  kWhenCorrupt,  // it is set aside, and an empty one made
  kAlways,       // so is a good one
};

struct CatalogOptions {
  std::string folder;
  CatalogRepair repair = CatalogRepair::kRefuse;
  uint32_t set_aside_max = 3;             // of FOLDER.bad-N, at least 1
  uint32_t queue_rows_max = 16 * 1024;    // chunk rows and history that wait
  uint64_t queue_bytes_max = 16 * kMiB;   // of their attributes
  uint64_t history_rows_max = 1'000'000;  // 0: keeps none
  int64_t linger_ns = 20 * kNsPerMs;      // how long a first row waits for more
  int64_t retry_ns = kNsPerSecond;        // after a failed write: those before it ends fail like it
  uint64_t cache_bytes = 8 * kMiB;
  uint64_t write_buffer_bytes = 16 * kMiB;  // up to three; 64 KiB..64 MiB
  uint64_t log_bytes_max = 64 * kMiB;       // replayed when the daemon was killed
  // Left free in the folder's file system: three write buffers and the log fit in it.
  uint64_t free_bytes_min = 128 * kMiB;
};

struct CatalogOpened {
  bool created = false;          // it was empty
  bool chunks_complete = false;  // chunk rows were complete at the last Close
  std::string damage;            // for the log: why one was set aside, or what was healed
  std::string set_aside;         // where to; empty: none was
};

struct CatalogStats {
  uint64_t chunk_rows_written = 0, gone_rows_written = 0;  // puts and erases
  // Rows behind: the queue was full, their write failed, they were out of bounds.
  uint64_t dropped_full = 0, dropped_failed = 0, dropped_invalid = 0;
  uint64_t commits = 0, commits_failed = 0;
  uint64_t queued_rows = 0, queued_tasks = 0;
  uint64_t history_rows = 0;
  int64_t history_since_wall_ns = 0;  // of its oldest row; 0 without one
  uint64_t disk_bytes = 0;
  bool chunks_complete = false;
  std::string error;  // of the last write, while it failed
};

class Catalog {
 public:
  using Done = std::function<void(const Status& status)>;
  using Found = std::function<void(Result<std::vector<GoneEntry>> entries)>;
  using VisitChunk = std::function<void(const ChunkName& name, const ChunkRow& row)>;
  using Progress = std::function<void(uint64_t rows)>;  // so far

  // Creates, opens, or refuses:
  //   kBusy naming the process that holds it    kCorrupt naming the mend
  //   kInvalid: a newer format, an option out of bounds    kNoSpace, kIoError, kDenied
  // On a full disk one that exists is opened, and refuses writes with kNoSpace.
  // An empty catalog knows no ids: those that the log's namespace table names are not to be given
  // again.
  static Result<std::unique_ptr<Catalog>> Open(const CatalogOptions& options);
  ~Catalog();  // as Close

  const CatalogOpened& opened() const { return opened_; }

  // -- At start, and for people ------------------------------------------------------------------
  // Every chunk row that is there when it is called, in no order; `progress` now and then.  Answers
  // how many rows were damaged and left out.  kCorrupt, kIoError: the rest cannot be read.
  Result<uint64_t> LoadChunks(const VisitChunk& visit, const Progress& progress) const;

  // kCorrupt when one of them is damaged.  REQUIRES, of both: not closed.
  Result<CatalogState> LoadState() const;

  // -- Rows behind -------------------------------------------------------------------------------
  // kBusy: the queue is full, the row is dropped and counted.  kInvalid: too many attributes.
  // kUnavailable after Close.
  Status Put(const ChunkName& name, ChunkRow row);
  Status Erase(const ChunkName& name);
  Status NoteGone(const ChunkName& name, const GoneRow& row);

  // Drops all chunk rows; what is Put from here on is all there is.  Chunk rows are complete when
  // no row was dropped since BeginRebuild (queue_room() says what is free).  Not dropped
  // themselves.
  void BeginRebuild();
  void EndRebuild();
  uint32_t queue_room() const;

  // -- Synced rows -------------------------------------------------------------------------------
  // Stable and found again once done with Ok; after an error they may be found or not.  kBusy,
  // kInvalid, kUnavailable: `done` is not called.
  Status Commit(CatalogUpdate update, Done done);

  // Done when everything called for before is stable, or with the error that dropped some of it.
  // Errors as Commit.
  Status Flush(Done done);

  // Why the chunk left, the newest first, at most kHistoryAnswerMax.  Sees what was called for
  // before.  Errors as Commit.
  Status FindGone(const ChunkName& name, Found found);

  CatalogStats stats() const;

  // Writes all that is queued, calls what is to be called, makes it stable.  Later calls answer the
  // first one's Status.
  Status Close();

 private:
  enum class OpKind : uint8_t { kPut, kErase, kGone, kBeginRebuild, kEndRebuild };
  struct Op {
    OpKind kind = OpKind::kPut;
    ChunkName name;
    ChunkRow row;
    GoneRow gone;
    uint64_t drops = 0;  // kBeginRebuild: chunk_drops_ then
  };
  enum class TaskKind : uint8_t { kCommit, kFlush, kFind };
  struct Task {
    TaskKind kind = TaskKind::kCommit;
    uint64_t after_ops = 0;  // that are written or dropped before
    CatalogUpdate update;
    Done done;
    ChunkName name;
    Found found;
  };

  Catalog(const CatalogOptions& options, CatalogFolder folder);

  // catalog_open.cc
  Status OpenOrCreate();
  Status SetAside(const std::string& why);
  Status Create();
  Status OpenExisting();
  Status CheckSynced();
  Status ReadCompleteMark();

  Status Enqueue(Op op);
  Status EnqueueTask(Task task);
  bool complete() const;  // REQUIRES: mutex_

  // catalog_writer.cc: the catalog's thread
  void Run();
  bool AwaitWork(std::vector<Task>* tasks, size_t* ops);
  void TakeReadyTasks(std::vector<Task>* tasks);
  void RunTasks(std::vector<Task>* tasks);
  void RunCommits(std::vector<Task>& tasks, size_t from, size_t to);
  Status WriteCommits();
  Status FlushRows();
  void WriteRows(size_t count);
  void AddRow(const Op& op);
  void RowsWritten(size_t count, const Status& status);
  Status WriteCompleteMark();

  // Constant after construction.
  const CatalogOptions options_;
  CatalogOpened opened_;

  // Owned by the catalog's thread while it runs, then by who closes.  The store's const methods are
  // safe from any.
  CatalogFolder folder_;
  std::unique_ptr<RowStore> store_;
  CatalogHistory history_;
  RowBatch batch_;
  std::vector<Op> taken_;
  size_t taken_at_ = 0;
  uint64_t ops_done_ = 0;
  uint64_t commit_number_ = 0;
  Status lost_;                            // rows behind, since the last Flush
  std::optional<uint64_t> rebuild_drops_;  // at the BeginRebuild under way
  bool rebuild_ended_ = false;             // by the batch under way

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Under mutex_.
  std::vector<Op> pending_;
  std::deque<Task> tasks_;
  uint64_t ops_called_ = 0;
  uint64_t queued_rows_ = 0;   // not yet written, taken ones included
  uint64_t queued_bytes_ = 0;  // attributes of them
  uint64_t queued_update_bytes_ = 0;
  bool stopping_ = false;
  uint64_t chunk_drops_ = 0;
  std::optional<uint64_t> complete_at_drops_;  // chunk rows are complete while no more are counted
  CatalogStats stats_;

  std::mutex close_mutex_;
  std::optional<Status> closed_;  // under close_mutex_
  std::thread thread_;
};

}  // namespace terrace
