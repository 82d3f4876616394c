// The codec's threads: right bytes from many at once, ends with work in flight, a full queue.

#include "storage/engine/codec_pool.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>

#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <thread>

#include "storage/base/limits.h"
#include "storage/codec/frame_layout.h"
#include "storage/mem/guarded_copy.h"
#include "storage/mem/memory_file.h"
#include "storage/record/copy_hash.h"
#include "tests/storage/codec/synthetic_kv.h"

namespace terrace {
namespace {

using testing_kv::Bytes;

constexpr LogPlace kPlace{.sequence = 9, .segment = 2, .offset_units = 1};

// One payload through the pool and back.
struct Trip {
  explicit Trip(uint64_t seed, CodecResults& results, uint32_t tokens = 64)
      : payload(testing_kv::Kv(seed, ElementType::kBf16, tokens, 1024)) {
    const auto bytes = static_cast<uint32_t>(payload.size());
    identity = {.key = shm::ChunkKey::FromBytes(&seed, sizeof seed, 0),
                .namespace_id = 1,
                .payload_bytes = bytes};
    uint64_t leaves[shm::kLeafCountMax];
    HashLeaves(payload.data(), bytes, leaves);
    BuildHeader(identity, leaves, &job.header);
    room.resize(EncodedBytesMax(bytes));
    back.resize(shm::RecordBytes(bytes));
    job.results = &results;
    job.plain = payload.data();
    job.element = ElementType::kBf16;
    job.encoded = room;
  }
  // Turns what was encoded into the record that a log would give back.
  void TurnAround() {
    const uint32_t stored = job.outcome.stored_bytes;
    SealHeader({.stored_bytes = stored, .seal = job.outcome.table_checksum}, &job.header);
    PlaceHeader(kPlace, 1, &job.header);
    record.assign(shm::RecordBytes(stored), 0);
    std::memcpy(record.data(), &job.header, sizeof job.header);
    std::memcpy(record.data() + sizeof job.header, room.data(), stored);
    job.work = CodecJob::Work::kDecode;
    job.identity = identity;
    job.place = kPlace;
    job.record = record;
    job.into = back.data();
  }
  bool Back() const {
    return std::memcmp(back.data() + shm::kRecordHeaderBytes, payload.data(), payload.size()) == 0;
  }

  Bytes payload, room, record, back;
  RecordIdentity identity;
  CodecJob job;
};

class CodecPoolTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(InstallGuard().ok()); }

  // Waits by the descriptor, as the shard does.
  static std::vector<CodecJob*> Await(CodecResults& results) {
    pollfd event{.fd = results.event_fd(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(poll(&event, 1, 60'000), 1);
    return results.Take();
  }
  static void SubmitSoon(CodecPool& pool, CodecJob& job) {
    while (!pool.Submit(job)) std::this_thread::yield();
  }
};

TEST_F(CodecPoolTest, ManyStoresGetTheirOwnBytesBack) {
  constexpr uint64_t kStores = 4, kTrips = 24;
  ThreadCodecPool pool(3);
  std::vector<std::thread> stores;
  std::atomic<uint64_t> right{0};
  for (uint64_t store = 0; store < kStores; ++store) {
    stores.emplace_back([&, store] {
      CodecResults results;
      std::vector<std::unique_ptr<Trip>> trips;
      for (uint64_t i = 0; i < kTrips; ++i) {
        trips.push_back(std::make_unique<Trip>(store * kTrips + i, results));
        SubmitSoon(pool, trips.back()->job);
      }
      for (uint64_t left = 2 * kTrips; left > 0;) {
        for (CodecJob* const job : Await(results)) {
          --left;
          for (const auto& trip : trips) {
            if (&trip->job != job) continue;
            EXPECT_TRUE(job->status.ok()) << job->status.ToString();
            if (job->work == CodecJob::Work::kDecode) {
              right += trip->Back() ? 1 : 0;
              continue;
            }
            ASSERT_TRUE(job->outcome.kept);
            trip->TurnAround();
            SubmitSoon(pool, *job);
          }
        }
      }
      pool.Withdraw(results);
      EXPECT_FALSE(results.pending());
    });
  }
  for (std::thread& store : stores) store.join();
  EXPECT_EQ(right, kStores * kTrips);
}

TEST_F(CodecPoolTest, WithdrawnJobsAreTheCallersAgain) {
  ThreadCodecPool pool(2);
  CodecResults stays;
  Trip other(99, stays, 1024);
  for (int round = 0; round < 20; ++round) {
    auto results = std::make_unique<CodecResults>();
    std::vector<std::unique_ptr<Trip>> trips;
    for (uint64_t i = 0; i < 16; ++i) {
      trips.push_back(std::make_unique<Trip>(i, *results, 8 + 8 * (i % 4)));
      SubmitSoon(pool, trips.back()->job);
    }
    if (round == 0) SubmitSoon(pool, other.job);
    pool.Withdraw(*results);
    // From here on nobody but us touches them; what had run has its answer.
    std::set<CodecJob*> ended;
    for (CodecJob* const job : results->Take()) ended.insert(job);
    for (const auto& trip : trips) {
      std::memset(trip->room.data(), 0xEE, trip->room.size());
      EXPECT_TRUE(!ended.contains(&trip->job) || trip->job.outcome.kept);
    }
    results = nullptr;
    trips.clear();
  }
  ASSERT_EQ(Await(stays).size(), 1u);
  EXPECT_TRUE(other.job.outcome.kept);
}

TEST_F(CodecPoolTest, EndsWithWorkInFlight) {
  CodecResults results;
  std::vector<std::unique_ptr<Trip>> trips;
  for (uint64_t i = 0; i < 24; ++i) trips.push_back(std::make_unique<Trip>(i, results));
  {
    ThreadCodecPool pool(2);
    for (const auto& trip : trips) EXPECT_TRUE(pool.Submit(trip->job));
  }
  for (CodecJob* const job : results.Take()) EXPECT_TRUE(job->status.ok());
}

TEST_F(CodecPoolTest, AFullQueueRefusesAndGoesOn) {
  CodecResults results;
  std::vector<std::unique_ptr<Trip>> trips;
  ThreadCodecPool pool(1);
  uint64_t submitted = 0;
  for (uint64_t i = 0; i < 2 * kCodecJobsMax; ++i) {
    trips.push_back(std::make_unique<Trip>(i % 4, results, 256));
  }
  bool refused = false;
  for (const auto& trip : trips) {
    if (pool.Submit(trip->job)) {
      ++submitted;
    } else {
      refused = true;
    }
  }
  EXPECT_TRUE(refused);
  EXPECT_GE(submitted, kCodecJobsMax / 2);
  // A decoding finds a place that encodings do not take.
  Trip decoding(7, results);
  CodecWorker worker;
  worker.Do(decoding.job);
  ASSERT_TRUE(decoding.job.outcome.kept);
  decoding.TurnAround();
  EXPECT_TRUE(pool.Submit(decoding.job));
  bool decoded = false;
  for (uint64_t left = submitted + 1; left > 0;) {
    for (CodecJob* const job : Await(results)) {
      --left;
      // It went before the encodings that waited.
      if (job == &decoding.job) decoded = left > kCodecJobsMax / 4;
    }
  }
  EXPECT_TRUE(decoded);
  EXPECT_TRUE(decoding.Back());
}

TEST_F(CodecPoolTest, APayloadThatAClientChangesIsCorruptOrItself) {
  CodecResults results;
  ThreadCodecPool pool(1);
  Trip trip(3, results, 512);
  const Bytes as_committed = trip.payload;
  std::atomic<bool> stop{false};
  std::atomic<uint8_t>* const byte = reinterpret_cast<std::atomic<uint8_t>*>(&trip.payload[70'000]);
  std::thread client([&] {
    while (!stop) byte->fetch_xor(1, std::memory_order_relaxed);
  });
  uint32_t corrupt = 0, whole = 0;
  for (int round = 0; round < 60; ++round) {
    trip.job.work = CodecJob::Work::kEncode;
    uint64_t leaves[shm::kLeafCountMax];
    HashLeaves(as_committed.data(), as_committed.size(), leaves);
    BuildHeader(trip.identity, leaves, &trip.job.header);
    SubmitSoon(pool, trip.job);
    ASSERT_EQ(Await(results).size(), 1u);
    if (trip.job.status.code() == StatusCode::kCorrupt) {
      ++corrupt;
      continue;
    }
    ASSERT_TRUE(trip.job.status.ok());
    ++whole;
    trip.TurnAround();
    SubmitSoon(pool, trip.job);
    ASSERT_EQ(Await(results).size(), 1u);
    ASSERT_TRUE(trip.job.status.ok()) << trip.job.status.ToString();
    ASSERT_EQ(std::memcmp(trip.back.data() + shm::kRecordHeaderBytes, as_committed.data(),
                          as_committed.size()),
              0);
  }
  stop = true;
  client.join();
  EXPECT_EQ(corrupt + whole, 60u);
}

TEST_F(CodecPoolTest, AHoleInTheSourceIsCorrupt) {
  CodecResults results;
  ThreadCodecPool pool(1);
  Trip trip(3, results, 512);
  // Cut short behind its mapping, as a client could that keeps a descriptor of before the seals.
  const int file = memfd_create("hole", MFD_CLOEXEC);
  ASSERT_GE(file, 0);
  ASSERT_EQ(ftruncate(file, static_cast<off_t>(trip.payload.size())), 0);
  void* const mapped = mmap(nullptr, trip.payload.size(), PROT_READ, MAP_SHARED, file, 0);
  ASSERT_NE(mapped, MAP_FAILED);
  ASSERT_EQ(ftruncate(file, 0), 0);
  trip.job.plain = static_cast<const uint8_t*>(mapped);
  SubmitSoon(pool, trip.job);
  ASSERT_EQ(Await(results).size(), 1u);
  EXPECT_EQ(trip.job.status.code(), StatusCode::kCorrupt);
  munmap(mapped, trip.payload.size());
  close(file);
}

TEST_F(CodecPoolTest, ADamagedRecordIsCorruptNeverOtherBytes) {
  CodecResults results;
  Trip trip(11, results);
  CodecWorker worker;
  worker.Do(trip.job);
  ASSERT_TRUE(trip.job.outcome.kept);
  trip.TurnAround();
  worker.Do(trip.job);
  ASSERT_TRUE(trip.job.status.ok()) << trip.job.status.ToString();
  ASSERT_TRUE(trip.Back());
  std::mt19937_64 random(5);
  const size_t meant = shm::kRecordHeaderBytes + trip.job.outcome.stored_bytes;
  for (int i = 0; i < 3000; ++i) {
    const size_t byte = random() % (i % 2 == 0 ? meant : shm::kRecordHeaderBytes + 64);
    const auto bit = static_cast<uint8_t>(1 << random() % 8);
    trip.record[byte] ^= bit;
    worker.Do(trip.job);
    EXPECT_EQ(trip.job.status.code(), StatusCode::kCorrupt) << byte;
    trip.record[byte] ^= bit;
  }
  trip.job.place.segment ^= 1;
  worker.Do(trip.job);
  EXPECT_EQ(trip.job.status.code(), StatusCode::kCorrupt);
}

}  // namespace
}  // namespace terrace
