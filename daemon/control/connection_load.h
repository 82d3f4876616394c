#pragma once

// What one connection holds of the daemon, each kind with a bound: calls in flight, keys
// that they wait for, sessions, descriptors, payload, and answers that its peer does not read.
//
// Threads: the control thread; a Hold may go on any thread.

#include <capnp/rpc-twoparty.h>
#include <kj/debug.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "storage/base/limits.h"

namespace terrace {

// A count that never passes its limit.
class Bound {
 public:
  // A share of it, given back with the last copy.
  using Hold = std::shared_ptr<void>;

  explicit Bound(uint32_t limit) : limit_(limit) {}

  // Null when `amount` would pass the limit.  REQUIRES: one thread takes.
  Hold Take(uint32_t amount = 1) {
    if (*used_ + amount > limit_) return nullptr;
    *used_ += amount;
    return Hold(static_cast<void*>(used_.get()),
                [used = used_, amount](void*) { *used -= amount; });
  }

 private:
  const uint32_t limit_;
  const std::shared_ptr<std::atomic<uint32_t>> used_ = std::make_shared<std::atomic<uint32_t>>(0);
};

// Calls are short or wait for a deadline: a client that needs more has no use of its answers.
inline constexpr uint32_t kConnectionCallsMax = 1024;
// Of gets and prefetches: as many as a session's rings hold, 64 requests of 256.  Whenever a key
// settles, all that wait are looked at.
inline constexpr uint32_t kConnectionWaitingKeysMax = 16384;
// A client needs one; the rest is for those that end while their process lives on.
inline constexpr uint32_t kConnectionSessionsMax = 8;
// A client maps what a message brings and lets go of it; four messages may be on their way.
inline constexpr uint32_t kConnectionDescriptorsMax = 4 * kDescriptorsPerMessageMax;
// Answers that wait to be read, in number and bytes: twice what a peer that reads can have caused.
inline constexpr uint64_t kUnreadAnswersMax = 2 * kConnectionCallsMax;
inline constexpr uint64_t kUnreadBytesMax = 2 * kConnectionPayloadBytesMax;

struct ConnectionLoad {
  uint64_t payload_bytes = 0;  // in flight
  Bound calls{kConnectionCallsMax};
  Bound waiting_keys{kConnectionWaitingKeysMax};
  Bound sessions{kConnectionSessionsMax};
  Bound descriptors{kConnectionDescriptorsMax};
  capnp::TwoPartyVatNetwork* network = nullptr;  // null once the connection has ended
  kj::Own<kj::PromiseFulfiller<void>> cut;       // ends the connection

  uint64_t unread_bytes() const { return network == nullptr ? 0 : network->getCurrentQueueSize(); }

  // One call, until the Hold goes.  Throws, naming the limit, when there are too many; ends the
  // connection of a peer that goes on calling and reads no answers.
  Bound::Hold BeginCall() {
    if (network != nullptr && (network->getCurrentQueueCount() > kUnreadAnswersMax ||
                               network->getCurrentQueueSize() > kUnreadBytesMax)) {
      cut->fulfill();
      KJ_FAIL_REQUIRE("the connection ends: its answers are not read");
    }
    Bound::Hold call = calls.Take();
    KJ_REQUIRE(call != nullptr, "a connection has at most 1024 calls in flight");
    return call;
  }
};

// A capability whose calls count on its connection's load.
template <typename Interface>
class CountedServer : public Interface::Server {
 public:
  explicit CountedServer(std::shared_ptr<ConnectionLoad> load) : load_(std::move(load)) {}

  capnp::Capability::Server::DispatchCallResult dispatchCall(
      uint64_t interface_id, uint16_t method_id,
      capnp::CallContext<capnp::AnyPointer, capnp::AnyPointer> context) override {
    Bound::Hold call = load_->BeginCall();
    auto dispatched = Interface::Server::dispatchCall(interface_id, method_id, context);
    dispatched.promise = dispatched.promise.attach(std::move(call));
    return dispatched;
  }

 protected:
  const std::shared_ptr<ConnectionLoad> load_;
};

}  // namespace terrace
