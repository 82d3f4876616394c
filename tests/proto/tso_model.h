#pragma once

// A small explicit-state explorer: programs of a few operations, run by actors that share memory
// words, each through a store buffer of its own, as on x86 (TSO).  A store enters its actor's
// buffer; the oldest entry reaches memory at any later moment; a load looks into its own buffer
// first.  A seq_cst store keeps its actor from going on until the buffer is empty; any other store
// does not.  Every interleaving is visited once, breadth first, so that a counterexample is a
// shortest one.
//
// Threads: one.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace terrace::tso {

enum class Order : uint8_t { kRelease, kSeqCst };

enum class Code : uint8_t {
  kStore,       // memory[address] = value
  kLoad,        // reg[value] = memory[address]
  kAwait,       // goes on once memory[address] == value
  kIfEqual,     // reg[address] == value ? jump to target : go on
  kIfOther,     // reg[address] != value ? jump to target : go on
  kIfDiffer,    // reg[address] != reg[value] ? jump to target : go on
  kIfOdd,       // reg[address] is odd ? jump to target : go on
  kForget,      // all registers = 0
  kEither,      // jumps to target or goes on: both are explored
  kPinLocated,  // memory[address] = pin word of the segment of location reg[value]
  kExpectText,  // fails unless the segment of location reg[value] holds the text that it names
  kForbid,      // fails if reg[address] == value
  kJoin,        // pin word `address` is scanned from now on
  kScan,        // jumps to target if the pin word `address` is scanned and equals `value`
  kEnd,
};

struct Step {
  Code code = Code::kEnd;
  uint8_t address = 0;
  uint8_t value = 0;
  Order order = Order::kRelease;
  uint8_t target = 0;
  const char* what = "";
};

using Program = std::vector<Step>;

inline constexpr size_t kWordCount = 12;
inline constexpr size_t kActorCount = 4;
inline constexpr size_t kBufferCount = 8;

// A location names a segment (0 or 1) and the text that the record there holds.
constexpr uint8_t Locate(uint8_t segment, uint8_t text) {
  return static_cast<uint8_t>(segment | (text << 1));
}
constexpr uint8_t SegmentOf(uint8_t location) { return location & 1; }
constexpr uint8_t TextOf(uint8_t location) { return static_cast<uint8_t>(location >> 1); }
constexpr uint8_t PinOf(uint8_t segment) { return static_cast<uint8_t>(segment + 1); }

struct Actor {
  uint8_t next = 0;
  uint8_t draining = 0;  // a seq_cst store waits for the buffer
  uint8_t buffered = 0;
  std::array<uint8_t, 8> regs{};
  std::array<std::array<uint8_t, 2>, kBufferCount> buffer{};  // {address, value}, oldest first
};

struct State {
  std::array<uint8_t, kWordCount> memory{};
  std::array<uint8_t, kWordCount> scanned{};
  std::array<Actor, kActorCount> actors{};
};
static_assert(std::has_unique_object_representations_v<State>);

struct Outcome {
  bool holds = true;
  bool exhausted = true;  // false: there were more than `state_count_max` states
  uint64_t states = 0;
  uint64_t ends = 0;           // states in which no actor can go on
  std::string counterexample;  // one step a line
};

class Explorer {
 public:
  // `text_base`: memory[text_base + segment] is what the segment holds.
  Explorer(const std::array<uint8_t, kWordCount>& memory, uint8_t text_base,
           std::vector<Program> programs, std::vector<uint8_t> scanned)
      : text_base_(text_base), programs_(std::move(programs)) {
    State first;
    first.memory = memory;
    for (uint8_t address : scanned) first.scanned[address] = 1;
    Visit(first, 0, 0, "");
  }

  Outcome Run(uint64_t state_count_max) {
    for (size_t at = 0; at < states_.size() && outcome_.holds; ++at) {
      if (states_.size() > state_count_max) {
        outcome_.exhausted = false;
        break;
      }
      const size_t before = moves_;
      for (uint8_t actor = 0; actor < programs_.size() && outcome_.holds; ++actor) {
        Drain(at, actor);
        Execute(at, actor);
      }
      if (moves_ == before) ++outcome_.ends;
    }
    outcome_.states = states_.size();
    return outcome_;
  }

 private:
  struct Hash {
    const std::deque<State>* states;
    size_t operator()(size_t at) const {
      return std::hash<std::string_view>()(
          std::string_view(reinterpret_cast<const char*>(&(*states)[at]), sizeof(State)));
    }
  };
  struct Equal {
    const std::deque<State>* states;
    bool operator()(size_t a, size_t b) const {
      return std::memcmp(&(*states)[a], &(*states)[b], sizeof(State)) == 0;
    }
  };
  struct Origin {
    size_t before;
    uint8_t actor;
    const char* what;
  };

  void Visit(const State& state, size_t before, uint8_t actor, const char* what) {
    ++moves_;
    states_.push_back(state);
    if (!seen_.insert(states_.size() - 1).second) {
      states_.pop_back();
      return;
    }
    origins_.push_back(Origin{before, actor, what});
  }

  void Drain(size_t at, uint8_t who) {
    if (states_[at].actors[who].buffered == 0) return;
    State next = states_[at];
    Actor& actor = next.actors[who];
    next.memory[actor.buffer[0][0]] = actor.buffer[0][1];
    std::copy(actor.buffer.begin() + 1, actor.buffer.end(), actor.buffer.begin());
    actor.buffer.back() = {};
    if (--actor.buffered == 0) actor.draining = 0;
    Visit(next, at, who, "(its oldest store reaches memory)");
  }

  static uint8_t Look(const State& state, const Actor& actor, uint8_t address) {
    for (size_t entry = actor.buffered; entry-- > 0;) {
      if (actor.buffer[entry][0] == address) return actor.buffer[entry][1];
    }
    return state.memory[address];
  }

  void Execute(size_t at, uint8_t who) {
    State next = states_[at];
    Actor& actor = next.actors[who];
    if (actor.draining != 0) return;
    const Step& step = programs_[who][actor.next];
    if (step.code == Code::kEnd) return;
    if (step.code == Code::kAwait && Look(next, actor, step.address) != step.value) return;
    if (step.code == Code::kEither) {
      State other = next;
      other.actors[who].next = step.target;
      Visit(other, at, who, step.what);
    }
    ++actor.next;
    const auto jump_if = [&](bool condition) {
      if (condition) actor.next = step.target;
    };
    bool fails = false;
    switch (step.code) {
      case Code::kStore:
        if (!Enqueue(&actor, step, step.value)) return;
        break;
      case Code::kPinLocated:
        if (!Enqueue(&actor, step, PinOf(SegmentOf(actor.regs[step.value])))) return;
        break;
      case Code::kLoad: actor.regs[step.value] = Look(next, actor, step.address); break;
      case Code::kIfEqual: jump_if(actor.regs[step.address] == step.value); break;
      case Code::kIfOther: jump_if(actor.regs[step.address] != step.value); break;
      case Code::kIfDiffer: jump_if(actor.regs[step.address] != actor.regs[step.value]); break;
      case Code::kIfOdd: jump_if(actor.regs[step.address] % 2 != 0); break;
      case Code::kForget: actor.regs = {}; break;
      case Code::kExpectText: {
        const uint8_t location = actor.regs[step.value];
        const auto address = static_cast<uint8_t>(text_base_ + SegmentOf(location));
        fails = Look(next, actor, address) != TextOf(location);
        break;
      }
      case Code::kForbid: fails = actor.regs[step.address] == step.value; break;
      case Code::kJoin: next.scanned[step.address] = 1; break;
      case Code::kScan:
        jump_if(next.scanned[step.address] != 0 && Look(next, actor, step.address) == step.value);
        break;
      case Code::kAwait:
      case Code::kEither:
      case Code::kEnd: break;
    }
    if (fails) {
      outcome_.holds = false;
      outcome_.counterexample = Trace(at, who, step.what);
      return;
    }
    Visit(next, at, who, step.what);
  }

  // A full buffer makes its owner wait, as in hardware.
  static bool Enqueue(Actor* actor, const Step& step, uint8_t value) {
    if (actor->buffered == kBufferCount) return false;
    actor->buffer[actor->buffered++] = {step.address, value};
    actor->draining = step.order == Order::kSeqCst ? 1 : 0;
    return true;
  }

  std::string Trace(size_t at, uint8_t who, const char* what) const {
    std::vector<std::string> lines{Line(who, what)};
    for (; at != 0; at = origins_[at].before) {
      lines.push_back(Line(origins_[at].actor, origins_[at].what));
    }
    std::string text;
    for (auto line = lines.rbegin(); line != lines.rend(); ++line) text += *line;
    return text;
  }
  static std::string Line(uint8_t actor, const char* what) {
    return "  actor " + std::to_string(actor) + ": " + what + "\n";
  }

  const uint8_t text_base_;
  const std::vector<Program> programs_;
  std::deque<State> states_;
  std::vector<Origin> origins_;
  std::unordered_set<size_t, Hash, Equal> seen_{1024, Hash{&states_}, Equal{&states_}};
  Outcome outcome_;
  size_t moves_ = 0;
};

}  // namespace terrace::tso
