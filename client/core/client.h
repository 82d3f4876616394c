#pragma once

// libterrace: chunks of KV cache from the node's daemon.
//
// A hit costs a lookup in shared memory and no system call.  Whatever fails is a miss: no call
// throws, none waits beyond its deadline, and while the daemon is away every call answers
// kUnavailable at once; the client reconnects by itself and registers its namespaces again.
//
// A forked child holds nothing of its parent's session: its first call connects anew, waiting up to
// the connect timeout.  Pins and tickets from before the fork stay the parent's: the child may let
// go of them, but not use them.
//
// After an epoch bump (by anybody) a Namespace answers kStale, a miss, until the library has
// registered it again; the first call that finds out asks for that, in the background.
//
// Calls without a timeout of their own, the control plane's included, end after 5 s with kDeadline.
// The library has one thread a Client, which blocks every signal.
//
// Threads: a Client and its Namespaces may be used from any number of threads.  A Pin has one user
// at a time and may outlive the Client.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "proto/shm/chunk_key.h"
#include "storage/base/result.h"

namespace terrace {

struct ClientOptions {
  // Empty: $TERRACE_SOCKET; without that each attempt to connect tries
  // $XDG_RUNTIME_DIR/terrace/terraced.sock, then /run/terrace/terraced.sock.
  std::string socket;
  std::string client_name = {};  // for status; empty: the process' name
  // How long Connect and a forked child's first call wait; connecting itself goes on behind.
  int64_t connect_timeout_ns = 2'000'000'000;
  bool reconnect = true;
  // False: the payloads travel in messages, as they do when the daemon's layout is of another
  // version.  For where descriptors cannot be passed or memory cannot be mapped.
  bool shared_memory = true;
};

// A key from an engine's bytes: up to 32 as they are, longer ones by SHA-256.  kInvalid when empty.
Result<shm::ChunkKey> MakeKey(std::span<const std::byte> bytes, uint16_t part = 0);

// Bytes of a ready chunk, held in place.  Movable; the bytes stay what they are until Release.
class Pin {
 public:
  Pin() = default;
  Pin(Pin&& other) noexcept;
  Pin& operator=(Pin&& other) noexcept;
  ~Pin();

  bool held() const { return bytes_.data() != nullptr; }
  std::span<const std::byte> bytes() const { return bytes_; }

  // Compares the bytes with the record's leaf hashes.  kCorrupt: treat as a miss.  Bytes that came
  // in a message have no record here and are kOk: the daemon answers for them.
  // REQUIRES: held(), in the process that took the pin.
  Status Verify() const;

  // In a forked child it only forgets: the pin is the parent's.
  void Release();

 private:
  friend class Session;
  friend struct RemoteCalls;

  std::shared_ptr<class Session> session_;
  std::shared_ptr<const std::byte[]> copy_;  // in place of session_: bytes that came in a message
  std::span<const std::byte> bytes_;         // the payload; the record's header lies in front
  uint64_t process_ = 0;                     // whose pin it is
  uint32_t pin_ = 0;
  shm::ChunkKey key_;
  uint32_t namespace_id_ = 0;
};

// kReady: in DRAM.  kNvme: ready too, a get fetches it.
enum class KeyState : uint8_t { kAbsent, kFilling, kReady, kNvme };

constexpr bool IsReady(KeyState state) {
  return state == KeyState::kReady || state == KeyState::kNvme;
}

struct MatchResult {
  StatusCode status = StatusCode::kOk;
  size_t prefix = 0;             // leading keys that are ready, wherever
  std::vector<KeyState> states;  // one a key
};

struct GetResult {
  // kOk: `pin` is held.  kBusy: being written, no pin is free, or memory has no room for what is on
  // NVMe.  All others are misses too.
  StatusCode status = StatusCode::kNotFound;
  Pin pin;
};

struct GetOptions {
  int64_t timeout_ns = 1'000'000'000;
  bool wait_for_filling = false;  // a key that another process is writing is waited for
  // Hash the bytes before answering.  Those that differ are kCorrupt, and the chunk is removed, so
  // that it is absent from now on and a put heals it.
  bool verify = false;
};

struct PutItem {
  shm::ChunkKey key;
  std::span<const std::byte> payload;
};

struct PutRequest {
  shm::ChunkKey key;
  uint32_t payload_bytes = 0;
};

// Claims of one batch, in flight or granted.  Each granted key must be filled and committed; what
// is not when the ticket goes is aborted.
class PutTicket {
 public:
  struct Grant {
    StatusCode status = StatusCode::kBusy;  // kOk: write `payload`
    std::byte* payload = nullptr;  // in the daemon's memory, payload_bytes long, 4 KiB-aligned
  };

  PutTicket();
  PutTicket(PutTicket&&) noexcept;
  PutTicket& operator=(PutTicket&&) noexcept;
  ~PutTicket();

  // Waits for the daemon's answer.  One grant a request, in order.
  std::span<const Grant> Wait();

  // Fills grant `i` from `source` with a non-temporal copy that hashes as it goes.
  // Past the put's deadline it writes nothing: the claim's end is then kDeadline.
  // REQUIRES: Wait was called; grant i is kOk and not yet filled.
  void Fill(size_t i, const void* source);

  // Hashes what somebody else (a GPU's DMA) has written into grant `i`.
  void Seal(size_t i);

  // Publishes what was filled or sealed, aborts the rest (kCancelled); answers each request's end.
  // The second form does not wait: the answers come with Finish, which is called once.
  std::vector<StatusCode> Commit();
  void CommitAsync();
  std::vector<StatusCode> Finish();

 private:
  friend class Namespace;
  struct Batch;
  std::unique_ptr<Batch> batch_;
};

struct NamespaceIdentity {  // NamespaceSpec of the daemon; see docs/protocol.md
  std::string label, model, weights_digest, dtype, layout;
  uint32_t tokens_per_chunk = 0;
  std::vector<uint64_t> layer_bytes;
  uint32_t ranks = 1;
  std::vector<uint32_t> group_trailing = {0};  // a KV group: 0 every chunk, n the trailing n
  std::string hash_algorithm, hash_seed, engine_build, isa, salt;
};

// A registered namespace.  At most kBatchKeysMax (256) keys a call travel in one request; more are
// cut into several.
class Namespace {
 public:
  ~Namespace();

  // No daemon, no system call.
  MatchResult Match(std::span<const shm::ChunkKey> keys) const;

  // The longest prefix, in chunks, that can be restored under the namespace's ranks and groups:
  // `keys` are of part 0; each part's key is the same bytes with that part.
  size_t RestorablePrefix(std::span<const shm::ChunkKey> keys) const;

  // A DRAM hit takes no system call; what the library cannot answer alone goes through the ring.
  // Touches the keys that hit, the last first.
  std::vector<GetResult> Get(std::span<const shm::ChunkKey> keys, const GetOptions& options = {});

  // One key, the shortest way: a hit allocates nothing.
  StatusCode GetOne(const shm::ChunkKey& key, Pin* pin);

  // BeginPut, fill, commit.  kExists is success of another kind: the key is there or on its way.
  std::vector<StatusCode> Put(std::span<const PutItem> items, int64_t timeout_ns = 30'000'000'000);

  // Sends the claims and returns; several tickets may be in flight, up to 63 requests a process.  1
  // to 256 keys, else kInvalid.  Without shared memory the ticket fills buffers of this process,
  // and the claims are taken with the commit.
  Result<PutTicket> BeginPut(std::span<const PutRequest> requests,
                             int64_t timeout_ns = 30'000'000'000);

  std::vector<StatusCode> Prefetch(std::span<const shm::ChunkKey> keys,
                                   int64_t timeout_ns = 1'000'000'000);
  // Waits until the chunks survive kill -9 of the daemon and loss of power, whatever the admission
  // to NVMe would say.  kOk: they do.  kDeadline: not yet.  kUnavailable: also without an NVMe
  // tier. kDenied: it is read-only.  kIoError: it could not be written.  kInvalid: too long for it.
  // Whatever it answers, what is in DRAM stays there.
  std::vector<StatusCode> Persist(std::span<const shm::ChunkKey> keys,
                                  int64_t timeout_ns = 30'000'000'000);
  // Put, then Persist in what is left of the timeout: kOk and kExists for chunks that survive, else
  // what kept them from it.
  std::vector<StatusCode> PutDurable(std::span<const PutItem> items,
                                     int64_t timeout_ns = 30'000'000'000);

  std::vector<StatusCode> Remove(std::span<const shm::ChunkKey> keys);
  // Keeps ready chunks for `ttl_ns`, whatever becomes of this process; extends, never shortens.
  // kNotFound unless ready.  kBusy: leased chunks of all clients may take half of the tenant's pool
  // (each its payload rounded up to 4 KiB, and 4 KiB); this one would take more, and is not leased.
  std::vector<StatusCode> Lease(std::span<const shm::ChunkKey> keys, int64_t ttl_ns);

  const NamespaceIdentity& identity() const;

 private:
  friend class Client;
  struct Impl;
  explicit Namespace(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

struct ListedChunk {
  shm::ChunkKey key;
  std::string namespace_label;
  uint32_t payload_bytes = 0;
  KeyState state = KeyState::kAbsent;
  uint32_t segment = 0;  // in memory; no meaning with another tier
  uint64_t offset = 0;
  double worth = 0;
  uint32_t reuse_class = 0;
  int64_t lease_left_ms = 0;
  std::string tier;          // the nearest that holds it: "dram" or "nvme"
  bool durable = false;      // it survives kill -9 and loss of power
  uint32_t log_segment = 0;  // on NVMe, when it is durable
  uint64_t log_offset = 0;
  uint32_t log_bytes = 0;  // that the payload takes there
};

struct ListedNamespace {
  NamespaceIdentity identity;
  uint32_t id = 0;
  uint64_t epoch = 0, chunk_count = 0, chunk_bytes = 0;
};

// Whether a key is to be had, and why not.
enum class KeyAnswer : uint8_t {
  kReady,
  kFilling,         // a put is under way
  kLoading,         // it is being read from NVMe
  kGone,            // it left, for `cause`
  kRefused,         // it was not taken, for `cause`
  kOtherNamespace,  // nothing is known of it here, and it is ready under `other_label`
  kNeverPut,        // as far as the history goes
};

// Why a chunk left or was refused; each in words in client/core/explanation.cc.
enum class GoneCause : uint8_t {
  kNone,
  kEvictedDram,
  kRemoved,
  kCleared,
  kEpochEnded,
  kDamagedDram,
  kAbandoned,
  kNoRoom,
  kEvictedNvme,
  kEvictedUnwritten,
  kEvictedNotAdmitted,
  kEvictedQueueFull,
  kEvictedTooLarge,
  kEvictedBoth,
  kDamagedNvme,
  kDamagedForClient,
  kReadFailed,
  kQuarantined,
  kHeaderDiffers,
  kAborted,
  kIndexFull,
  kClaimsFull,
  kNoRoomToLoad,
  kUnknown,  // of a later daemon
};

// "never put", "evicted dram", ...
std::string_view Name(KeyAnswer answer);
std::string_view Name(GoneCause cause);

// Times are milliseconds since 1970; 0: not known.
struct Explanation {
  KeyAnswer answer = KeyAnswer::kNeverPut;
  GoneCause cause = GoneCause::kNone;  // of the last event, whatever the answer
  int64_t when_ms = 0;                 // it happened
  bool in_dram = false, on_nvme = false;
  uint32_t payload_bytes = 0;
  int64_t put_ms = 0;
  bool namespace_known = false;
  std::string other_label;       // of another namespace in which the key is ready
  std::string other_field;       // the first field of its identity that differs
  int64_t history_since_ms = 0;  // events since then are known
  uint64_t history_lost = 0;     // but for so many, dropped under load
  int64_t daemon_started_ms = 0;

  // One or more sentences: what happened to `key` of the namespace, and the mend.
  std::string Text(const std::string& key, const std::string& label) const;
};

// An epoch that has begun: all that the namespace held is a miss.
struct EpochBump {
  uint64_t epoch = 0;
  // Not ok: why a daemon that restarts now may bring the ended epoch back.
  Status stored;
};

class Client {
 public:
  // kUnavailable when nobody answers within the connect timeout, naming the socket.
  static Result<std::unique_ptr<Client>> Connect(ClientOptions options = {});
  // The same, but a daemon that is away is no error: calls answer kUnavailable until it is there.
  static std::unique_ptr<Client> Create(ClientOptions options = {});
  ~Client();

  bool available() const;
  // Ok once it is available; else, at a refusal or the timeout, why not, with the code of the last
  // attempt: kDenied (the socket's mode, no tenant), kBusy (its session table is full), ...
  Status AwaitAvailable(int64_t timeout_ns) const;
  // Payload bytes of the largest chunk that the daemon takes; 0 before the first connection.
  uint32_t chunk_bytes_max() const;
  // Where it looks for the daemon: a path, or two in words.
  const std::string& socket() const;

  // kInvalid names the field in which a namespace registered earlier under this label differs.
  Result<std::shared_ptr<Namespace>> Register(const NamespaceIdentity& identity);

  // -- Looking inside ---------------------------------------------------------------------------
  Result<std::string> StatusJson();
  Result<std::vector<ListedNamespace>> Namespaces();
  Result<std::vector<ListedChunk>> List(uint64_t* cursor, uint32_t limit);
  Result<ListedChunk> Describe(std::string_view label, const shm::ChunkKey& key);
  // Why a get misses; also for a label that is not registered.
  Result<Explanation> Explain(std::string_view label, const shm::ChunkKey& key);
  Result<uint64_t> ClearNamespace(std::string_view label);
  Result<EpochBump> BumpEpoch(std::string_view label);

 private:
  struct Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace terrace
