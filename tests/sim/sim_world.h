#pragma once

// One seed's run: a ChunkStore with its NVMe tier on a simulated disk, its clients, and the model
// beside them, on one thread under one virtual clock.  The disk outlives the stores.
//
// Checked at every step: bytes of what is found and of what is pinned, that what must be absent is,
// that the accounts add up, that leases hold; at every end of a life: that what was durable is
// there in the next one.  Failures go to the running test.
//
// Threads: one.

#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tests/sim/sim_model.h"
#include "tests/sim/sim_plan.h"
#include "tests/storage/engine/store_harness.h"
#include "tests/storage/io/sim_device.h"
#include "tests/support/step_codec_pool.h"

namespace terrace {

// What a run met, for the suite to see that it all happened.
struct SimTally {
  uint64_t puts = 0, hits = 0, misses = 0, loads = 0, persisted = 0, lives = 0, durable = 0;
  uint64_t held = 0, leased = 0, off = 0, lost = 0, corrupt = 0, reclaims = 0, moved = 0;
  uint64_t encoded = 0, ungainful = 0, decoded = 0, damaged_frames = 0;
  uint64_t injected = 0;  // faults of the disk, of any kind
};

class SimWorld {
 public:
  explicit SimWorld(const SimPlan& plan);
  ~SimWorld();

  // Stops at the first failure.
  void Run();
  const SimTally& tally() const { return tally_; }

 private:
  struct Client {
    SessionId id = 0;
    bool trusted = false;
    std::unique_ptr<TestSession> session = {};
    std::set<size_t> pins = {};  // in use
  };
  struct Label {
    std::string name;
    uint32_t id = 0;
    uint64_t epoch = 0;
    uint64_t stored_epoch = 0, epoch_max = 0;  // the next life finds one of these
    uint64_t bump_version = 0;                 // of the namespaces; 0: nothing waits to be stored
  };
  struct OpenPut {
    size_t client = 0;
    SessionId session = 0;
    SimKey key;
    uint32_t namespace_id = 0;
    uint64_t version = 0;
    PutGrant grant;
    std::byte* record = nullptr;  // as the client maps it
    int64_t deadline_ns = 0;
  };
  // A client's pin that stays for a while.
  struct Held {
    size_t client = 0, pin = 0;
    uint64_t version = 0;
    const std::byte* payload = nullptr;
  };
  enum class Wish : uint8_t { kGet, kHold, kPrefetch, kPersist };
  struct Waiter {
    Wish wish = Wish::kGet;
    size_t client = 0, pin = 0;
    SimKey key;
    uint32_t namespace_id = 0;
    int64_t deadline_ns = INT64_MAX, since_ns = 0;
  };
  enum class End : uint8_t { kDrained, kKilled, kPowerLost };

  uint64_t Random(uint64_t below) { return random_() % below; }
  bool Chance(uint32_t percent) { return Random(100) < percent; }

  // Lives (sim_world.cc).
  void Boot();
  void Connect(size_t client);
  void EndLife(End how);
  bool Drain();
  std::set<SimKey> Durable() const;
  void ExpectSurvived(const std::set<SimKey>& durable);
  void ExpectEpochs();
  void ReplaceDisk();
  void CountLife();
  void CountInjected();
  // The disk has kept its word so far: nothing flipped, misdirected or dropped.
  bool Honest() const;

  // Time.
  void Step();
  void AdvanceTo(int64_t at_ns);
  template <typename Done>
  bool RunUntil(const Done& done, uint32_t steps_max);
  bool Settled() const;

  // Checks.
  void Check();
  void CheckAccounts();
  void CheckReplicas();
  void CheckLeases();
  void CheckHeld(const Held& held, bool whole);

  // Operations (sim_operations.cc).
  void Do(SimOperation operation);
  SimKey Pick(uint32_t* namespace_id);
  void Put();
  void BeginPut();
  void EndPut();
  bool Begin(OpenPut* put, int64_t deadline_ns);
  void Fill(const OpenPut& put);
  void CommitPut(const OpenPut& put);
  bool IsOpen(const SimKey& key) const;
  bool LivesStill(const OpenPut& put) const;
  void Look(Wish wish);
  // True when the waiter has its answer.
  bool Ask(const Waiter& waiter);
  bool AskFor(const Waiter& waiter);
  bool AskPersist(const Waiter& waiter);
  void AskAll();
  void Found(const Waiter& waiter, const ReadyChunk& chunk);
  std::optional<size_t> TakePin(size_t client);
  void FreePin(size_t client, size_t pin);
  void Release();
  void Remove();
  void Lease();
  void Bump();
  void Clear();
  void Die();
  void Settle();

  // Constant after construction.
  const SimPlan plan_;

  // The run's.
  std::mt19937_64 random_, codec_random_;
  SimClock clock_;
  SimModel model_;
  std::optional<SimMedium> medium_;
  StepCodecPool codec_;
  std::vector<Label> labels_;
  SessionId sessions_ = 0;
  uint64_t lies_ = 0;          // of the disk, in former lives
  uint32_t off_in_a_row_ = 0;  // lives without the tier
  SimTally tally_;

  // One life's; sessions outlive the store, which reads their pins.
  std::vector<Client> clients_;
  std::vector<std::unique_ptr<TestSession>> dead_;
  std::unique_ptr<SimDevice> device_;
  ChunkStoreOptions options_;
  std::unique_ptr<ChunkStore> store_;
  int64_t now_ns_ = 0;
  uint64_t settled_ = 0;  // as the waiters saw it last
  std::vector<OpenPut> puts_;
  std::vector<Held> held_;
  std::vector<Waiter> waiters_;
  std::map<SimKey, int64_t> leases_;
  std::set<SimKey> persisted_;
};

}  // namespace terrace
