#pragma once

// Requests to replay: each a list of block ids, a shared prefix having the same ids.  Read from a
// trace file of JSON lines ("hash_ids": [...]), or drawn from a seed.
//
// Threads: pure functions.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace terrace {

using Request = std::vector<uint64_t>;
using Trace = std::vector<Request>;

// The path in TERRACE_TRACE, else `fallback`; nullopt when no file is there.
std::optional<std::string> FindTrace(const std::string& fallback);

// Empty when the file cannot be read or holds a line without hash_ids.
Trace ReadTrace(const std::string& path);

// Conversations that come back: `request_count` requests, each either a new conversation (a system
// prompt that some share, then blocks of its own) or the next turn of an earlier one, which repeats
// all blocks so far and adds some.  Few conversations have many turns.
Trace SynthesizeTrace(uint64_t seed, uint32_t request_count);

uint64_t CountBlocks(const Trace& trace);
uint64_t CountDistinctBlocks(const Trace& trace);

}  // namespace terrace
