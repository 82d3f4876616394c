#include "client/core/connection.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <exception>
#include <system_error>

#include "client/core/connection_loop.h"
#include "client/core/rpc_convert.h"

namespace terrace {
namespace {

constexpr int64_t kLoopRetryNs = 100 * kNsPerMs;

// While it lives this thread takes no signal, and nor do the threads that it starts.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_{};
};

}  // namespace

std::shared_ptr<Connection> Connection::Start(const ClientOptions& options, Sockets sockets) {
  std::shared_ptr<Connection> connection(new Connection(options, std::move(sockets)));
  connection->EnsureStarted();
  return connection;
}

Connection::~Connection() = default;

void Connection::EnsureStarted() {
  if (started_.load(std::memory_order_acquire)) return;
  const std::lock_guard lock(mutex_);
  if (started_.load(std::memory_order_relaxed) || stopping_) return;
  if (!wake_.valid()) wake_.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_.valid()) {
    why_away_ = Status(StatusCode::kUnavailable, ErrnoStatus("eventfd", errno).message());
    return;
  }
  const SignalsBlocked blocked;
  try {
    thread_ = std::thread([this] { Run(); });
    started_.store(true, std::memory_order_release);
  } catch (const std::system_error& error) {
    why_away_ = Status(StatusCode::kUnavailable,
                       std::string("cannot start the library's thread: ") + error.what());
  }
}

void Connection::Run() {
  for (;;) {
    Status why(StatusCode::kUnavailable);
    try {
      Loop(*this).Run();
      return;
    } catch (const kj::Exception& exception) {
      why = Status(StatusCode::kUnavailable, exception.getDescription().cStr());
    } catch (const std::exception& exception) {
      why = Status(StatusCode::kUnavailable, exception.what());
    }
    Lost(why);
    RunWithoutLoop(kLoopRetryNs);
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
  }
}

void Connection::RunWithoutLoop(int64_t pause_ns) {
  const int64_t until_ns = MonotonicNs() + pause_ns;
  for (;;) {
    std::deque<Work> posted;
    {
      const std::lock_guard lock(mutex_);
      posted.swap(posted_);
      if (stopping_) pause_ns = 0;
    }
    for (const Work& work : posted) work(nullptr);
    const int64_t left_ns = until_ns - MonotonicNs();
    if (pause_ns == 0 || left_ns <= 0) return;
    pollfd woken{.fd = wake_.get(), .events = POLLIN, .revents = 0};
    poll(&woken, 1, static_cast<int>(left_ns / kNsPerMs) + 1);
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t taken = read(wake_.get(), &count, sizeof count);
  }
}

void Connection::Lost(const Status& why) {
  const std::lock_guard lock(mutex_);
  why_away_ = why;
  for (const auto& weak : namespaces_) {
    if (const auto state = weak.lock()) state->Detach();
  }
  changed_.notify_all();
}

Status Connection::Away() {
  const std::lock_guard lock(mutex_);
  std::string why = why_away_.message();
  const bool named = std::any_of(sockets_.paths.begin(), sockets_.paths.end(),
                                 [&](const auto& path) { return why.find(path) != why.npos; });
  if (!named) why = "no session with the daemon at " + sockets_.words + ": " + why;
  return Status(StatusCode::kUnavailable, why);
}

void Connection::Stop() {
  std::thread thread;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    thread.swap(thread_);
  }
  Wake();
  if (thread.joinable()) thread.join();
  std::deque<Work> left;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    why_away_ = Status(StatusCode::kUnavailable, "the client was closed");
    left.swap(posted_);
    changed_.notify_all();
  }
  for (const Work& work : left) work(nullptr);
}

void Connection::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_.get(), &one, sizeof one);
}

bool Connection::Post(Work work) {
  {
    const std::lock_guard lock(mutex_);
    if (stopped_ || !started_.load(std::memory_order_relaxed)) return false;
    posted_.push_back(std::move(work));
  }
  Wake();
  return true;
}

void Connection::RequestHousekeeping() {
  if (!housekeeping_wanted_.exchange(true, std::memory_order_acq_rel)) Wake();
}

void Connection::AddCall(kj::Promise<void> call) { calls_->add(kj::mv(call)); }

void Connection::WaitTimed(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
                           int64_t until_ns, const std::function<bool()>& done) {
  while (!done()) {
    const int64_t left_ns = until_ns - MonotonicNs();
    if (left_ns <= 0) return;
    changed.wait_for(lock, std::chrono::nanoseconds(left_ns));
  }
}

Status Connection::AwaitAvailable(int64_t deadline_ns) {
  std::unique_lock lock(mutex_);
  // A refusal for good (another tenant, a bad path) is not waited out, and nor is the lack of a
  // thread that could connect.
  WaitTimed(lock, changed_, deadline_ns, [this] {
    return available() || stopping_ || why_away_.code() != StatusCode::kUnavailable ||
           !started_.load(std::memory_order_relaxed);
  });
  return available() ? Status::Ok() : why_away_;
}

Delivered<bool> Connection::StartRegistration(Link& link,
                                              const std::shared_ptr<NamespaceState>& state) {
  using Reply = capnp::Response<rpc::Session::RegisterNamespaceResults>;
  auto request = link.session.registerNamespaceRequest();
  ToRpc(state->identity(), request.initSpec());
  return request.send().then([state, session = link.mapped](Reply&& reply) -> Delivery<bool> {
    if (reply.getStatus().getCode() != rpc::Code::OK) return FromRpc(reply.getStatus());
    state->Attach(session, RefOf(reply.getInfo()));
    return true;
  });
}

Status Connection::Register(const std::shared_ptr<NamespaceState>& state) {
  {
    // Before the call: a connection that comes back in between then registers it too.
    const std::lock_guard lock(mutex_);
    std::erase_if(namespaces_, [](const auto& weak) { return weak.expired(); });
    namespaces_.push_back(state);
  }
  const Result<bool> registered =
      Call<bool>([this, state](Link& link) { return StartRegistration(link, state); });
  return registered.status();
}

void Connection::Renew(const std::shared_ptr<NamespaceState>& state) {
  if (!state->BeginRenewal()) return;
  const bool posted = Post([this, state](Link* link) {
    if (link == nullptr) return state->EndRenewal();
    AddCall(StartRegistration(*link, state).then([](Delivery<bool>&&) {}).attach(kj::defer([state] {
      state->EndRenewal();
    })));
  });
  if (!posted) state->EndRenewal();
}

}  // namespace terrace
