#pragma once

// A namespace as one process knows it: under which id it is registered with which session.  It
// changes when the connection comes back and when the epoch is bumped.
//
// Threads: `current` from any thread, lock-free; the rest takes a lock.

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "client/core/client.h"
#include "client/core/session.h"

namespace terrace {

struct NamespaceAttachment {
  std::shared_ptr<Session> session;  // null: the chunks travel in messages
  shm::NamespaceRef ref;
};

class NamespaceState {
 public:
  explicit NamespaceState(NamespaceIdentity identity) : identity_(std::move(identity)) {}

  const NamespaceIdentity& identity() const { return identity_; }

  // Null while there is no daemon.  Valid as long as the state: readers take no reference, so
  // attachments are never freed before.  (There is one for each reconnect and epoch bump; a dead
  // session that one holds has let go of its mappings.)
  const NamespaceAttachment* current() const { return current_.load(std::memory_order_acquire); }

  void Attach(std::shared_ptr<Session> session, shm::NamespaceRef ref) {
    const std::lock_guard lock(mutex_);
    attachments_.push_back(std::make_unique<NamespaceAttachment>(
        NamespaceAttachment{.session = std::move(session), .ref = ref}));
    current_.store(attachments_.back().get(), std::memory_order_release);
    renewing_.store(false, std::memory_order_release);
  }

  void Detach() {
    current_.store(nullptr, std::memory_order_release);
    renewing_.store(false, std::memory_order_release);
  }

  // True for the first who finds that the id has gone stale: that one asks for a new one.
  bool BeginRenewal() { return !renewing_.exchange(true, std::memory_order_acq_rel); }
  void EndRenewal() { renewing_.store(false, std::memory_order_release); }

 private:
  const NamespaceIdentity identity_;
  std::atomic<const NamespaceAttachment*> current_{nullptr};
  std::atomic<bool> renewing_{false};

  std::mutex mutex_;
  std::vector<std::unique_ptr<NamespaceAttachment>> attachments_;
};

}  // namespace terrace
