// Claims from BeginPut to Commit, over shared memory or in messages.

#include <algorithm>
#include <array>
#include <cstdlib>
#include <optional>
#include <utility>

#include "client/core/client_state.h"
#include "client/core/fork_guard.h"
#include "client/core/key_entry.h"
#include "client/core/remote_calls.h"
#include "proto/shm/record_layout.h"
#include "storage/base/check.h"
#include "storage/base/clock.h"
#include "storage/record/copy_hash.h"
#include "storage/record/record.h"

namespace terrace {

struct PutTicket::Batch {
  enum class Step : uint8_t { kGranted, kFilled, kEnded };

  struct Item {
    PutRequest request;
    StatusCode status = StatusCode::kUnavailable;  // once ended
    Step step = Step::kEnded;
    uint64_t claim = 0;
    std::byte* record = nullptr;       // header, then the payload
    std::shared_ptr<Mapping> mapping;  // holds `record` in shared memory
    std::unique_ptr<std::byte, void (*)(void*)> buffer{nullptr, std::free};  // or in messages
  };

  Batch(std::shared_ptr<ClientState> shared_client, const NamespaceAttachment& at,
        std::span<const PutRequest> requests, int64_t ends_ns)
      : client(std::move(shared_client)),
        session(at.session),
        namespace_id(at.ref.id),
        deadline_ns(ends_ns),
        items(requests.size()) {
    if (session != nullptr) use.emplace(*session);
    for (size_t i = 0; i < requests.size(); ++i) items[i].request = requests[i];
  }
  ~Batch();

  Status Begin();
  void TakeAnswer();
  void TakeGrant(Item& item, const shm::ResultEntry& answer);
  void TakeBuffers();
  void WriteHeader(Item& item, const uint64_t* leaves);
  bool MayWrite(Item& item);
  void SendCommit();
  void SendMessages();
  void TakeCommitted();
  void AbortRest();

  // Constant after construction.
  const uint64_t process = ProcessGeneration();
  const std::shared_ptr<ClientState> client;
  const std::shared_ptr<Session> session;  // null: in messages
  const uint32_t namespace_id;
  const int64_t deadline_ns;
  std::optional<Session::Use> use;

  std::vector<Item> items;
  std::vector<Grant> grants;  // empty until Wait
  std::shared_ptr<PendingRequest> begun, committing;
  std::vector<size_t> committed;  // indexes of items, in the order of `committing`
  bool commit_sent = false;
};

// -- Begin ----------------------------------------------------------------------------------------

Status PutTicket::Batch::Begin() {
  if (session == nullptr) return Status::Ok();
  if (!use->ok()) return Status(StatusCode::kUnavailable, "the daemon is away");
  std::vector<shm::KeyEntry> entries;
  for (const Item& item : items) {
    entries.push_back(EntryOf(item.request.key));
    entries.back().length = item.request.payload_bytes;
  }
  Result<std::shared_ptr<PendingRequest>> sent =
      session->queue().Submit({.op = shm::Op::kBeginPut,
                               .namespace_id = namespace_id,
                               .deadline_ns = deadline_ns,
                               .keys = entries},
                              deadline_ns);
  if (!sent.ok()) return sent.status();
  begun = *std::move(sent);
  return Status::Ok();
}

void PutTicket::Batch::TakeAnswer() {
  if (session == nullptr) return TakeBuffers();
  const StatusCode waited = session->queue().Wait(*begun, deadline_ns + kAnswerSlackNs);
  for (size_t i = 0; i < items.size(); ++i) {
    items[i].status = waited;
    if (waited == StatusCode::kOk) TakeGrant(items[i], begun->results[i]);
  }
  if (waited != StatusCode::kOk) session->Abandon(*begun);
  begun = nullptr;
}

void PutTicket::Batch::TakeGrant(Item& item, const shm::ResultEntry& answer) {
  item.status = static_cast<StatusCode>(answer.status);
  if (item.status != StatusCode::kOk) return;
  item.claim = answer.claim;
  const shm::Location location = shm::Location::Unpack(answer.location);
  const uint32_t bytes = item.request.payload_bytes;
  item.record = session->maps().FindWritable(location, bytes, &item.mapping);
  if (item.record == nullptr && session->maps().Await(location, true, deadline_ns)) {
    item.record = session->maps().FindWritable(location, bytes, &item.mapping);
  }
  if (item.record != nullptr) {
    item.step = Step::kGranted;
    return;
  }
  item.status = session->dead() ? StatusCode::kUnavailable : StatusCode::kDeadline;
  session->AbortClaims(std::span(&item.claim, 1));
}

// In messages nothing is claimed before the bytes are sent.
void PutTicket::Batch::TakeBuffers() {
  for (Item& item : items) {
    const uint32_t bytes = item.request.payload_bytes;
    item.status = StatusCode::kInvalid;
    if (bytes == 0 || bytes > kChunkBytesMax) continue;
    item.status = StatusCode::kNoSpace;
    item.buffer.reset(static_cast<std::byte*>(
        std::aligned_alloc(shm::kRecordAlignment, shm::RecordBytes(bytes))));
    if (item.buffer == nullptr) continue;
    item.record = item.buffer.get();
    item.status = StatusCode::kOk;
    item.step = Step::kGranted;
  }
}

// -- Fill -----------------------------------------------------------------------------------------

// Past the deadline the claim is no longer ours, and what we wrote would only poison its segment.
bool PutTicket::Batch::MayWrite(Item& item) {
  if (MonotonicNs() < deadline_ns) return true;
  item.step = Step::kEnded;
  item.status = StatusCode::kDeadline;
  if (session != nullptr) session->AbortClaims(std::span(&item.claim, 1));
  return false;
}

void PutTicket::Batch::WriteHeader(Item& item, const uint64_t* leaves) {
  const RecordIdentity identity{.key = item.request.key,
                                .namespace_id = namespace_id,
                                .payload_bytes = item.request.payload_bytes};
  BuildHeader(identity, leaves, reinterpret_cast<shm::RecordHeader*>(item.record));
  item.step = Step::kFilled;
}

void PutTicket::Fill(size_t i, const void* source) {
  Batch::Item& item = batch_->items[i];
  if (item.step != Batch::Step::kGranted || !batch_->MayWrite(item)) return;
  std::array<uint64_t, shm::kLeafCountMax> leaves;
  CopyAndHash(item.record + shm::kRecordHeaderBytes, source, item.request.payload_bytes,
              leaves.data());
  batch_->WriteHeader(item, leaves.data());
}

void PutTicket::Seal(size_t i) {
  Batch::Item& item = batch_->items[i];
  if (item.step != Batch::Step::kGranted || !batch_->MayWrite(item)) return;
  std::array<uint64_t, shm::kLeafCountMax> leaves;
  HashLeaves(item.record + shm::kRecordHeaderBytes, item.request.payload_bytes, leaves.data());
  batch_->WriteHeader(item, leaves.data());
}

// -- Commit ---------------------------------------------------------------------------------------

void PutTicket::Batch::SendCommit() {
  if (commit_sent) return;
  commit_sent = true;
  AbortRest();
  if (session == nullptr) return;  // Finish sends the messages
  std::vector<shm::KeyEntry> entries;
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].step != Step::kFilled) continue;
    entries.push_back(EntryOfClaim(items[i].claim));
    committed.push_back(i);
  }
  if (entries.empty()) return;
  Result<std::shared_ptr<PendingRequest>> sent = session->queue().Submit(
      {.op = shm::Op::kCommit, .namespace_id = namespace_id, .keys = entries}, deadline_ns);
  if (sent.ok()) {
    committing = *std::move(sent);
    return;
  }
  for (const size_t i : committed) {
    items[i].status = sent.status().code();
    items[i].step = Step::kGranted;
  }
  committed.clear();
  AbortRest();
}

void PutTicket::Batch::TakeCommitted() {
  if (session == nullptr) return SendMessages();
  if (committing == nullptr) return;
  const StatusCode waited = session->queue().Wait(*committing, deadline_ns + kAnswerSlackNs);
  std::vector<uint64_t> ended;  // claims that the daemon ended before we committed
  for (size_t n = 0; n < committed.size(); ++n) {
    Item& item = items[committed[n]];
    item.step = Step::kEnded;
    item.status = waited;
    if (waited != StatusCode::kOk) continue;
    item.status = static_cast<StatusCode>(committing->results[n].status);
    if (item.status == StatusCode::kStale) ended.push_back(item.claim);
  }
  if (waited == StatusCode::kOk) session->AbortClaims(ended);
  if (waited != StatusCode::kOk) session->Abandon(*committing);
  committing = nullptr;
}

void PutTicket::Batch::SendMessages() {
  std::vector<PutItem> messages;
  std::vector<size_t> sent;
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].step != Step::kFilled) continue;
    messages.push_back(
        {.key = items[i].request.key,
         .payload = {items[i].record + shm::kRecordHeaderBytes, items[i].request.payload_bytes}});
    sent.push_back(i);
  }
  const int64_t left_ns = std::max<int64_t>(deadline_ns - MonotonicNs(), 0);
  const RemoteCalls calls{client->connection(), namespace_id};
  const std::vector<StatusCode> codes = calls.Put(messages, left_ns);
  for (size_t n = 0; n < sent.size(); ++n) {
    items[sent[n]].status = codes[n];
    items[sent[n]].step = Step::kEnded;
  }
}

// What was granted and never filled.
void PutTicket::Batch::AbortRest() {
  std::vector<uint64_t> claims;
  for (Item& item : items) {
    if (item.step != Step::kGranted) continue;
    item.step = Step::kEnded;
    if (item.status == StatusCode::kOk) item.status = StatusCode::kCancelled;
    claims.push_back(item.claim);
  }
  if (session != nullptr) session->AbortClaims(claims);
}

PutTicket::Batch::~Batch() {
  if (session == nullptr) return;
  if (begun != nullptr) session->Abandon(*begun);
  if (committing != nullptr) session->Abandon(*committing);
  if (commit_sent) return;
  for (Item& item : items) {
    if (item.step == Step::kFilled) item.step = Step::kGranted;
  }
  AbortRest();
}

// -- PutTicket ------------------------------------------------------------------------------------

PutTicket::PutTicket() = default;
PutTicket::PutTicket(PutTicket&&) noexcept = default;

PutTicket& PutTicket::operator=(PutTicket&& other) noexcept {
  if (this == &other) return *this;
  PutTicket dropped(std::move(*this));
  batch_ = std::move(other.batch_);
  return *this;
}

PutTicket::~PutTicket() {
  // In a forked child the session is the parent's.
  if (batch_ != nullptr && batch_->process != ProcessGeneration()) {
    static_cast<void>(batch_.release());
  }
}

std::span<const PutTicket::Grant> PutTicket::Wait() {
  if (!batch_->grants.empty()) return batch_->grants;
  batch_->TakeAnswer();
  for (const Batch::Item& item : batch_->items) {
    Grant grant{.status = item.status, .payload = nullptr};
    if (item.record != nullptr) grant.payload = item.record + shm::kRecordHeaderBytes;
    batch_->grants.push_back(grant);
  }
  return batch_->grants;
}

void PutTicket::CommitAsync() {
  Wait();
  batch_->SendCommit();
}

std::vector<StatusCode> PutTicket::Finish() {
  batch_->TakeCommitted();
  std::vector<StatusCode> codes;
  for (const Batch::Item& item : batch_->items) codes.push_back(item.status);
  return codes;
}

std::vector<StatusCode> PutTicket::Commit() {
  CommitAsync();
  return Finish();
}

Result<PutTicket> Namespace::BeginPut(std::span<const PutRequest> requests, int64_t timeout_ns) {
  if (requests.empty() || requests.size() > kBatchKeysMax) {
    return Status(StatusCode::kInvalid, "a put names 1 to 256 keys");
  }
  const NamespaceAttachment* const at = impl_->current();
  if (at == nullptr) return Status(StatusCode::kUnavailable, "the daemon is away");
  const int64_t deadline_ns = MonotonicNs() + timeout_ns;
  PutTicket ticket;
  ticket.batch_ = std::make_unique<PutTicket::Batch>(impl_->client, *at, requests, deadline_ns);
  Status begun = ticket.batch_->Begin();
  if (!begun.ok()) return begun;
  return ticket;
}

}  // namespace terrace
