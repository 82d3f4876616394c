#include "tests/sim/sim_world.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "storage/base/clock.h"
#include "storage/tier/log_layout.h"

namespace terrace {
namespace {

// Of the disk: more than any wait in here takes, whatever the faults.
constexpr uint32_t kStepsMax = 20'000;
constexpr uint32_t kOffLivesMax = 2;
constexpr int64_t kWaitNsMax = 120 * kNsPerSecond;

// A transfer that is short by all but a part of a page is an error too.
uint64_t ErrorsIn(const SimInjected& injected) {
  return injected.read_errors + injected.write_errors + injected.sync_errors + injected.full +
         injected.short_transfers;
}

uint64_t LiesIn(const SimInjected& injected) {
  return injected.rotten_bits + injected.misdirected + injected.dropped;
}

}  // namespace

SimWorld::SimWorld(const SimPlan& plan)
    : plan_(plan),
      random_(plan.seed),
      codec_random_(plan.seed),
      model_(plan.payload_bytes_max),
      medium_(std::in_place, SegmentOffset(plan.log_segments, kTestSegmentBytes), plan.seed) {
  now_ns_ = clock_.NowNs();
  for (uint32_t label = 0; label < plan.labels; ++label) {
    labels_.push_back({.name = "space-" + std::to_string(label)});
  }
}

SimWorld::~SimWorld() {
  store_.reset();
  device_.reset();
}

void SimWorld::Run() {
  Boot();
  for (uint32_t i = 0; i < plan_.operations && !testing::Test::HasFailure(); ++i) {
    SCOPED_TRACE("operation " + std::to_string(i) + ", life " + std::to_string(tally_.lives));
    Do(plan_.Draw(random_));
    for (uint64_t steps = Random(plan_.steps_max); steps > 0; --steps) Step();
    Check();
  }
  if (testing::Test::HasFailure()) return;
  Settle();
  EndLife(End::kPowerLost);
  CountInjected();
}

// ---------------------------------------------------------------------------------- lives

void SimWorld::Boot() {
  device_ =
      std::make_unique<SimDevice>(*medium_, clock_, SimDevice::Options{.faults = plan_.faults});
  options_ = SmallStore(plan_.dram_segments);
  options_.policy = plan_.policy;
  options_.boot_epoch = ++tally_.lives;
  options_.nvme.device = device_.get();
  options_.nvme.segment_bytes = kTestSegmentBytes;
  options_.nvme.admission = plan_.admission;
  options_.nvme.bytes_a_day = uint64_t{1} << 30;
  options_.nvme.sequence_floor = static_cast<uint64_t>(clock_.NowNs());
  options_.nvme.new_log_id = 1 + Random(1000);
  options_.nvme.codec_pool = &codec_;
  options_.nvme.encode = plan_.encode && codec_random_() % 4 != 0;
  codec_.jobs_max = 1 + codec_random_() % 8;
  options_.nvme.write.buffer_bytes = 64 * kKiB;
  options_.nvme.write.buffer_count = 6;
  options_.nvme.write.sync_bytes = 256 * kKiB;
  options_.nvme.write.direct_bytes_min = uint64_t{kPageBytes} << Random(6);
  ASSERT_TRUE(InstallGuard().ok());
  Result<std::unique_ptr<ChunkStore>> made = ChunkStore::Create(options_);
  ASSERT_TRUE(made.ok()) << made.status().ToString();
  store_ = *std::move(made);
  settled_ = 0;
  ASSERT_TRUE(RunUntil([this] { return store_->NvmeStarted(); }, kStepsMax)) << "never started";
  if (!store_->nvme_why_off().ok()) {
    ++tally_.off;
    ++off_in_a_row_;
    ASSERT_TRUE(!Honest() || ErrorsIn(device_->injected()) != 0)
        << store_->nvme_why_off().ToString();
  }
  if (store_->nvme_why_off().ok()) off_in_a_row_ = 0;
  model_.NewLife();
  for (Label& label : labels_) {
    NamespaceSpec spec;
    spec.label = label.name;
    spec.dtype = "bf16";
    const Result<NamespaceInfo> info = store_->RegisterNamespace(spec);
    ASSERT_TRUE(info.ok()) << info.status().ToString();
    label.id = info->ref.id;
    label.epoch = info->epoch;
  }
  clients_.resize(plan_.sessions);
  for (size_t client = 0; client < clients_.size(); ++client) Connect(client);
}

// A lying disk may have lost what tells its content apart, and is refused from then on.
void SimWorld::ReplaceDisk() {
  const uint64_t bytes = medium_->bytes();
  medium_.emplace(bytes, random_());
  model_.Forget();
  lies_ = 0;
  off_in_a_row_ = 0;
  for (Label& label : labels_) label.stored_epoch = label.epoch_max = 0;
}

void SimWorld::Connect(size_t client) {
  clients_[client] = {.id = ++sessions_, .trusted = client + 1 == plan_.sessions && client > 0};
  clients_[client].session =
      std::make_unique<TestSession>(*store_, sessions_, clients_[client].trusted);
}

std::set<SimKey> SimWorld::Durable() const {
  std::set<SimKey> durable;
  for (uint32_t label = 0; label < plan_.labels; ++label) {
    for (uint64_t key = 0; key < plan_.keys; ++key) {
      const Result<ChunkInfo> info = store_->Describe(labels_[label].id, KeyOf(key), now_ns_);
      if (info.ok() && info->durable) durable.insert({label, labels_[label].epoch, key});
    }
  }
  return durable;
}

// On a disk that fails it may never be done.
bool SimWorld::Drain() {
  for (uint32_t steps = 0; steps < kStepsMax; ++steps) {
    if (store_->DrainNvme(now_ns_)) return true;
    Step();
  }
  return false;
}

void SimWorld::EndLife(End how) {
  if (how == End::kDrained && !Drain()) {
    ASSERT_TRUE(!Honest() || ErrorsIn(device_->injected()) != 0) << "never drained";
  }
  if (testing::Test::HasFailure()) return;
  const std::set<SimKey> durable = Durable();
  tally_.durable += durable.size();
  CountLife();
  if (how == End::kPowerLost) device_->LosePower();
  store_.reset();
  // What is pinned stays readable after the daemon.
  for (const Held& held : held_) {
    if (!clients_[held.client].trusted) CheckHeld(held, true);
  }
  CountInjected();
  held_.clear();
  puts_.clear();
  waiters_.clear();
  leases_.clear();
  persisted_.clear();
  clients_.clear();
  dead_.clear();
  device_.reset();
  if (off_in_a_row_ == kOffLivesMax) ReplaceDisk();
  Boot();
  if (testing::Test::HasFatalFailure()) return;
  ExpectEpochs();
  ExpectSurvived(durable);
}

void SimWorld::ExpectEpochs() {
  const bool on = store_->nvme_why_off().ok();
  for (Label& label : labels_) {
    label.bump_version = 0;
    if (!on) continue;
    EXPECT_TRUE(label.epoch >= label.stored_epoch || !Honest()) << "a stored epoch is forgotten";
    EXPECT_LE(label.epoch, label.epoch_max);
  }
}

// What the store itself called durable; except what its reclaim has taken again at once, and what
// a failing disk did not give back.
void SimWorld::ExpectSurvived(const std::set<SimKey>& durable) {
  const SimInjected& injected = device_->injected();
  if (!Honest() || injected.read_errors + injected.short_transfers != 0) return;
  // What a first sync that failed may have lost is withheld, until the next start.
  if (injected.sync_errors != 0 && store_->stats().nvme.log.recovery.withheld != 0) return;
  if (!store_->nvme_why_off().ok()) return;
  const NvmeStats nvme = store_->stats().nvme;
  uint64_t lost = 0;
  std::string names;
  for (const SimKey& key : durable) {
    const Label& label = labels_[key.label];
    if (label.epoch != key.epoch) continue;
    if (store_->Describe(label.id, KeyOf(key.key), now_ns_).ok()) continue;
    ++lost;
    names += " " + label.name + "/" + std::to_string(key.key);
  }
  tally_.lost += lost;
  EXPECT_LE(lost, nvme.evicted) << "durable and lost:" << names;
}

bool SimWorld::Honest() const {
  return lies_ == 0 && (device_ == nullptr || LiesIn(device_->injected()) == 0);
}

void SimWorld::CountLife() {
  const NvmeStats nvme = store_->stats().nvme;
  tally_.loads += nvme.loads;
  tally_.reclaims += nvme.reclaims;
  tally_.moved += nvme.moved;
  tally_.corrupt += nvme.load_corrupt;
  tally_.encoded += nvme.encodes;
  tally_.ungainful += nvme.encodes_ungainful;
  tally_.decoded += nvme.decodes;
  tally_.damaged_frames += nvme.decodes_failed;
}

void SimWorld::CountInjected() {
  const SimInjected& got = device_->injected();
  lies_ += LiesIn(got);
  tally_.injected +=
      ErrorsIn(got) + LiesIn(got) + got.again + got.stale + got.slow + got.lost + got.torn;
}

// ----------------------------------------------------------------------------------- time

void SimWorld::AdvanceTo(int64_t at_ns) {
  now_ns_ = std::max(now_ns_, at_ns);
  if (now_ns_ > clock_.NowNs()) clock_.AdvanceTo(now_ns_);
}

// Serves the store, then lets the next thing happen.
void SimWorld::Step() {
  store_->PollNvme(now_ns_);
  if (codec_random_() % 2 == 0) codec_.RunOne();
  int64_t next = store_->Tick(now_ns_);
  std::erase_if(dead_, [this](const auto& dead) { return store_->PinsReleased(dead->id()); });
  AskAll();
  const auto sooner = [&next](int64_t at) {
    if (at != 0) next = next == 0 ? at : std::min(next, at);
  };
  sooner(store_->NvmeWake());
  sooner(device_->next_event_ns().value_or(0));
  AdvanceTo(std::max(next, now_ns_ + kNsPerUs));
}

template <typename Done>
bool SimWorld::RunUntil(const Done& done, uint32_t steps_max) {
  for (uint32_t steps = 0; steps < steps_max; ++steps) {
    if (done()) return true;
    Step();
  }
  return done();
}

// Nothing is on its way; what a failing or full disk does not take may still wait.
bool SimWorld::Settled() const {
  const NvmeStats nvme = store_->stats().nvme;
  const bool waits = std::any_of(waiters_.begin(), waiters_.end(),
                                 [](const Waiter& w) { return w.wish != Wish::kPersist; });
  return !waits && nvme.demoting == 0 && nvme.loading == 0;
}

void SimWorld::Settle() {
  EXPECT_TRUE(RunUntil([this] { return Settled(); }, kStepsMax)) << "something never ended";
}

// --------------------------------------------------------------------------------- checks

void SimWorld::Check() {
  CheckAccounts();
  CheckReplicas();
  CheckLeases();
  if (!held_.empty()) CheckHeld(held_[Random(held_.size())], Chance(5));
  for (const Waiter& waiter : waiters_) {
    EXPECT_LT(now_ns_ - waiter.since_ns, kWaitNsMax)
        << "a wait never ends, wish " << static_cast<int>(waiter.wish);
  }
  for (Label& label : labels_) {
    if (label.bump_version == 0) continue;
    const Status stored = store_->NamespacesStored(label.bump_version);
    if (stored.code() == StatusCode::kBusy) continue;
    if (stored.ok()) label.stored_epoch = label.epoch;
    label.bump_version = 0;
  }
}

void SimWorld::CheckAccounts() {
  const ChunkStoreStats stats = store_->stats();
  EXPECT_EQ(stats.live_bytes + stats.dead_bytes + stats.padding_bytes + stats.claimed_bytes +
                stats.free_bytes + stats.missing_bytes,
            stats.dram_bytes);
  EXPECT_EQ(stats.chunk_count + stats.filling_count, stats.index_used);
  EXPECT_EQ(stats.corrupt_commits, 0u);
  EXPECT_EQ(stats.corrupt_moves, 0u);
  const LogSegmentCounts& log = stats.nvme.log.segments;
  EXPECT_EQ(log.free + log.open + log.sealed + log.reclaiming + log.quarantined, log.total);
  EXPECT_LE(log.live_bytes, log.fill_bytes);
}

void SimWorld::CheckReplicas() {
  const ChunkStoreStats stats = store_->stats();
  uint64_t cursor = 0, listed = 0, durable = 0, elsewhere = 0;
  do {
    for (const ChunkInfo& info : store_->List(&cursor, 1000, now_ns_)) {
      ++listed;
      durable += info.durable ? 1 : 0;
      elsewhere += info.tier == shm::SlotTier::kNvme && !info.durable ? 1 : 0;
    }
  } while (cursor != 0);
  // Chunks of an ended epoch are counted until their sweep, and not listed.
  EXPECT_LE(listed, stats.chunk_count);
  EXPECT_LE(durable, stats.nvme.chunk_count);
  EXPECT_LE(stats.nvme.chunk_count, stats.chunk_count);
  EXPECT_LE(elsewhere, stats.nvme.loading);  // neither here nor there: only while it is read
  // What was persisted stays so while nothing takes it away.
  const NvmeStats& nvme = stats.nvme;
  const bool taken = nvme.reclaims + nvme.load_failed + nvme.evicted + nvme.moved != 0 ||
                     nvme.log.segments.reclaiming + nvme.log.segments.quarantined != 0 ||
                     nvme.log.segments.free < 3;
  if (taken) return;
  for (const SimKey& key : persisted_) {
    if (labels_[key.label].epoch != key.epoch) continue;
    const Result<ChunkInfo> info = store_->Describe(labels_[key.label].id, KeyOf(key.key), now_ns_);
    EXPECT_TRUE(info.ok() && info->durable) << "persisted and not durable: key " << key.key;
  }
}

// A lease ends with its time, the chunk's removal, or its damage; nothing else takes it.
void SimWorld::CheckLeases() {
  std::erase_if(leases_, [this](const auto& lease) {
    return lease.second <= now_ns_ || labels_[lease.first.label].epoch != lease.first.epoch;
  });
  const NvmeStats nvme = store_->stats().nvme;
  if (nvme.load_failed != 0 || nvme.log.segments.quarantined != 0) return;
  for (const auto& [key, until_ns] : leases_) {
    EXPECT_TRUE(store_->Describe(labels_[key.label].id, KeyOf(key.key), now_ns_).ok())
        << "leased and gone: key " << key.key;
  }
}

void SimWorld::CheckHeld(const Held& held, bool whole) {
  const uint32_t bytes = model_.BytesOf(held.version);
  if (whole) {
    EXPECT_TRUE(PayloadIs(held.payload, bytes, held.version)) << "pinned bytes changed";
    return;
  }
  const uint64_t at = Random(bytes) / 8 * 8;
  const uint64_t word = PayloadWord(held.version, at);
  EXPECT_EQ(std::memcmp(held.payload + at, &word, std::min<uint64_t>(8, bytes - at)), 0)
      << "a pinned word changed";
}

}  // namespace terrace
