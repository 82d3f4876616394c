#pragma once

// Between the wire's structs and the engine's values.
//
// Threads: pure.

#include "proto/terrace.capnp.h"
#include "storage/base/result.h"
#include "storage/engine/chunk_store.h"

namespace terrace {

rpc::Code ToRpc(StatusCode code);
void ToRpc(const Status& status, rpc::Status::Builder out);

// An invalid key (length 0) for bytes that are no key.
shm::ChunkKey FromRpc(rpc::Key::Reader key);
void ToRpc(const shm::ChunkKey& key, rpc::Key::Builder out);

NamespaceSpec FromRpc(rpc::NamespaceSpec::Reader spec);
void ToRpc(const NamespaceInfo& info, rpc::NamespaceInfo::Builder out);
void ToRpc(const ChunkExplanation& explanation, rpc::Explanation::Builder out);
void ToRpc(const ChunkInfo& info, rpc::ChunkInfo::Builder out);

}  // namespace terrace
