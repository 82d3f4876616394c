// `terrace fsck`: the daemon's own program, for it reads the logs by the daemon's own code.

#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "client/cli/cli.h"

namespace terrace {
namespace {

// Of fsck(8): not checked.
constexpr int kExitFsckFailed = 8;

}  // namespace

int RunFsck(const CliOptions& options, const std::vector<std::string>& arguments) {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::string program = self.parent_path() / "terrace-fsck";
  std::vector<std::string> words = {program};
  if (options.json) words.emplace_back("--json");
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  (void)Explain(options, Status(StatusCode::kUnavailable,
                                program + ": " + ErrnoStatus("exec", errno).message() +
                                    ": install the daemon's package beside terrace"));
  return kExitFsckFailed;
}

}  // namespace terrace
