#pragma once

// The flows with the payloads in messages, for clients without shared memory.  The same answers as
// over the rings, with copies: a Pin owns its bytes.
//
// Threads: safe from any thread.

#include <span>
#include <vector>

#include "client/core/connection.h"

namespace terrace {

struct RemoteCalls {
  Connection& connection;
  uint32_t namespace_id = 0;

  MatchResult Match(std::span<const shm::ChunkKey> keys) const;
  std::vector<GetResult> Get(std::span<const shm::ChunkKey> keys, const GetOptions& options) const;
  std::vector<StatusCode> Put(std::span<const PutItem> items, int64_t timeout_ns) const;
  std::vector<StatusCode> Prefetch(std::span<const shm::ChunkKey> keys, int64_t timeout_ns) const;
  std::vector<StatusCode> Persist(std::span<const shm::ChunkKey> keys, int64_t timeout_ns) const;
  std::vector<StatusCode> Remove(std::span<const shm::ChunkKey> keys) const;
  std::vector<StatusCode> Lease(std::span<const shm::ChunkKey> keys, int64_t ttl_ns) const;

 private:
  using Codes = std::vector<StatusCode>;
  Codes PutSome(std::span<const PutItem> items, int64_t timeout_ns) const;
  void GetSome(std::span<const shm::ChunkKey> keys, const GetOptions& options,
               std::span<GetResult> results) const;
  template <typename Request, typename Results>
  Codes EachKey(std::span<const shm::ChunkKey> keys, int64_t timeout_ns,
                std::function<Request(rpc::Session::Client&)> begin) const;
};

}  // namespace terrace
