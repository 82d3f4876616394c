// The pin protocol of proto/shm/lookup.h and storage/index, explored exhaustively on a small model:
// readers with pin words of their own, a daemon that retires, carries over, ends an epoch and
// reuses the memory, and a session that attaches meanwhile.  With the orders that the code has, no
// reader ever reads what was rewritten under a confirmed pin; with any one of them weaker, one
// does.
//
// What a store buffer cannot show, and why it stands in the code all the same:
// - the reader's confirming loads and the daemon's scan are seq_cst, though on TSO any load does as
//   well.  C++ puts only seq_cst operations into the one total order that the proof needs, and on
//   Arm a plain acquire load (LDAPR) may be answered before an earlier seq_cst store is seen.
//   LoadAnsweredBeforeTheHazardStore and ScanBeforeStore are what would happen then.
// - Unpin is a release store: no earlier load of the bytes may move behind it.  TSO never does
// that.
// - the words of a slot are stored with release and loaded with acquire: TSO keeps such order
// anyway.

#include <cstdio>

#include <gtest/gtest.h>

#include "tests/proto/tso_model.h"

namespace terrace::tso {
namespace {

// Words of memory.
enum Word : uint8_t {
  kVersion,
  kKey,  // 0: absent
  kLocation,
  kLive,
  kReply,       // the bump was answered
  kDescriptor,  // the second session has got its index descriptor
  kText0,       // what segment 0 holds
  kText1,
  kPin0,
  kPin1,
};

// Registers of a reader.
enum Reg : uint8_t { kFirstVersion, kSeenKey, kSeenLocation, kThenVersion, kSeenLive, kSeenReply };

constexpr uint8_t kWanted = 1;  // the key, its namespace's id, and its text
constexpr uint8_t kOther = 2;

struct Protocol {
  Order hazard = Order::kSeqCst;
  Order version_odd = Order::kSeqCst;
  Order version_even = Order::kSeqCst;
  Order live = Order::kSeqCst;
  bool load_before_hazard = false;
  bool live_before_hazard = false;
  bool scan_before_store = false;
  bool reply_before_live = false;
  bool descriptor_before_join = false;
};

enum class Daemon : uint8_t { kRetire, kMove, kBump, kLife };

// FindAndPin of the wanted key, reads of the bytes, Unpin.
void AppendGet(uint8_t pin, const Protocol& protocol, Program* program) {
  std::vector<size_t> to_unpin;
  std::vector<size_t> to_end;
  const auto add = [&](Step step) { program->push_back(step); };
  const auto jump = [&](std::vector<size_t>* list, Step step) {
    list->push_back(program->size());
    add(step);
  };
  const Step store_hazard{.code = Code::kPinLocated,
                          .address = pin,
                          .value = kSeenLocation,
                          .order = protocol.hazard,
                          .what = "get: store the hazard word"};
  const Step confirm{.code = Code::kLoad,
                     .address = kVersion,
                     .value = kThenVersion,
                     .what = "get: load the version again"};
  const Step live{
      .code = Code::kLoad, .address = kLive, .value = kSeenLive, .what = "get: load the live word"};

  add({.code = Code::kLoad, .address = kReply, .value = kSeenReply, .what = "get begins"});
  add({.code = Code::kLoad,
       .address = kVersion,
       .value = kFirstVersion,
       .what = "get: load the version"});
  jump(&to_end, {.code = Code::kIfOdd, .address = kFirstVersion, .what = "get: odd?"});
  add({.code = Code::kLoad, .address = kKey, .value = kSeenKey, .what = "get: load the key"});
  jump(
      &to_end,
      {.code = Code::kIfOther, .address = kSeenKey, .value = kWanted, .what = "get: another key?"});
  add({.code = Code::kLoad,
       .address = kLocation,
       .value = kSeenLocation,
       .what = "get: load the location"});
  add({.code = Code::kLoad,
       .address = kVersion,
       .value = kThenVersion,
       .what = "get: end of the seqlock read"});
  jump(&to_end, {.code = Code::kIfDiffer,
                 .address = kFirstVersion,
                 .value = kThenVersion,
                 .what = "get: torn?"});
  if (protocol.load_before_hazard) add(confirm);
  if (protocol.live_before_hazard) add(live);
  add(store_hazard);
  if (!protocol.load_before_hazard) add(confirm);
  if (!protocol.live_before_hazard) add(live);
  jump(&to_unpin, {.code = Code::kIfDiffer,
                   .address = kFirstVersion,
                   .value = kThenVersion,
                   .what = "get: changed?"});
  jump(&to_unpin, {.code = Code::kIfOther,
                   .address = kSeenLive,
                   .value = kWanted,
                   .what = "get: epoch ended?"});
  add({.code = Code::kForbid,
       .address = kSeenReply,
       .value = 1,
       .what = "get: a hit, though begun after the bump's reply"});
  for (int read = 0; read < 2; ++read) {
    add({.code = Code::kExpectText, .value = kSeenLocation, .what = "get: read the bytes"});
  }
  for (size_t at : to_unpin) (*program)[at].target = static_cast<uint8_t>(program->size());
  add({.code = Code::kStore, .address = pin, .value = 0, .what = "get: unpin"});
  for (size_t at : to_end) (*program)[at].target = static_cast<uint8_t>(program->size());
  add({.code = Code::kForget, .what = "get ends"});
}

Program Reader(uint8_t pin, int gets, bool attaches, const Protocol& protocol) {
  Program program;
  if (attaches) {
    program.push_back({.code = Code::kAwait,
                       .address = kDescriptor,
                       .value = 1,
                       .what = "attach: the descriptor is here"});
  }
  for (int get = 0; get < gets; ++get) AppendGet(pin, protocol, &program);
  program.push_back({});
  return program;
}

// The daemon's flows, one after the other.
class DaemonProgram {
 public:
  explicit DaemonProgram(const Protocol& protocol) : protocol_(protocol) {}

  // Takes the wanted key's slot away, then reuses the memory: another key in the same slot, then
  // the wanted key once more with other bytes.
  void RetireAndReuse() {
    TakeAway(0, [&] { WriteSlot(0, Locate(0, 1), "retire"); });
    Rewrite(0, 2);
    WriteSlot(kOther, Locate(0, 2), "put another key");
    TakeAway(0, [&] { WriteSlot(0, Locate(0, 2), "retire the other key"); });
    Rewrite(0, 3);
    WriteSlot(kWanted, Locate(0, 3), "put the wanted key again");
  }

  // The bytes go to the other segment, the slot follows, and the old memory is reused.
  void CarryOver(uint8_t from, uint8_t to) {
    Rewrite(to, 1);
    TakeAway(from, [&] { WriteSlot(kWanted, Locate(to, 1), "move"); });
    Rewrite(from, 2);
  }

  // Clears the live word, answers, and reuses the memory: not even a sweep of the slots is needed.
  void Bump(uint8_t segment) {
    const Step reply{.code = Code::kStore, .address = kReply, .value = 1, .what = "bump: answer"};
    if (protocol_.reply_before_live) Add(reply);
    TakeAway(segment, [&] {
      Add({.code = Code::kStore,
           .address = kLive,
           .value = 0,
           .order = protocol_.live,
           .what = "bump: clear the live word"});
    });
    if (!protocol_.reply_before_live) Add(reply);
    Rewrite(segment, 2);
    Add({.code = Code::kStore,
         .address = kLive,
         .value = kOther,
         .what = "give the live word to another namespace"});
  }

  // One of two ways to go on, which end together.
  template <typename First, typename Second>
  void Either(const First& first, const Second& second) {
    const size_t choice = program_.size();
    Add({.code = Code::kEither, .what = "daemon chooses"});
    first();
    const size_t skip = program_.size();
    // Both ends of this choice are the same step: a jump.
    Add({.code = Code::kIfEqual, .address = 0, .value = 0, .what = "daemon goes on"});
    program_[choice].target = static_cast<uint8_t>(program_.size());
    second();
    program_[skip].target = static_cast<uint8_t>(program_.size());
  }

  Program Take() {
    Add({});
    return std::move(program_);
  }

 private:
  void Add(Step step) { program_.push_back(step); }

  void WriteSlot(uint8_t key, uint8_t location, const char* what) {
    Add({.code = Code::kStore,
         .address = kVersion,
         .value = static_cast<uint8_t>(version_ + 1),
         .order = protocol_.version_odd,
         .what = what});
    Add({.code = Code::kStore, .address = kKey, .value = key, .what = what});
    Add({.code = Code::kStore, .address = kLocation, .value = location, .what = what});
    Add({.code = Code::kStore,
         .address = kVersion,
         .value = static_cast<uint8_t>(version_ + 2),
         .order = protocol_.version_even,
         .what = what});
    version_ = static_cast<uint8_t>(version_ + 2);
  }

  template <typename StoreIt>
  void TakeAway(uint8_t segment, const StoreIt& store) {
    if (protocol_.scan_before_store) WaitUnpinned(segment);
    store();
    if (!protocol_.scan_before_store) WaitUnpinned(segment);
  }

  void WaitUnpinned(uint8_t segment) {
    const auto start = static_cast<uint8_t>(program_.size());
    for (uint8_t pin : {kPin0, kPin1}) {
      Add({.code = Code::kScan,
           .address = pin,
           .value = PinOf(segment),
           .target = start,
           .what = "daemon: scan a pin word"});
    }
  }

  void Rewrite(uint8_t segment, uint8_t text) {
    Add({.code = Code::kStore,
         .address = static_cast<uint8_t>(kText0 + segment),
         .value = text,
         .what = "daemon: write a segment"});
  }

  const Protocol protocol_;
  Program program_;
  uint8_t version_ = 2;
};

Program DaemonFor(Daemon kind, const Protocol& protocol) {
  DaemonProgram program(protocol);
  switch (kind) {
    case Daemon::kRetire: program.RetireAndReuse(); break;
    case Daemon::kMove:
      program.CarryOver(0, 1);
      program.CarryOver(1, 0);
      break;
    case Daemon::kBump: program.Bump(0); break;
    case Daemon::kLife:
      program.CarryOver(0, 1);
      program.Either([&] { program.Bump(1); }, [&] { program.CarryOver(1, 0); });
      break;
  }
  return program.Take();
}

// Two readers, of which the second may attach while the daemon works.
Outcome Explore(Daemon kind, bool attaches, const Protocol& protocol) {
  std::array<uint8_t, kWordCount> memory{};
  memory[kVersion] = 2;
  memory[kKey] = kWanted;
  memory[kLocation] = Locate(0, 1);
  memory[kLive] = kWanted;
  memory[kText0] = 1;

  std::vector<Program> programs{Reader(kPin0, 2, false, protocol),
                                Reader(kPin1, 1, attaches, protocol), DaemonFor(kind, protocol)};
  std::vector<uint8_t> scanned{kPin0};
  if (!attaches) scanned.push_back(kPin1);
  if (attaches) {
    const Step join{.code = Code::kJoin, .address = kPin1, .what = "attach: join the scanned set"};
    const Step send{.code = Code::kStore,
                    .address = kDescriptor,
                    .value = 1,
                    .what = "attach: send the descriptor"};
    programs.push_back(protocol.descriptor_before_join ? Program{send, join, Step{}}
                                                       : Program{join, send, Step{}});
  }
  Outcome outcome =
      Explorer(memory, kText0, std::move(programs), std::move(scanned)).Run(20'000'000);
  std::printf("%s: %llu states, %llu ends\n",
              outcome.holds ? "holds" : ("counterexample:\n" + outcome.counterexample).c_str(),
              static_cast<unsigned long long>(outcome.states),
              static_cast<unsigned long long>(outcome.ends));
  return outcome;
}

void ExpectHolds(Daemon kind, bool attaches, const Protocol& protocol) {
  const Outcome outcome = Explore(kind, attaches, protocol);
  EXPECT_TRUE(outcome.holds);
  EXPECT_TRUE(outcome.exhausted);
  EXPECT_GT(outcome.ends, 0u) << "no run came to its end: the model is stuck";
}

void ExpectFails(Daemon kind, bool attaches, const Protocol& protocol, const char* last_step) {
  const Outcome outcome = Explore(kind, attaches, protocol);
  EXPECT_FALSE(outcome.holds);
  EXPECT_NE(outcome.counterexample.find(last_step), std::string::npos);
}

constexpr char kRead[] = "read the bytes";

TEST(PinModel, HoldsWhileTheDaemonRetiresAndReuses) { ExpectHolds(Daemon::kRetire, false, {}); }
TEST(PinModel, HoldsWhileTheDaemonCarriesOver) { ExpectHolds(Daemon::kMove, false, {}); }
TEST(PinModel, HoldsWhileAnEpochEnds) { ExpectHolds(Daemon::kBump, false, {}); }
TEST(PinModel, HoldsThroughCarryOverAndEpochBump) { ExpectHolds(Daemon::kLife, false, {}); }

TEST(PinModel, HoldsWhileASessionAttaches) {
  for (Daemon kind : {Daemon::kRetire, Daemon::kMove, Daemon::kBump, Daemon::kLife}) {
    ExpectHolds(kind, true, {});
  }
}

TEST(PinModel, HazardStoreMustBeSeqCst) {
  for (Daemon kind : {Daemon::kRetire, Daemon::kMove, Daemon::kBump}) {
    ExpectFails(kind, false, {.hazard = Order::kRelease}, kRead);
  }
}

TEST(PinModel, VersionStoreOfARetireMustBeSeqCst) {
  ExpectFails(Daemon::kRetire, false,
              {.version_odd = Order::kRelease, .version_even = Order::kRelease}, kRead);
}

TEST(PinModel, VersionStoreOfAMoveMustBeSeqCst) {
  ExpectFails(Daemon::kMove, false,
              {.version_odd = Order::kRelease, .version_even = Order::kRelease}, kRead);
}

// Either closes the window by itself; the code has both (SlotWrite in storage/index/index.cc).
TEST(PinModel, OneSeqCstVersionStoreOfTheTwoSuffices) {
  for (Daemon kind : {Daemon::kRetire, Daemon::kMove}) {
    ExpectHolds(kind, false, {.version_odd = Order::kRelease});
    ExpectHolds(kind, false, {.version_even = Order::kRelease});
  }
}

TEST(PinModel, LiveWordStoreMustBeSeqCst) {
  ExpectFails(Daemon::kBump, false, {.live = Order::kRelease}, kRead);
}

TEST(PinModel, ScanBeforeStoreFails) {
  for (Daemon kind : {Daemon::kRetire, Daemon::kMove, Daemon::kBump}) {
    ExpectFails(kind, false, {.scan_before_store = true}, kRead);
  }
}

TEST(PinModel, LoadAnsweredBeforeTheHazardStoreFails) {
  ExpectFails(Daemon::kRetire, false, {.load_before_hazard = true}, kRead);
  ExpectFails(Daemon::kMove, false, {.load_before_hazard = true}, kRead);
  ExpectFails(Daemon::kBump, false, {.live_before_hazard = true}, kRead);
}

TEST(PinModel, ReplyBeforeTheLiveWordIsClearedFails) {
  ExpectFails(Daemon::kBump, false, {.reply_before_live = true}, "begun after the bump's reply");
}

TEST(PinModel, DescriptorSentBeforeTheTableJoinsFails) {
  for (Daemon kind : {Daemon::kRetire, Daemon::kMove, Daemon::kBump}) {
    ExpectFails(kind, true, {.descriptor_before_join = true}, kRead);
  }
}

}  // namespace
}  // namespace terrace::tso
