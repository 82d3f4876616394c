#pragma once

// Between the wire's structs and the library's values.
//
// Threads: pure.

#include "client/core/client.h"
#include "proto/shm/lookup.h"
#include "proto/terrace.capnp.h"

namespace terrace {

StatusCode FromRpc(rpc::Code code);
Status FromRpc(rpc::Status::Reader status);

void ToRpc(const shm::ChunkKey& key, rpc::Key::Builder out);
// An invalid key (length 0) for bytes that are no key.
shm::ChunkKey FromRpc(rpc::Key::Reader key);
KeyState FromRpc(rpc::KeyState state);

void ToRpc(const NamespaceIdentity& identity, rpc::NamespaceSpec::Builder out);
NamespaceIdentity FromRpc(rpc::NamespaceSpec::Reader spec);
ListedNamespace FromRpc(rpc::NamespaceInfo::Reader info);
shm::NamespaceRef RefOf(rpc::NamespaceInfo::Reader info);
ListedChunk FromRpc(rpc::ChunkInfo::Reader info);
Explanation FromRpc(rpc::Explanation::Reader explanation);

}  // namespace terrace
