#include "storage/engine/codec_pool.h"

#include <pthread.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <utility>

#include "storage/base/check.h"

namespace terrace {

CodecResults::CodecResults() : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  TERRACE_CHECK(event_.valid());
}

void CodecResults::Push(CodecJob& job) {
  const std::lock_guard lock(mutex_);
  ended_.push_back(&job);
  if (pending_.exchange(true, std::memory_order_release)) return;
  static_cast<void>(eventfd_write(event_.get(), 1));  // cannot fail: it is read before the next
}

std::vector<CodecJob*> CodecResults::Take() {
  if (!pending()) return {};
  const std::lock_guard lock(mutex_);
  eventfd_t ignored = 0;
  static_cast<void>(eventfd_read(event_.get(), &ignored));
  pending_.store(false, std::memory_order_relaxed);
  return std::exchange(ended_, {});
}

uint32_t CodecThreadCount() {
  return std::clamp(std::thread::hardware_concurrency() / 2, 1u, kCodecThreadsMax);
}

ThreadCodecPool::ThreadCodecPool(uint32_t threads) : running_(threads, nullptr) {
  TERRACE_CHECK(threads >= 1);
  for (size_t i = 0; i < threads; ++i) {
    threads_.emplace_back([this, i] { Work(i); });
    pthread_setname_np(threads_.back().native_handle(), "codec");
  }
}

ThreadCodecPool::~ThreadCodecPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wanted_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

bool ThreadCodecPool::Submit(CodecJob& job) {
  {
    const std::lock_guard lock(mutex_);
    // Decodings may take the last places, and are bounded by the stores' buffers: somebody waits.
    const size_t waiting = decodings_.size() + encodings_.size();
    const bool encoding = job.work == CodecJob::Work::kEncode;
    if (stopping_ || waiting >= (encoding ? kCodecJobsMax / 2 : kCodecJobsMax)) return false;
    (encoding ? encodings_ : decodings_).push_back(&job);
  }
  wanted_.notify_one();
  return true;
}

CodecJob* ThreadCodecPool::Next() {
  std::deque<CodecJob*>& from = decodings_.empty() ? encodings_ : decodings_;
  if (from.empty()) return nullptr;
  CodecJob* const job = from.front();
  from.pop_front();
  return job;
}

void ThreadCodecPool::Work(size_t thread) {
  CodecWorker worker;
  std::unique_lock lock(mutex_);
  for (;;) {
    wanted_.wait(lock, [this] { return stopping_ || !decodings_.empty() || !encodings_.empty(); });
    if (stopping_) return;
    CodecJob& job = *Next();
    CodecResults& results = *job.results;
    running_[thread] = &results;
    lock.unlock();
    worker.Do(job);
    results.Push(job);
    lock.lock();
    running_[thread] = nullptr;
    ended_.notify_all();
  }
}

bool ThreadCodecPool::Runs(const CodecResults& results) const {
  return std::count(running_.begin(), running_.end(), &results) != 0;
}

void ThreadCodecPool::Withdraw(const CodecResults& results) {
  std::unique_lock lock(mutex_);
  const auto of_results = [&results](const CodecJob* job) { return job->results == &results; };
  std::erase_if(decodings_, of_results);
  std::erase_if(encodings_, of_results);
  ended_.wait(lock, [&] { return !Runs(results); });
}

}  // namespace terrace
