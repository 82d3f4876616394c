#include "tests/crash/crash_child.h"

#include <unistd.h>

#include <array>
#include <memory>
#include <random>

#include "tests/crash/crash_notes.h"
#include "tests/crash/file_store.h"

namespace terrace {
namespace {

class CrashChild {
 public:
  CrashChild(const CrashRound& round, int notes)
      : round_(round), notes_(notes), random_(round.seed * 1000 + round.life) {}

  void Run() {
    Open();
    for (uint32_t i = 0; i < round_.operations; ++i) {
      if (i == round_.operations / 2) Restart();
      Do(random_() % 40);
      for (uint64_t steps = random_() % 3; steps > 0; --steps) files_->Step();
    }
    if (!files_->Drain()) _exit(5);
    Tell({.note = CrashNote::kEnded, .version = counted_});
  }

 private:
  void Tell(const CrashWord& word) const {
    if (write(notes_, &word, sizeof word) != sizeof word) _exit(3);
  }

  void Open() {
    FileStore::Options options{
        .path = round_.path, .mode = round_.mode, .life = round_.life, .encode = round_.encode};
    options.wrap = [this](std::unique_ptr<BlockDevice> inner) {
      return std::make_unique<KillingDevice>(std::move(inner), round_.point, &counted_, [this] {
        if (serving_) TellChanges(false);
      });
    };
    files_ = std::make_unique<FileStore>(options);
    if (!files_->Start().ok()) _exit(4);
    Tell({.note = CrashNote::kReady});
    known_.fill(0);
    serving_ = true;
    TellChanges(true);
    files_->after_poll = [this] { TellChanges(true); };
  }

  // What is durable now and was not, and the other way round.
  void TellChanges(bool durable_too) {
    for (uint64_t key = 0; key < kCrashKeys; ++key) {
      const bool durable = files_->Durable(key);
      if (durable == told_[key] || (durable && !durable_too)) continue;
      told_[key] = durable;
      Tell({.note = durable ? CrashNote::kDurable : CrashNote::kGone,
            .key = key,
            .version = known_[key],
            .epoch = files_->epoch});
    }
  }

  // As a daemon that was asked to end.  What was durable is there again.
  void Restart() {
    if (!files_->Drain()) _exit(5);
    serving_ = false;
    files_ = nullptr;
    std::array<bool, kCrashKeys> before = told_;
    told_.fill(false);
    Open();
    uint64_t lost = 0;
    for (uint64_t key = 0; key < kCrashKeys; ++key) lost += before[key] && !told_[key] ? 1 : 0;
    if (lost > files_->store->stats().nvme.evicted) Tell({.note = CrashNote::kWrong});
  }

  void Do(uint64_t what) {
    const uint64_t key = random_() % kCrashKeys;
    if (what == 0) return Bump();
    if (what < 4) return Remove(key);
    if (what < 10) return Get(key);
    Put(key);
    if (what < 25) return;
    const StatusCode persisted = files_->Persist(key);
    // Its room may have been taken by others meanwhile.
    if (persisted == StatusCode::kOk && !files_->Durable(key)) {
      Tell({.note = CrashNote::kWrong, .key = key});
    }
    if (persisted == StatusCode::kBusy) _exit(5);
  }

  void Put(uint64_t key) {
    const uint64_t version = (round_.life << 32) + ++versions_;
    if (files_->Put(key, version) != StatusCode::kOk) return;
    known_[key] = version;
    Tell({.note = CrashNote::kCommitted, .key = key, .version = version, .epoch = files_->epoch});
  }

  void Get(uint64_t key) {
    uint64_t version = 0;
    const StatusCode got = files_->Get(key, &version);
    if (got == StatusCode::kDeadline) _exit(5);
    if (got != StatusCode::kOk) return;
    if (version == 0 || (known_[key] != 0 && version != known_[key])) {
      Tell({.note = CrashNote::kWrong, .key = key, .version = version});
    }
  }

  void Remove(uint64_t key) {
    files_->store->Remove(files_->ns, KeyOf(key));
    TellChanges(true);
  }

  void Bump() {
    Tell({.note = CrashNote::kEpochBegun, .epoch = files_->epoch + 1});
    const Result<NamespaceInfo> bumped = files_->store->BumpEpoch(kCrashLabel);
    if (!bumped.ok()) _exit(5);
    files_->ns = bumped->ref.id;
    files_->epoch = bumped->epoch;
    TellChanges(true);
    const uint64_t version = files_->store->namespaces_version();
    const bool ended = files_->RunUntil(
        [&] { return files_->store->NamespacesStored(version).code() != StatusCode::kBusy; });
    if (!ended || !files_->store->NamespacesStored(version).ok()) _exit(5);
    Tell({.note = CrashNote::kEpochStored, .epoch = files_->epoch});
  }

  const CrashRound round_;
  const int notes_;
  std::mt19937_64 random_;
  uint64_t counted_ = 0, versions_ = 0;
  bool serving_ = false;
  std::unique_ptr<FileStore> files_;
  std::array<uint64_t, kCrashKeys> known_{};  // versions of this opening's puts
  std::array<bool, kCrashKeys> told_{};       // durable, as the parent knows it
};

}  // namespace

void RunCrashChild(const CrashRound& round, int notes) {
  CrashChild(round, notes).Run();
  _exit(0);
}

}  // namespace terrace
