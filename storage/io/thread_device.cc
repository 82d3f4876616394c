#include "storage/io/thread_device.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <system_error>

namespace terrace {
namespace {

int64_t ResultOf(int64_t returned) { return returned < 0 ? -int64_t{errno} : returned; }

// Signals go to the threads that expect them: those made while this lives take none.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    TERRACE_CHECK(pthread_sigmask(SIG_SETMASK, &all, &before_) == 0);
  }
  ~SignalsBlocked() { TERRACE_CHECK(pthread_sigmask(SIG_SETMASK, &before_, nullptr) == 0); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

}  // namespace

Result<std::unique_ptr<ThreadDevice>> ThreadDevice::Create(DeviceFiles& files,
                                                           const Options& options,
                                                           const Clock& clock) {
  TERRACE_CHECK(options.thread_count >= 1 && options.thread_count <= kIoThreadCountMax);
  UniqueFd event(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!event.valid()) return ErrnoStatus("eventfd", errno);
  // The files move in last, so that they stay the caller's when there is no thread.
  std::unique_ptr<ThreadDevice> device(
      new ThreadDevice(std::move(files), std::move(event), options, clock));
  Status started = device->StartThreads(options.thread_count);
  if (started.ok()) return device;
  files = std::move(device->files_);
  return started;
}

ThreadDevice::ThreadDevice(DeviceFiles files, UniqueFd event, const Options& options,
                           const Clock& clock)
    : QueuedDevice({.capacity_bytes = files.capacity_bytes(),
                    .stripe_bytes = files.stripe_bytes(),
                    .file_count = static_cast<uint32_t>(files.files().size()),
                    .writable = files.writable()},
                   std::move(event), options.buffer_count, clock),
      files_(std::move(files)),
      why_(options.why) {
  started_.reserve(2 * kIoOperationsMax);
  reaped_.reserve(kIoOperationsMax);
  completions_.reserve(kIoOperationsMax);
}

ThreadDevice::~ThreadDevice() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

Status ThreadDevice::StartThreads(uint32_t count) {
  const SignalsBlocked blocked;
  threads_.reserve(count);
  try {
    for (uint32_t i = 0; i < count; ++i) threads_.emplace_back([this] { Run(); });
  } catch (const std::system_error& error) {
    if (threads_.empty()) return ErrnoStatus("starting an I/O thread", error.code().value());
  }
  return Status::Ok();  // fewer are slower, no more
}

std::string ThreadDevice::Describe() const {
  std::string text = std::to_string(threads_.size()) + " " + DeviceModeName(mode());
  if (!why_.empty()) text += ": " + why_;
  return text;
}

void ThreadDevice::Start(const Operation& operation) { started_.push_back(operation); }

bool ThreadDevice::Kick() {
  {
    const std::lock_guard lock(mutex_);
    for (const Operation& operation : started_) {
      TERRACE_CHECK(waiting_count_ < kIoOperationsMax);
      waiting_[(waiting_first_ + waiting_count_++) % kIoOperationsMax] = operation;
    }
  }
  if (started_.size() > 1) {
    changed_.notify_all();
  } else if (!started_.empty()) {
    changed_.notify_one();
  }
  started_.clear();
  return true;
}

void ThreadDevice::StartCancel(uint64_t tag) {
  const auto end = [this, tag] {
    completions_.push_back({.tag = tag, .result = -ECANCELED});
    Wake();
  };
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < started_.size(); ++i) {
    if (started_[i].tag != tag) continue;
    started_.erase(started_.begin() + static_cast<std::ptrdiff_t>(i));
    return end();
  }
  for (uint32_t i = 0; i < waiting_count_; ++i) {
    if (waiting_[(waiting_first_ + i) % kIoOperationsMax].tag != tag) continue;
    for (uint32_t j = i; j + 1 < waiting_count_; ++j) {
      waiting_[(waiting_first_ + j) % kIoOperationsMax] =
          waiting_[(waiting_first_ + j + 1) % kIoOperationsMax];
    }
    --waiting_count_;
    return end();
  }
}

void ThreadDevice::Reap() {
  {
    const std::lock_guard lock(mutex_);
    reaped_.swap(completions_);
  }
  for (const Completion& completion : reaped_) Completed(completion.tag, completion.result);
  reaped_.clear();
}

void ThreadDevice::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || waiting_count_ > 0; });
    if (stopping_) return;
    const Operation operation = waiting_[waiting_first_];
    waiting_first_ = (waiting_first_ + 1) % kIoOperationsMax;
    --waiting_count_;

    lock.unlock();
    const int64_t result = Perform(operation);
    lock.lock();

    const bool first = completions_.empty();
    completions_.push_back({.tag = operation.tag, .result = result});
    if (first) Wake();
  }
}

int64_t ThreadDevice::Perform(const Operation& operation) const {
  const DeviceFile& file = files_.files()[operation.file];
  const iovec range{.iov_base = operation.memory, .iov_len = operation.bytes};
  const auto offset = static_cast<off_t>(operation.offset);
  switch (operation.kind) {
    case IoKind::kRead: return ResultOf(preadv2(file.fd.get(), &range, 1, offset, 0));
    case IoKind::kWrite: return ResultOf(pwritev2(file.fd.get(), &range, 1, offset, 0));
    case IoKind::kSync: return ResultOf(fdatasync(file.fd.get()));
    case IoKind::kDiscard:
      if (!file.raw) return 0;
      return ResultOf(
          fallocate(file.fd.get(), kDiscardMode, offset, static_cast<off_t>(operation.bytes)));
  }
  return -EINVAL;
}

}  // namespace terrace
