#pragma once

// The library's thread: a kj event loop that keeps one connection to the daemon, opens the session,
// maps segments as they come, registers namespaces again after a reconnect, and carries the control
// calls of other threads.  It blocks every signal.
//
// away --connect, open, attach--> available --disconnect--> away (again after 20 ms ... 1 s)
//
// A process short of descriptors or memory for the loop is away as well, and tried again like a
// daemon that does not answer; one short of threads is tried again by whoever asks next.
//
// Threads: public methods from any thread; Link is touched on the library's thread only.

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "client/core/client.h"
#include "client/core/namespace_state.h"
#include "client/core/session.h"
#include "proto/terrace.capnp.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"

namespace terrace {

// A Result on its way through kj's promises, on the heap: inside a kj::Maybe gcc 12 takes a
// Result's optional for uninitialised.
template <typename T>
class Delivery {
 public:
  Delivery(Result<T> result) : result_(std::make_unique<Result<T>>(std::move(result))) {}  // NOLINT
  Delivery(Status status) : Delivery(Result<T>(std::move(status))) {}                      // NOLINT
  Delivery(T value) : Delivery(Result<T>(std::move(value))) {}                             // NOLINT

  const Result<T>& result() const { return *result_; }
  Result<T> Take() && { return std::move(*result_); }

 private:
  std::unique_ptr<Result<T>> result_;
};

template <typename T>
using Delivered = kj::Promise<Delivery<T>>;

// Where daemons may serve.
struct Sockets {
  std::vector<std::string> paths;  // at least one; each attempt tries them in this order
  std::string words;               // all of them, for messages
};

// A connection that is up.
struct Link {
  rpc::Terrace::Client terrace;
  rpc::Session::Client session;
  std::shared_ptr<Session> mapped;  // null: no shared memory
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  static std::shared_ptr<Connection> Start(const ClientOptions& options, Sockets sockets);
  // REQUIRES: Stop was called.
  ~Connection();

  // Starts the library's thread if the system refused it before; costs a load when it runs.
  void EnsureStarted();
  // Ends the session and the thread; every call answers kUnavailable from now on.
  void Stop();

  bool available() const { return available_.load(std::memory_order_acquire); }
  // Of the daemon connected to last; 0 before the first.
  uint32_t chunk_bytes_max() const { return chunk_bytes_max_.load(std::memory_order_relaxed); }
  // Whether it became available by the deadline; else why not.
  Status AwaitAvailable(int64_t deadline_ns);

  // Runs `start` on the library's thread and waits for what its promise gives: at most
  // kCallTimeoutNs, then kDeadline.  kUnavailable at once without a daemon.
  template <typename T>
  Result<T> Call(std::function<Delivered<T>(Link&)> start, int64_t timeout_ns = kCallTimeoutNs);

  // Registers and keeps registered for as long as the state lives.
  Status Register(const std::shared_ptr<NamespaceState>& state);
  // The namespace's id has gone stale: registers again, soon.
  void Renew(const std::shared_ptr<NamespaceState>& state);

 private:
  using Work = std::function<void(Link*)>;  // null: no daemon
  template <typename T>
  struct Answer;
  class Loop;  // connection_loop.h
  friend class Loop;

  Connection(const ClientOptions& options, Sockets sockets)
      : options_(options), sockets_(std::move(sockets)) {}

  // The thread's body.
  void Run();
  // While there is no loop: answers what is posted with null, for `pause_ns` or until Stop.
  void RunWithoutLoop(int64_t pause_ns);
  void Lost(const Status& why);
  // False without a thread: the work is dropped.
  bool Post(Work work);
  // What a call answers while there is no daemon: kUnavailable, with the socket and the reason.
  Status Away();
  static void WaitTimed(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
                        int64_t until_ns, const std::function<bool()>& done);
  void AddCall(kj::Promise<void> call);
  Delivered<bool> StartRegistration(Link& link, const std::shared_ptr<NamespaceState>& state);
  void RequestHousekeeping();
  void Wake();

  // Constant after Start.
  const ClientOptions options_;
  const Sockets sockets_;

  std::atomic<bool> started_{false};
  std::atomic<bool> available_{false};
  std::atomic<bool> housekeeping_wanted_{false};
  std::atomic<uint32_t> chunk_bytes_max_{0};

  std::mutex mutex_;
  std::condition_variable changed_;
  // Under the lock.
  std::deque<Work> posted_;
  bool stopping_ = false;
  bool stopped_ = false;
  UniqueFd wake_;  // an eventfd: work was posted; constant once started
  std::thread thread_;
  Status why_away_{StatusCode::kUnavailable, "not connected yet"};
  std::vector<std::weak_ptr<NamespaceState>> namespaces_;

  // Owned by the library's thread.
  kj::TaskSet* calls_ = nullptr;  // of the link that is up
};

// Where an answer travels between the threads.  The first end counts.
template <typename T>
struct Connection::Answer {
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<Result<T>> result;

  bool finished() {
    const std::lock_guard lock(mutex);
    return result.has_value();
  }
  void Finish(Result<T> value) {
    const std::lock_guard lock(mutex);
    if (result.has_value()) return;
    result.emplace(std::move(value));
    changed.notify_all();
  }
};

template <typename T>
Result<T> Connection::Call(std::function<Delivered<T>(Link&)> start, int64_t timeout_ns) {
  const int64_t until_ns = MonotonicNs() + timeout_ns;
  auto answer = std::make_shared<Answer<T>>();
  const bool posted = Post([this, answer, start = std::move(start)](Link* link) {
    if (link == nullptr) return answer->Finish(Away());
    AddCall(kj::evalNow([&] { return start(*link); })
                .then([answer](Delivery<T>&& made) { answer->Finish(std::move(made).Take()); },
                      [answer](kj::Exception&& failed) {
                        const bool lost = failed.getType() == kj::Exception::Type::DISCONNECTED;
                        answer->Finish(
                            Status(lost ? StatusCode::kUnavailable : StatusCode::kInvalid,
                                   failed.getDescription().cStr()));
                      })
                .attach(kj::defer([this, answer] {
                  if (!answer->finished()) answer->Finish(Away());
                })));
  });
  if (!posted) return Away();
  std::unique_lock lock(answer->mutex);
  WaitTimed(lock, answer->changed, until_ns, [&] { return answer->result.has_value(); });
  if (!answer->result.has_value()) {
    return Status(StatusCode::kDeadline,
                  "the daemon at " + sockets_.words + " did not answer in time");
  }
  return *std::move(answer->result);
}

}  // namespace terrace
