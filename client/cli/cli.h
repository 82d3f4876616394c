#pragma once

// What the commands of `terrace` share.
//
// Threads: main.

#include <memory>
#include <string>
#include <string_view>

#include "client/core/client.h"

namespace terrace {

// Exit codes: 0 done, 1 a miss or a failure, 2 wrong use.
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;

struct CliOptions {
  std::string socket;  // empty: the client's search order
  bool json = false;
  std::string version;  // of this program
};

// Connects, or explains why not and answers null.
std::unique_ptr<Client> ConnectOrExplain(const CliOptions& options);

// "terrace: <message>" on stderr; with --json {"status", "error"} of the same words on stdout too.
// Answers the exit code.
int Explain(const CliOptions& options, const Status& status);

// Writes out what was printed.  Answers `code`, or explains why it could not be written.
int FlushOutput(const CliOptions& options, int code);

// A key as people write it: hex digits, text:WORDS for their bytes, or sha256:DIGEST for a longer
// key of which only the digest is known; @PART behind it.  ParseKey reads what FormatKey writes,
// which is never text:WORDS.
Result<shm::ChunkKey> ParseKey(std::string_view text);
std::string FormatKey(const shm::ChunkKey& key);

// Bytes that would steer a terminal, as \xNN: labels and names are other people's.
std::string Printable(std::string_view text);

// "1.5 GiB": to be read, not parsed.
std::string HumanBytes(uint64_t bytes);

// -- Commands ------------------------------------------------------------------------------------

int RunStatus(const CliOptions& options, bool watch, double seconds);
int RunNamespaces(const CliOptions& options);
int RunList(const CliOptions& options, const std::string& label, uint32_t limit);
int RunStat(const CliOptions& options, const std::string& label, const std::string& key);
int RunExplain(const CliOptions& options, const std::string& label, const std::string& key);
int RunGet(const CliOptions& options, const std::string& label, const std::string& key,
           const std::string& output);
int RunPut(const CliOptions& options, const std::string& label, const std::string& key,
           const std::string& file, bool durable);
int RunRemove(const CliOptions& options, const std::string& label,
              const std::vector<std::string>& keys);
int RunClear(const CliOptions& options, const std::string& label);
int RunBump(const CliOptions& options, const std::string& label);
int RunDoctor(const CliOptions& options);
// Becomes terrace-fsck, which lies beside this program; returns only when it cannot.
int RunFsck(const CliOptions& options, const std::vector<std::string>& arguments);

}  // namespace terrace
