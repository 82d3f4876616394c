#include "tests/support/client_process.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <utility>

#include "storage/base/check.h"

namespace terrace {
namespace {

constexpr int kAnswerMs = 20'000;

std::pair<UniqueFd, UniqueFd> Pipe() {
  int ends[2];
  TERRACE_CHECK(pipe2(ends, O_CLOEXEC) == 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

}  // namespace

ClientProcess::ClientProcess(const std::string& socket, const std::string& name) {
  auto [read_command, write_command] = Pipe();
  auto [read_answer, write_answer] = Pipe();
  commands_ = std::move(write_command);
  answers_ = std::move(read_answer);
  process_ = ChildProcess({.words = {ProgramPath("scripted_client"), socket, name},
                           .input = std::move(read_command),
                           .output = std::move(write_answer)});
  TERRACE_CHECK(ReadLine() == "ready");
}

ClientProcess::~ClientProcess() {
  if (!process_.running()) return;
  commands_.Reset();
  TERRACE_CHECK(process_.Await() == 0);
}

std::string ClientProcess::Ask(const std::string& command) {
  const std::string line = command + "\n";
  TERRACE_CHECK(write(commands_.get(), line.data(), line.size()) ==
                static_cast<ssize_t>(line.size()));
  return ReadLine();
}

std::string ClientProcess::ReadLine() {
  std::string line;
  for (;;) {
    pollfd readable{.fd = answers_.get(), .events = POLLIN, .revents = 0};
    TERRACE_CHECK(poll(&readable, 1, kAnswerMs) == 1);
    char next = 0;
    TERRACE_CHECK(read(answers_.get(), &next, 1) == 1);  // 0: it has ended
    if (next == '\n') return line;
    line += next;
  }
}

}  // namespace terrace
