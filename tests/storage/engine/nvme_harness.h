#pragma once

// A ChunkStore with an NVMe tier on a simulated disk, under one virtual clock.  The disk outlives
// the stores: Restart and Crash open another one on it.
//
// Threads: one.

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "storage/tier/log_layout.h"
#include "tests/storage/engine/store_harness.h"
#include "tests/storage/io/sim_device.h"
#include "tests/support/step_codec_pool.h"

namespace terrace {

class NvmeStoreTest : public StoreTest {
 protected:
  static constexpr SessionId kSession = 7;

  ~NvmeStoreTest() override {
    session.reset();
    store.reset();
  }

  // Of 2 MiB segments each.
  void OpenNvme(uint32_t dram_segments, uint32_t log_segments, const SimFaults& with = {}) {
    faults = with;
    medium.emplace(SegmentOffset(log_segments, kTestSegmentBytes), 3);
    options = SmallStore(dram_segments);
    options.nvme.segment_bytes = kTestSegmentBytes;
    options.nvme.new_log_id = 1000;
    options.nvme.write.buffer_bytes = 64 * kKiB;
    options.nvme.write.buffer_count = 6;
    options.nvme.write.sync_bytes = 256 * kKiB;
    options.nvme.write.direct_bytes_min = 64 * kKiB;
    Boot();
  }

  // A store on the disk as it is.
  void Boot() {
    device = std::make_unique<SimDevice>(*medium, clock, SimDevice::Options{.faults = faults});
    for (const uint64_t at : sick_once) device->FailReads(at, kNamespaceReadRetries + 1);
    options.nvme.device = device.get();
    options.nvme.codec_pool = &pool;
    options.nvme.sequence_floor = ++boots;
    options.boot_epoch = boots;
    ASSERT_TRUE(InstallGuard().ok());
    Result<std::unique_ptr<ChunkStore>> made = ChunkStore::Create(options);
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    store = *std::move(made);
    RunUntil([&] { return store->NvmeStarted(); });
    ASSERT_TRUE(store->NvmeStarted());
    NamespaceSpec spec;
    spec.label = "ns";
    spec.dtype = dtype;
    Result<NamespaceInfo> info = store->RegisterNamespace(spec);
    ASSERT_TRUE(info.ok()) << info.status().ToString();
    ns = info->ref.id;
    session = std::make_unique<TestSession>(*store, kSession);
  }

  void ShutDown() {
    session.reset();
    store.reset();
    device.reset();
  }
  // As a daemon ends that was asked to.
  void Restart() {
    bool drained = false;
    RunUntil([&] { return drained = store->DrainNvme(now_ns); });
    ASSERT_TRUE(drained);
    ShutDown();
    Boot();
  }
  // The machine dies, and what no sync covers with it, by chance.
  void Crash() {
    device->LosePower();
    ShutDown();
    Boot();
  }

  // Lets one thing happen.  False: nothing is left to happen.
  bool Step() {
    store->PollNvme(now_ns);
    if (pool.RunOne()) return true;
    const int64_t wake = store->NvmeWake();
    if (wake != 0 && wake <= now_ns) return true;
    if (const std::optional<int64_t> event = device->next_event_ns()) {
      AdvanceTo(wake == 0 ? *event : std::min(*event, wake));
      return true;
    }
    if (wake == 0) return false;
    AdvanceTo(wake);
    return true;
  }
  void RunUntil(const std::function<bool()>& done) {
    for (int steps = 0; steps < 200'000 && !done() && Step(); ++steps) {
    }
  }
  // Until nothing waits to be written.
  void Settle() {
    RunUntil([&] {
      const NvmeStats nvme = store->stats().nvme;
      return nvme.demote_queue == 0 && nvme.demoting == 0 && nvme.loading == 0;
    });
  }
  void AdvanceTo(int64_t at_ns) {
    now_ns = std::max(now_ns, at_ns);
    if (now_ns > clock.NowNs()) clock.AdvanceTo(now_ns);
  }

  Sought Look(uint64_t key, size_t pin = 0) {
    return store->FindOrLoad(kSession, ns, KeyOf(key), session->pin(pin), {}, now_ns);
  }
  // Waits for what is loading; kOk only with the bytes of this key.  Unpins.
  StatusCode Get(uint64_t key, uint32_t bytes, std::optional<uint64_t> seed = std::nullopt) {
    Sought sought = Look(key);
    while (sought.loading) {
      const uint64_t settled = store->settled_count();
      RunUntil([&] { return store->settled_count() != settled; });
      if (store->settled_count() == settled) return StatusCode::kDeadline;
      sought = Look(key);
    }
    if (sought.status != StatusCode::kOk) return sought.status;
    const std::byte* record = store->Address(sought.chunk.location);
    const bool right = record != nullptr && sought.chunk.payload_bytes == bytes &&
                       PayloadIs(record + shm::kRecordHeaderBytes, bytes, seed.value_or(key));
    session->pin(0)->store(0);
    EXPECT_TRUE(right) << "wrong bytes of key " << key;
    store->Touch(sought.chunk.touch);
    return right ? StatusCode::kOk : StatusCode::kCorrupt;
  }

  StatusCode PutKey(uint64_t key, uint32_t bytes) {
    const StatusCode put = Put(*session, key, bytes);
    store->PollNvme(now_ns);
    store->Tick(now_ns);
    return put;
  }

  // "dram", "nvme" or "none".
  std::string TierOf(uint64_t key) {
    const Result<ChunkInfo> info = store->Describe(ns, KeyOf(key), now_ns);
    if (!info.ok()) return "none";
    return info->tier == shm::SlotTier::kDram ? "dram" : "nvme";
  }
  bool Durable(uint64_t key) {
    const Result<ChunkInfo> info = store->Describe(ns, KeyOf(key), now_ns);
    return info.ok() && info->durable;
  }
  NvmeStats nvme() { return store->stats().nvme; }

  SimClock clock;
  std::vector<uint64_t> sick_once;  // bytes that cannot be read when the log is first opened
  SimFaults faults;
  std::optional<SimMedium> medium;
  std::unique_ptr<SimDevice> device;
  ChunkStoreOptions options;
  StepCodecPool pool;
  std::string dtype;  // of the namespace
  std::unique_ptr<TestSession> session;
  uint64_t boots = 0;
};

}  // namespace terrace
