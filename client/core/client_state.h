#pragma once

// What a Client and its Namespaces share: this process' connection.  A forked child makes one of
// its own at its first call, and leaks what it inherited: the thread behind it was not copied, and
// its locks may be held for ever.
//
// Threads: safe from any thread.

#include <atomic>
#include <memory>

#include "client/core/connection.h"

namespace terrace {

class ClientState {
 public:
  // Starts connecting.
  explicit ClientState(ClientOptions options);
  ~ClientState();

  // Of this process.  In a child's first call: connects, waiting up to the connect timeout.  One
  // whose thread the system refused before is started again.
  Connection& connection();

  // Ends this process' connection: every call answers kUnavailable.
  void Stop();

  const std::string& socket() const { return sockets_.words; }

 private:
  struct OfProcess {
    uint64_t process = 0;
    std::shared_ptr<Connection> connection;
  };

  // Constant after construction.
  const ClientOptions options_;
  const Sockets sockets_;

  std::atomic<OfProcess*> of_process_;
};

// Namespace::Impl: one state a process, made anew in a forked child.
struct Namespace::Impl {
  struct OfProcess {
    uint64_t process = 0;
    std::shared_ptr<NamespaceState> state;
  };

  Impl(std::shared_ptr<ClientState> shared_client, std::shared_ptr<NamespaceState> state);
  ~Impl();

  NamespaceState& state();
  // Null while there is no daemon.
  const NamespaceAttachment* current();
  // The attachment's id has gone stale: a new one is asked for in the background.
  void Renew();

  const std::shared_ptr<ClientState> client;
  const NamespaceIdentity identity;
  std::atomic<OfProcess*> of_process;
};

}  // namespace terrace
