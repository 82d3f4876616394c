@0xd1f7a3c0b5e84a62;

# Terrace's control plane.  Any Cap'n Proto client can speak it; payloads may travel in its
# messages.  A session's shared memory (proto/shm) is handed over as descriptors, to local clients.
#
# Dropping a capability releases what it stands for: a Session ends with its last reference or with
# its connection.  Every call completes exactly once.  A message carries at most 32 MiB of payload, a
# connection at most 64 MiB in flight.  Status codes are those of storage/base/status.h, in order.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("terrace::rpc");

enum Code {
  ok @0; notFound @1; busy @2; exists @3; stale @4; invalid @5; denied @6; deadline @7;
  cancelled @8; unavailable @9; corrupt @10; noSpace @11; ioError @12;
}

struct Status { code @0 :Code; message @1 :Text; }

struct Key {
  bytes @0 :Data;   # at most 32 bytes, or 32 bytes of SHA-256 with `hashed`
  part @1 :UInt16;
  hashed @2 :Bool;  # the bytes are the SHA-256 of a longer key
}

struct GroupRule { trailing @0 :UInt32; }  # 0: every chunk; n: the last n of a prefix

struct NamespaceSpec {
  label @0 :Text;
  model @1 :Text;
  weightsDigest @2 :Text;
  dtype @3 :Text;
  layout @4 :Text;
  tokensPerChunk @5 :UInt32;
  layerBytes @6 :List(UInt64);
  ranks @7 :UInt32 = 1;
  groups @8 :List(GroupRule);
  hashAlgorithm @9 :Text;
  hashSeed @10 :Text;
  engineBuild @11 :Text;
  isa @12 :Text;
  salt @13 :Text;
}

struct NamespaceInfo {
  spec @0 :NamespaceSpec;
  id @1 :UInt32;
  liveIndex @2 :UInt32;
  epoch @3 :UInt64;
  chunkCount @4 :UInt64;
  chunkBytes @5 :UInt64;
}

struct Chunk { key @0 :Key; data @1 :Data; }

# The daemon's bootstrap capability.
interface Terrace {
  open @0 (clientName :Text, layoutVersion :UInt32) -> (status :Status, session :Session, info :SessionInfo);
  status @1 () -> (json :Text);  # what `terrace status --json` prints
  admin @2 () -> (status :Status, admin :Admin);  # of the caller's tenant; denied to who has none
}

struct SessionInfo {
  sessionId @0 :UInt64;
  bootEpoch @1 :UInt64;
  tenant @2 :Text;
  chunkBytesMax @3 :UInt32;
  segmentBytes @4 :UInt64;
  segmentCount @5 :UInt32;
  sharedMemory @6 :Bool;  # false: layout versions differ, or the stream passes no descriptors; use RPC
  daemonVersion @7 :Text;
}

interface Descriptor {}  # carries a file descriptor (getFd) and nothing else

struct SegmentDescriptor {
  segment @0 :UInt32;
  generation @1 :UInt64;
  bytes @2 :UInt64;
  writable @3 :Bool;
  descriptor @4 :Descriptor;
}

enum KeyState { absent @0; filling @1; ready @2; nvme @3; }  # nvme: ready, not in memory

interface Session {
  # Shared memory; local clients only.
  attach @0 () -> (status :Status, index :Descriptor, indexBytes :UInt64,
                   memory :Descriptor, memoryBytes :UInt64, doorbell :Descriptor);
  # Segments that this session may map and that `known` (packed {segment:u32, writable:u32,
  # generation:u64}, little-endian) does not list; waits until there is a change since `epoch`.  At most 128 a
  # message: call again while `more`.
  segments @1 (epoch :UInt64, known :Data) -> (epoch :UInt64, segments :List(SegmentDescriptor), more :Bool);

  registerNamespace @2 (spec :NamespaceSpec) -> (status :Status, info :NamespaceInfo);

  # The same flows with the bytes in the message.  `deadlineMs` counts from arrival; 0: the default.
  put @3 (namespaceId :UInt32, chunks :List(Chunk), deadlineMs :UInt32) -> (codes :List(Code));
  # `code`: ok, or stale when the id has ended and every key is absent.
  match @4 (namespaceId :UInt32, keys :List(Key))
      -> (prefix :UInt32, states :List(KeyState), code :Code);
  get @5 (namespaceId :UInt32, keys :List(Key), deadlineMs :UInt32, wait :Bool)
      -> (codes :List(Code), data :List(Data));
  prefetch @6 (namespaceId :UInt32, keys :List(Key), deadlineMs :UInt32) -> (codes :List(Code));
  remove @7 (namespaceId :UInt32, keys :List(Key)) -> (codes :List(Code));
  lease @8 (namespaceId :UInt32, keys :List(Key), ttlMs :UInt64) -> (codes :List(Code));
  # Waits until the chunks survive kill -9 of the daemon and loss of power; `unavailable` without an NVMe tier.
  persist @9 (namespaceId :UInt32, keys :List(Key), deadlineMs :UInt32) -> (codes :List(Code));
}

struct ChunkInfo {
  key @0 :Key;
  namespaceLabel @1 :Text;
  payloadBytes @2 :UInt32;
  state @3 :KeyState;
  segment @4 :UInt32;
  offset @5 :UInt64;
  worth @6 :Float64;
  reuseClass @7 :UInt32;
  leaseLeftMs @8 :UInt64;
  tier @9 :Text;       # the nearest that holds it
  durable @10 :Bool;   # it survives kill -9 and loss of power
  logSegment @11 :UInt32;  # on NVMe, when it is durable; `segment` and `offset` when its tier is "dram"
  logOffset @12 :UInt64;
  logBytes @13 :UInt32;    # that its payload takes there: fewer than payloadBytes when it is encoded
}

# Whether a key is to be had, and why not.
enum KeyAnswer {
  ready @0; filling @1; loading @2;
  gone @3;            # it left, for `cause`
  refused @4;         # it was not taken, for `cause`
  otherNamespace @5;  # nothing is known of it here, and it is ready under `otherLabel`
  neverPut @6;        # as far as the history goes
}

# Why a chunk left or was refused: numbers of storage/engine/chunk_event.h.
enum GoneCause {
  none @0; evictedDram @1; removed @2; cleared @3; epochEnded @4; damagedDram @5; abandoned @6;
  noRoom @7; evictedNvme @8; evictedUnwritten @9; evictedNotAdmitted @10; evictedQueueFull @11;
  evictedTooLarge @12; evictedBoth @13; damagedNvme @14; damagedForClient @15; readFailed @16;
  quarantined @17; headerDiffers @18; aborted @19; indexFull @20; claimsFull @21;
  noRoomToLoad @22;
}

# Times are milliseconds since 1970; 0: not known.
struct Explanation {
  answer @0 :KeyAnswer;
  cause @1 :GoneCause;         # of the last event, whatever the answer
  whenMs @2 :Int64;            # it happened
  inDram @3 :Bool;
  onNvme @4 :Bool;
  payloadBytes @5 :UInt32;
  putMs @6 :Int64;
  namespaceKnown @7 :Bool;
  otherLabel @8 :Text;         # of another namespace in which the key is ready
  otherField @9 :Text;         # the first field of its identity that differs
  historySinceMs @10 :Int64;   # events since then are known
  historyLost @11 :UInt64;     # but for so many, dropped under load
  daemonStartedMs @12 :Int64;  # what was only in memory before is gone
}

interface Admin {
  listNamespaces @0 () -> (namespaces :List(NamespaceInfo));
  clearNamespace @1 (label :Text) -> (status :Status, chunks :UInt64);
  # The new epoch holds at once.  `stored`: ok when no restart brings the old one back, else why it
  # still may.
  bumpEpoch @2 (label :Text) -> (status :Status, info :NamespaceInfo, stored :Status);
  list @3 (cursor :UInt64, limit :UInt32) -> (chunks :List(ChunkInfo), cursor :UInt64);
  describe @4 (label :Text, key :Key) -> (status :Status, info :ChunkInfo);
  explain @5 (label :Text, key :Key) -> (status :Status, explanation :Explanation);
}
