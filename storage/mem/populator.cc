#include "storage/mem/populator.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <string>
#include <utility>

#include "storage/base/check.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // since Linux 5.14
#endif

namespace terrace {

void TouchEveryPage(uint8_t* data, uint64_t bytes) {
  for (uint64_t at = 0; at < bytes; at += kPageBytes) {
    std::atomic_ref<uint8_t>(data[at]).fetch_or(0, std::memory_order_relaxed);
  }
}

Status PopulateNow(uint8_t* data, uint64_t bytes) {
  while (madvise(data, bytes, MADV_POPULATE_WRITE) != 0) {
    if (errno == EINTR || errno == EAGAIN) continue;
    if (errno == EINVAL) {
      TouchEveryPage(data, bytes);
      return Status::Ok();
    }
    // EFAULT: a touch would have been a SIGBUS, there are no pages.
    const int error = errno == EFAULT ? ENOMEM : errno;
    return ErrnoStatus("populating " + std::to_string(bytes) + " bytes", error);
  }
  return Status::Ok();
}

Populator::Populator() : thread_([this] { Run(); }) {}

Populator::~Populator() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    running_cancelled_ = true;
    queue_.clear();
  }
  changed_.notify_all();
  thread_.join();
}

Status Populator::Enqueue(Job job) {
  TERRACE_CHECK(job.data != nullptr && job.bytes > 0);
  {
    const std::lock_guard lock(mutex_);
    if (queue_.size() >= kPopulateQueueMax) {
      return Status(StatusCode::kBusy, "the populator's queue is full: " +
                                           std::to_string(kPopulateQueueMax) + " jobs wait");
    }
    queue_.push_back(std::move(job));
  }
  changed_.notify_all();
  return Status::Ok();
}

bool Populator::Cancel(uint64_t id) {
  std::unique_lock lock(mutex_);
  const auto waiting =
      std::find_if(queue_.begin(), queue_.end(), [id](const Job& job) { return job.id == id; });
  if (waiting != queue_.end()) {
    queue_.erase(waiting);
    return true;
  }
  if (!running_ || running_id_ != id) return false;
  const bool in_time = !delivering_;
  if (in_time) running_cancelled_ = true;
  changed_.wait(lock, [&] { return !running_ || running_id_ != id; });
  return in_time;
}

uint32_t Populator::pending() const {
  const std::lock_guard lock(mutex_);
  return static_cast<uint32_t>(queue_.size()) + (running_ ? 1 : 0);
}

void Populator::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    Job job = std::move(queue_.front());
    queue_.pop_front();
    running_ = true;
    running_id_ = job.id;
    running_cancelled_ = false;

    lock.unlock();
    Status populated = PopulateUnlessCancelled(job);
    lock.lock();

    if (!running_cancelled_ && job.done) {
      delivering_ = true;
      lock.unlock();
      job.done(std::move(populated));
      lock.lock();
      delivering_ = false;
    }
    running_ = false;
    changed_.notify_all();
  }
}

Status Populator::PopulateUnlessCancelled(const Job& job) {
  for (uint64_t at = 0; at < job.bytes; at += kPopulateSliceBytes) {
    {
      const std::lock_guard lock(mutex_);
      if (running_cancelled_) return Status(StatusCode::kCancelled);
    }
    const uint64_t slice_bytes = std::min(kPopulateSliceBytes, job.bytes - at);
    if (Status status = PopulateNow(job.data + at, slice_bytes); !status.ok()) return status;
  }
  return Status::Ok();
}

}  // namespace terrace
