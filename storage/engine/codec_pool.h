#pragma once

// Who does the codec's work for the shard: a seam, so that the engine runs on one thread under a
// simulator, and the daemon's threads.
//
// Threads: each method from any thread.  Outlives the stores that use it.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "storage/engine/codec_job.h"
#include "storage/engine/codec_worker.h"

namespace terrace {

class CodecPool {
 public:
  virtual ~CodecPool() = default;

  // The job is the pool's until it is in its results.  False: it takes no more now, and the job
  // stays the caller's.  The answer comes through the results alone, never from inside.
  [[nodiscard]] virtual bool Submit(CodecJob& job) = 0;

  // Afterwards the pool knows no job of `results`: what waited is the caller's again without an
  // answer, what ran has ended and is in `results`.  Waits for that, some 50 ms at most.
  virtual void Withdraw(const CodecResults& results) = 0;
};

// Jobs that wait for a thread, those of all stores together.
inline constexpr size_t kCodecJobsMax = 64;
// A machine's other cores are the engines'.
inline constexpr uint32_t kCodecThreadsMax = 4;

// Half of the cores, 1..kCodecThreadsMax.
uint32_t CodecThreadCount();

// Threads of its own, which somebody's get never waits behind an encoding for: decodings come
// first.  Each takes 18 MiB at most, of payloads that it has seen.
class ThreadCodecPool final : public CodecPool {
 public:
  // REQUIRES: InstallGuard() was called; threads >= 1.
  explicit ThreadCodecPool(uint32_t threads);
  // Jobs that wait are dropped without an answer; those that run are awaited.
  ~ThreadCodecPool() override;

  [[nodiscard]] bool Submit(CodecJob& job) override;
  void Withdraw(const CodecResults& results) override;

 private:
  void Work(size_t thread);
  CodecJob* Next();
  bool Runs(const CodecResults& results) const;

  std::mutex mutex_;
  std::condition_variable wanted_, ended_;
  // Guarded by mutex_.
  std::deque<CodecJob*> decodings_, encodings_;
  std::vector<const CodecResults*> running_;  // by thread; null: it waits
  bool stopping_ = false;

  std::vector<std::thread> threads_;
};

}  // namespace terrace
