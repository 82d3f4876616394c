#include "tests/storage/policy/replay_trace.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string_view>
#include <unordered_set>

namespace terrace {
namespace {

// The ids of one line, or an empty list when it has none.
Request ParseLine(std::string_view line) {
  constexpr std::string_view kField = "\"hash_ids\": [";
  const size_t field = line.find(kField);
  if (field == std::string_view::npos) return {};
  Request request;
  const char* at = line.data() + field + kField.size();
  const char* const end = line.data() + line.size();
  while (at < end && *at != ']') {
    uint64_t id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    if (error != std::errc()) return {};
    request.push_back(id);
    at = next;
    while (at < end && (*at == ',' || *at == ' ')) ++at;
  }
  return request;
}

// The standard's distributions differ between libraries; these do not.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  uint32_t Below(uint32_t bound) { return static_cast<uint32_t>(engine_() % bound); }
  double Unit() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }

 private:
  std::mt19937_64 engine_;
};

struct Conversation {
  Request blocks;
  double turn_again;  // the chance of another turn after each
};

}  // namespace

std::optional<std::string> FindTrace(const std::string& fallback) {
  const char* const named = std::getenv("TERRACE_TRACE");
  std::string path = named != nullptr ? named : fallback;
  if (!std::filesystem::exists(path)) return std::nullopt;
  return path;
}

Trace ReadTrace(const std::string& path) {
  std::ifstream file(path);
  Trace trace;
  for (std::string line; std::getline(file, line);) {
    trace.push_back(ParseLine(line));
    if (trace.back().empty()) return {};
  }
  return trace;
}

Trace SynthesizeTrace(uint64_t seed, uint32_t request_count) {
  constexpr uint32_t kPromptCount = 8;
  constexpr uint32_t kPromptBlocks = 4;
  constexpr uint32_t kOpenConversationsMax = 512;
  Random random(seed);
  uint64_t next_id = kPromptCount * kPromptBlocks;
  std::vector<Conversation> open;  // oldest turn first
  Trace trace;
  while (trace.size() < request_count) {
    Conversation conversation{.blocks = {}, .turn_again = random.Unit() < 0.15 ? 0.9 : 0.2};
    if (!open.empty() && random.Unit() < 0.4) {
      // Recent ones come back sooner: the square leans towards the end of the list.
      const double lean = 1 - random.Unit() * random.Unit();
      const auto chosen =
          open.begin() +
          static_cast<std::ptrdiff_t>(std::min(lean, 0.999999) * static_cast<double>(open.size()));
      conversation = *chosen;
      open.erase(chosen);
    } else {
      const uint64_t prompt = std::min(random.Below(kPromptCount), random.Below(kPromptCount));
      for (uint64_t i = 0; i < kPromptBlocks; ++i) {
        conversation.blocks.push_back(prompt * kPromptBlocks + i);
      }
    }
    const uint32_t added = 1 + random.Below(16);
    for (uint32_t i = 0; i < added; ++i) conversation.blocks.push_back(next_id++);
    trace.push_back(conversation.blocks);
    if (random.Unit() >= conversation.turn_again) continue;
    open.push_back(conversation);
    if (open.size() > kOpenConversationsMax) open.erase(open.begin());
  }
  return trace;
}

uint64_t CountBlocks(const Trace& trace) {
  uint64_t count = 0;
  for (const Request& request : trace) count += request.size();
  return count;
}

uint64_t CountDistinctBlocks(const Trace& trace) {
  std::unordered_set<uint64_t> distinct;
  for (const Request& request : trace) distinct.insert(request.begin(), request.end());
  return distinct.size();
}

}  // namespace terrace
