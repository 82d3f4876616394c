#pragma once

// Calls from the control thread to the shard: a value goes over, a promise of a value comes back.
//
// Threads: OnShard from a thread with a kj event loop; `work` runs on the shard's thread.

#include <kj/async.h>

#include <functional>
#include <memory>
#include <utility>

#include "daemon/session/shard.h"

namespace terrace {

// Of a call that answers nothing.
struct Done {};

// The way back.  Dropped without Fulfill (the shard has stopped), it rejects the promise.
template <typename T>
class Reply {
 public:
  using Fulfiller = kj::Own<kj::CrossThreadPromiseFulfiller<kj::Own<T>>>;

  explicit Reply(Fulfiller fulfiller)
      : fulfiller_(std::make_shared<Fulfiller>(kj::mv(fulfiller))) {}

  void Fulfill(T value) const { (*fulfiller_)->fulfill(kj::heap<T>(kj::mv(value))); }

 private:
  std::shared_ptr<Fulfiller> fulfiller_;  // shared: a std::function must be copyable
};

// `work` gets the Reply and may answer later.
template <typename T>
kj::Promise<kj::Own<T>> OnShardLater(Shard& shard, std::function<void(Reply<T>)> work) {
  auto pair = kj::newPromiseAndCrossThreadFulfiller<kj::Own<T>>();
  shard.Post([work = std::move(work), reply = Reply<T>(kj::mv(pair.fulfiller))] { work(reply); });
  return kj::mv(pair.promise);
}

template <typename T>
kj::Promise<kj::Own<T>> OnShard(Shard& shard, std::function<T()> work) {
  return OnShardLater<T>(shard,
                         [work = std::move(work)](Reply<T> reply) { reply.Fulfill(work()); });
}

}  // namespace terrace
