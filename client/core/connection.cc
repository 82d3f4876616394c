#include "client/core/connection.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>

#include "client/core/connection_loop.h"
#include "client/core/rpc_convert.h"
#include "storage/base/check.h"

namespace terrace {

std::shared_ptr<Connection> Connection::Start(const ClientOptions& options, std::string socket) {
  std::shared_ptr<Connection> connection(new Connection(options, std::move(socket)));
  connection->wake_.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  TERRACE_CHECK(connection->wake_.valid());
  // The new thread inherits the mask: no signal of the engine's is ever taken by our thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  connection->thread_ = std::thread([self = connection.get()] { Loop(*self).Run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return connection;
}

Connection::~Connection() = default;

void Connection::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  Wake();
  if (thread_.joinable()) thread_.join();
  std::deque<Work> left;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    left.swap(posted_);
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
    if (stopped_) return false;
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
  // A refusal for good (another tenant, a bad path) is not waited out.
  WaitTimed(lock, changed_, deadline_ns, [this] {
    return available() || stopping_ || why_away_.code() != StatusCode::kUnavailable;
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
