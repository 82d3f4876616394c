// Through the codec on the way to NVMe and back, on threads that are not the shard's.
//
//   out:   queued --StartEncoding--> the pool's --EncodingDone--> gained:    AppendEncoded -->
//   durable
//                                                             \-> ungainful: as it is, the usual
//                                                             way
//   back:  read --StartDecoding--> the pool's --> EndLoad
//
// The chunk counts as being demoted, and its DRAM segment is held, all the way out; it counts as
// being loaded, and its room is claimed, all the way back.  Whoever took the payload compared it
// with the leaf table kept since the commit, on the way back with the one in the record's header.

#include <algorithm>
#include <utility>

#include "storage/base/clock.h"
#include "storage/base/log.h"
#include "storage/engine/chunk_store.h"
#include "storage/engine/nvme_tier.h"
#include "storage/record/record.h"

namespace terrace {
namespace {

using Encoding = ChunkCodec::Encoding;
using Begun = ChunkCodec::Begun;

// Of DRAM, that may wait for the codec: beyond it chunks are written as they are, for what leaves
// DRAM unwritten is lost.
constexpr uint64_t kWaitingShare = 8;

}  // namespace

// False where nothing can be encoded or decoded.
bool ChunkStore::PrepareCodec() {
  if (codec_ != nullptr) return true;
  if (options_.nvme.codec_pool == nullptr) return false;
  Result<std::unique_ptr<ChunkCodec>> made = ChunkCodec::Create(
      *options_.nvme.codec_pool, nvme_->device(), chunk_bytes_max_, options_.memory);
  if (made.ok()) {
    codec_ = *std::move(made);
    return true;
  }
  LogError("nvme: no memory for the codec, nothing is encoded or decoded: " +
           made.status().ToString());
  options_.nvme.codec_pool = nullptr;  // said once
  return false;
}

// REQUIRES: it is on NVMe.
bool ChunkStore::IsEncoded(uint32_t chunk) const {
  const Chunk& at = chunks_.at(chunk);
  return at.stored_bytes != index_->Read(at.slot).length;
}

// ------------------------------------------------------------------------------------ out

Begun ChunkStore::StartEncoding(uint32_t chunk) {
  Chunk& at = chunks_.at(chunk);
  if (!options_.nvme.encode || codec_ == nullptr || at.ungainful || draining_nvme_) {
    return Begun::kNotWorthIt;
  }
  const Index::Entry entry = index_->Read(at.slot);
  Segment& from = pool_->at(at.segment);
  const SegmentRecord& record = from.records[at.record];
  const ChunkCodec::Wish wish{
      .chunk = chunks_.TicketOf(chunk),
      .segment = at.segment,
      .identity = {.key = entry.key,
                   .namespace_id = entry.namespace_id,
                   .payload_bytes = entry.length},
      .leaves = from.leaves.data() + record.first_leaf,
      .plain = from.memory.mapping().data() + record.offset + shm::kRecordHeaderBytes};
  const Begun begun = codec_->Encode(wish, *namespaces_->OfId(entry.namespace_id));
  if (begun != Begun::kStarted) return begun;
  at.demoting = true;
  ++nvme_->counts.demoting;
  if (from.io_holds++ == 0) ++held_segments_;
  return begun;
}

// As the rest of the queue is of such chunks.
bool ChunkStore::MayWaitForCodec(uint32_t chunk) const {
  const Chunk& at = chunks_.at(chunk);
  if (at.urgent) return false;
  const uint64_t waiting = nvme_->queued() * shm::RecordBytes(index_->Read(at.slot).length);
  return waiting <= options_.dram_bytes / kWaitingShare;
}

bool ChunkStore::PollCodec(int64_t now_ns) {
  if (codec_ == nullptr) return false;
  const bool ended = codec_->Poll();
  if (ended) demote_wake_ns_ = 0;  // there is room again
  for (Encoding* const encoding : std::exchange(to_append_, {})) AppendEncoded(*encoding, now_ns);
  while (Encoding* const encoding = codec_->TakeEncoded()) EncodingDone(*encoding, now_ns);
  return ended;
}

int64_t ChunkStore::CodecWake() const {
  if (codec_ == nullptr) return 0;
  if (codec_->pending()) return std::max<int64_t>(nvme_now_ns_, 1);
  return codec_->waiting() || !to_append_.empty() ? nvme_now_ns_ + kNsPerMs : 0;
}

void ChunkStore::EncodingDone(Encoding& encoding, int64_t now_ns) {
  const uint32_t payload_bytes = encoding.header.payload_bytes;
  if (encoding.status.code() == StatusCode::kCorrupt) {
    const ChunkTicket chunk = encoding.chunk;
    const uint32_t segment = encoding.segment;
    const Status status = encoding.status;
    codec_->Release(&encoding);
    return DemoteDone(chunk, segment, {.payload = payload_bytes, .stored = payload_bytes}, {},
                      status);
  }
  codec_->Judge(encoding);
  if (!encoding.gained()) return WriteUngainful(encoding, now_ns);
  const uint32_t stored_bytes = encoding.outcome.stored_bytes;
  SealHeader({.stored_bytes = stored_bytes, .seal = encoding.outcome.table_checksum},
             &encoding.header);
  nvme_->Refund(shm::RecordBytes(payload_bytes) - shm::RecordBytes(stored_bytes));
  AppendEncoded(encoding, now_ns);
}

// The room in DRAM is no longer held for it.
void ChunkStore::EndEncoding(Encoding& encoding) {
  --nvme_->counts.demoting;
  if (--pool_->at(encoding.segment).io_holds == 0) --held_segments_;
  if (chunks_.Lives(encoding.chunk)) chunks_.at(encoding.chunk.chunk).demoting = false;
  codec_->Release(&encoding);
}

void ChunkStore::WriteUngainful(Encoding& encoding, int64_t now_ns) {
  ++nvme_->counts.encodes_ungainful;
  const ChunkTicket ticket = encoding.chunk;
  const uint64_t record_bytes = shm::RecordBytes(encoding.header.payload_bytes);
  EndEncoding(encoding);
  if (!chunks_.Lives(ticket) || !chunks_.at(ticket.chunk).in_dram) {
    return nvme_->Refund(record_bytes);  // it left meanwhile
  }
  chunks_.at(ticket.chunk).ungainful = true;
  if (!AppendOrWait(ticket.chunk, now_ns)) RetryDemotion(ticket);
}

void ChunkStore::AppendEncoded(Encoding& encoding, int64_t now_ns) {
  const ChunkTicket ticket = encoding.chunk;
  const DemotedBytes bytes{.payload = encoding.header.payload_bytes,
                           .stored = encoding.header.stored_bytes};
  if (!chunks_.Lives(ticket) || !chunks_.at(ticket.chunk).in_dram) {
    nvme_->Refund(shm::RecordBytes(bytes.stored));
    return EndEncoding(encoding);  // it left meanwhile
  }
  const Chunk& chunk = chunks_.at(ticket.chunk);
  const LogAppend append{.header = &encoding.header,
                         .stored = encoding.stored(),
                         .reuse_class = nvme_->ClassOf(policy_->ReuseClass(chunk.policy)),
                         .urgent = chunk.urgent || draining_nvme_};
  const Status begun = nvme_->log().Append(
      append,
      [this, &encoding, bytes](const LogPlace& place, const Status& status) {
        const ChunkTicket of = encoding.chunk;
        const uint32_t segment = encoding.segment;
        codec_->Release(&encoding);
        if (status.ok()) ++nvme_->counts.encodes;
        DemoteDone(of, segment, bytes, place, status);
      },
      now_ns);
  if (begun.ok()) return;
  if (begun.code() == StatusCode::kBusy) {
    to_append_.push_back(&encoding);
    return;
  }
  nvme_->Refund(shm::RecordBytes(bytes.stored));
  EndEncoding(encoding);
  demote_wake_ns_ = now_ns + kNsPerMs;
  RetryDemotion(ticket);
}

// ----------------------------------------------------------------------------------- back

void ChunkStore::StartDecoding(const Load& load) {
  uint8_t* const into = pool_->at(load.segment).memory.mapping().writable_data() + load.offset;
  codec_->Decode(load.identity, load.place, load.encoded, into, [this, load](const Status& status) {
    ++(status.ok() ? nvme_->counts.decodes : nvme_->counts.decodes_failed);
    EndLoad(load, status);
  });
}

}  // namespace terrace
