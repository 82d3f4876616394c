#pragma once

// A codec pool without threads: a job is done when the test says so.
//
// Threads: one.

#include <cstddef>
#include <deque>

#include "storage/engine/codec_pool.h"

namespace terrace {

class StepCodecPool final : public CodecPool {
 public:
  [[nodiscard]] bool Submit(CodecJob& job) override {
    if (jobs_.size() >= jobs_max) return false;
    jobs_.push_back(&job);
    return true;
  }
  void Withdraw(const CodecResults& results) override {
    std::erase_if(jobs_, [&results](const CodecJob* job) { return job->results == &results; });
  }

  // False: nothing waits, or nothing shall be done.
  bool RunOne() {
    if (jobs_.empty() || paused) return false;
    CodecJob& job = *jobs_.front();
    jobs_.pop_front();
    worker_.Do(job);
    job.results->Push(job);
    return true;
  }
  size_t waiting() const { return jobs_.size(); }

  size_t jobs_max = kCodecJobsMax;
  bool paused = false;

 private:
  CodecWorker worker_;
  std::deque<CodecJob*> jobs_;
};

}  // namespace terrace
