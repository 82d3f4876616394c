#pragma once

// A ChunkStore under a virtual clock, and sessions that map its memory as clients do: by the
// descriptors they are given, each memfd by its generation.
//
// Threads: one.

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "proto/shm/record_layout.h"
#include "storage/base/limits.h"
#include "storage/engine/chunk_store.h"
#include "storage/mem/guarded_copy.h"
#include "storage/record/copy_hash.h"
#include "storage/record/record.h"

namespace terrace {

inline constexpr int64_t kSecondNs = 1'000'000'000;
inline constexpr uint64_t kTestSegmentBytes = 2 * kMiB;

inline shm::ChunkKey KeyOf(uint64_t id) { return shm::ChunkKey::FromBytes(&id, sizeof id, 0); }

// In a seed: the payload is noise, of which no codec gains.  Those of other seeds shrink to little
// more than half, whatever elements they are taken for.
inline constexpr uint64_t kNoiseSeed = uint64_t{1} << 63;

// Payloads that differ in every word from those of other seeds.
inline uint64_t PayloadWord(uint64_t seed, uint64_t at) {
  if ((seed & kNoiseSeed) != 0) {
    uint64_t word = seed * 0x9e3779b97f4a7c15 + at;
    word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9;
    word = (word ^ word >> 27) * 0x94d049bb133111eb;
    return word ^ word >> 31;
  }
  return (seed + 1) * 0x9e3779b97f4a7c15 + at;
}

inline void FillPayload(std::byte* payload, uint32_t bytes, uint64_t seed) {
  for (uint32_t at = 0; at < bytes; at += 8) {
    const uint64_t word = PayloadWord(seed, at);
    std::memcpy(payload + at, &word, std::min<size_t>(8, bytes - at));
  }
}

inline bool PayloadIs(const std::byte* payload, uint32_t bytes, uint64_t seed) {
  for (uint32_t at = 0; at < bytes; at += 8) {
    const uint64_t word = PayloadWord(seed, at);
    if (std::memcmp(payload + at, &word, std::min<size_t>(8, bytes - at)) != 0) return false;
  }
  return true;
}

inline void WriteRecord(std::byte* record, const RecordIdentity& identity, uint64_t seed) {
  std::byte* payload = record + shm::kRecordHeaderBytes;
  FillPayload(payload, identity.payload_bytes, seed);
  uint64_t leaves[shm::kLeafCountMax];
  HashLeaves(payload, identity.payload_bytes, leaves);
  BuildHeader(identity, leaves, reinterpret_cast<shm::RecordHeader*>(record));
}

// One client process.
class TestSession {
 public:
  TestSession(ChunkStore& store, SessionId id, bool trusted = false)
      : store_(store), id_(id), trusted_(trusted) {
    store_.OpenSession(id, SessionOptions{.trusted = trusted}, pins_.data(),
                       static_cast<uint32_t>(pins_.size()));
  }
  ~TestSession() {
    for (const auto& [memfd, mapped] : writable_) munmap(mapped, kTestSegmentBytes);
    for (const auto& [memfd, mapped] : readable_) munmap(mapped, kTestSegmentBytes);
  }
  TestSession(const TestSession&) = delete;
  TestSession& operator=(const TestSession&) = delete;

  SessionId id() const { return id_; }
  std::atomic<uint64_t>* pin(size_t at) { return &pins_[at]; }

  // The session's own view of a location: writable once the segment was leased to it.  It outlives
  // the daemon's.  Null: not given to it.
  std::byte* At(const shm::Location& location) {
    if (trusted_) return store_.Address(location);
    const auto memfd = std::pair(location.segment, location.generation);
    if (const auto found = writable_.find(memfd); found != writable_.end()) {
      return found->second + location.offset;
    }
    for (const SegmentDescriptor& given : store_.Descriptors(id_)) {
      if (given.segment != location.segment || given.generation != location.generation) continue;
      if (!given.writable && readable_.contains(memfd)) break;
      const Result<UniqueFd> fd = store_.OpenSegment(id_, given);
      if (!fd.ok()) return nullptr;
      const int access = given.writable ? PROT_READ | PROT_WRITE : PROT_READ;
      void* mapped = mmap(nullptr, kTestSegmentBytes, access, MAP_SHARED, fd->get(), 0);
      if (mapped == MAP_FAILED) return nullptr;
      (given.writable ? writable_ : readable_)[memfd] = static_cast<std::byte*>(mapped);
      if (given.writable) return writable_[memfd] + location.offset;
    }
    const auto found = readable_.find(memfd);
    return found == readable_.end() ? nullptr : found->second + location.offset;
  }

 private:
  ChunkStore& store_;
  const SessionId id_;
  const bool trusted_;
  std::vector<std::atomic<uint64_t>> pins_ = std::vector<std::atomic<uint64_t>>(64);
  std::map<std::pair<uint32_t, uint64_t>, std::byte*> writable_;
  std::map<std::pair<uint32_t, uint64_t>, std::byte*> readable_;
};

inline ChunkStoreOptions SmallStore(uint32_t segments) {
  ChunkStoreOptions options;
  options.tenant = "test";
  options.segment_bytes = kTestSegmentBytes;
  options.dram_bytes = segments * kTestSegmentBytes;
  options.policy = "lru";  // so that what leaves first is known
  options.memory.best = PageRung::kSmall;
  options.boot_epoch = 1;
  options.seed = 7;
  return options;
}

class StoreTest : public ::testing::Test {
 protected:
  void Open(const ChunkStoreOptions& options) {
    ASSERT_TRUE(InstallGuard().ok());
    Result<std::unique_ptr<ChunkStore>> made = ChunkStore::Create(options);
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    store = *std::move(made);
    NamespaceSpec spec;
    spec.label = "ns";
    ns = store->RegisterNamespace(spec)->ref.id;
  }

  PutGrant Begin(TestSession& session, uint64_t key, uint32_t bytes, int64_t deadline_ns = 0) {
    const PutWant want{.key = KeyOf(key), .payload_bytes = bytes};
    PutGrant grant;
    store->BeginPut(session.id(), ns, {&want, 1}, deadline_ns, now_ns, {&grant, 1});
    return grant;
  }

  void Fill(TestSession& session, const PutGrant& grant, uint64_t key, uint32_t bytes,
            uint64_t seed) {
    std::byte* record = session.At(grant.location);
    ASSERT_NE(record, nullptr);
    WriteRecord(record, {.key = KeyOf(key), .namespace_id = ns, .payload_bytes = bytes}, seed);
  }

  StatusCode Commit(TestSession& session, uint64_t claim) {
    StatusCode result = StatusCode::kInvalid;
    store->Commit(session.id(), {&claim, 1}, now_ns, {&result, 1});
    return result;
  }

  uint64_t Clear(std::string_view label) {
    uint64_t cursor = 0, cleared = 0;
    do {
      cleared += *store->ClearNamespace(label, &cursor);
    } while (cursor != 0);
    return cleared;
  }

  // The whole way.  The payload's seed is the key unless given.
  StatusCode Put(TestSession& session, uint64_t key, uint32_t bytes,
                 std::optional<uint64_t> seed = std::nullopt) {
    const PutGrant grant = Begin(session, key, bytes);
    if (grant.status != StatusCode::kOk) return grant.status;
    Fill(session, grant, key, bytes, seed.value_or(key));
    return Commit(session, grant.claim);
  }

  bool Has(uint64_t key) { return store->Find(ns, KeyOf(key)).ok(); }

  // Present with exactly these bytes.
  bool Holds(uint64_t key, uint32_t bytes, uint64_t seed) {
    const Result<ReadyChunk> found = store->Find(ns, KeyOf(key));
    if (!found.ok() || found->payload_bytes != bytes) return false;
    const std::byte* record = store->Address(found->location);
    return record != nullptr && PayloadIs(record + shm::kRecordHeaderBytes, bytes, seed);
  }

  void ExpectAccountsAddUp() {
    const ChunkStoreStats stats = store->stats();
    ASSERT_EQ(stats.live_bytes + stats.dead_bytes + stats.padding_bytes + stats.claimed_bytes +
                  stats.free_bytes + stats.missing_bytes,
              stats.dram_bytes);
    for (const uint64_t part : {stats.live_bytes, stats.dead_bytes, stats.padding_bytes,
                                stats.claimed_bytes, stats.free_bytes, stats.missing_bytes}) {
      ASSERT_LE(part, stats.dram_bytes);
    }
    ASSERT_EQ(stats.chunk_count + stats.filling_count, stats.index_used);
  }

  // Puts fresh keys of half a segment until so many segments' worth went through.
  void Churn(TestSession& session, uint32_t segments) {
    for (uint32_t i = 0; i < 2 * segments; ++i) {
      now_ns += kSecondNs / 1000;
      const StatusCode put = Put(session, churned++, store->chunk_bytes_max());
      ASSERT_TRUE(put == StatusCode::kOk || put == StatusCode::kBusy) << StatusCodeName(put);
      store->Tick(now_ns);
    }
  }

  std::unique_ptr<ChunkStore> store;
  uint32_t ns = 0;
  int64_t now_ns = kSecondNs;
  uint64_t churned = uint64_t{1} << 40;
};

}  // namespace terrace
