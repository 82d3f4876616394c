#pragma once

// What runs on the library's thread: connect, open, attach, serve until the connection is lost.
//
// Threads: the library's thread only.

#include <capnp/rpc-twoparty.h>
#include <kj/async-unix.h>

#include <memory>
#include <vector>

#include "client/core/connection.h"

namespace terrace {

class Connection::Loop final : private kj::TaskSet::ErrorHandler {
 public:
  explicit Loop(Connection& owner);

  // Until Stop.
  void Run();

 private:
  struct Wire;

  // One life of a connection; answers why it ended.
  Status Serve();
  Status OpenSession(Wire& wire);
  Status Attach(uint64_t boot_epoch);
  void RegisterAll();
  kj::Promise<void> PollSegments(bool once);
  kj::Promise<bool> MapSegments();
  void PauseBefore(int64_t backoff_ns);

  kj::Promise<void> WatchPosted();
  void RunPosted();
  void Housekeep();

  // `promise`, or an exception after kStepNsMax or on Stop.
  template <typename T>
  T Within(kj::Promise<T> promise);

  void taskFailed(kj::Exception&& exception) override;

  Connection& owner_;
  kj::AsyncIoContext io_;
  kj::UnixEventPort::FdObserver wake_observer_;
  kj::PromiseFulfillerPair<void> stop_;
  kj::ForkedPromise<void> stopped_;
  bool stopping_ = false;

  // Of the connection that is up, or was last.
  bool served_ = false;  // it became available
  std::unique_ptr<Link> link_;
  uint64_t segments_epoch_ = 0;
  bool housekeeping_ = false;  // a call is scheduled

  kj::TaskSet tasks_;
};

}  // namespace terrace
