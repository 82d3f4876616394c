#include "tests/support/child_process.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <utility>

#include "storage/base/check.h"

namespace terrace {
namespace {

std::vector<char*> Pointers(std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  return pointers;
}

std::vector<std::string> Environment(const std::map<std::string, std::string>& over) {
  std::vector<std::string> all;
  for (char** at = environ; *at != nullptr; ++at) {
    const std::string line(*at);
    if (!over.contains(line.substr(0, line.find('=')))) all.push_back(line);
  }
  for (const auto& [name, value] : over) all.push_back(name + "=" + value);
  return all;
}

}  // namespace

std::string ProgramPath(const std::string& name) {
  const char* const folder = std::getenv("TERRACE_BIN");
  TERRACE_CHECK(folder != nullptr);  // by hand: the build folder's bin
  return std::string(folder) + "/" + name;
}

ChildProcess::ChildProcess(Spec spec) {
  // Before the fork: the child of a process with threads may allocate nothing.
  std::vector<std::string> environment = Environment(spec.environment);
  const std::vector<char*> arguments = Pointers(spec.words), variables = Pointers(environment);
  const pid_t parent = getpid();
  pid_ = fork();
  TERRACE_CHECK(pid_ >= 0);
  if (pid_ != 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  if (spec.input.valid()) dup2(spec.input.get(), STDIN_FILENO);
  if (spec.output.valid()) dup2(spec.output.get(), STDOUT_FILENO);
  execve(arguments[0], arguments.data(), variables.data());
  _exit(127);
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  std::swap(pid_, other.pid_);
  return *this;
}

ChildProcess::~ChildProcess() {
  if (running()) Kill();
}

int ChildProcess::Reap() {
  int status = 0;
  TERRACE_CHECK(waitpid(pid_, &status, 0) == pid_);
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void ChildProcess::Kill() {
  TERRACE_CHECK(running());
  kill(pid_, SIGKILL);
  // A sanitizer that found something, or a failed check, has ended it earlier.
  TERRACE_CHECK(Reap() == 128 + SIGKILL);
}

int ChildProcess::Terminate() {
  TERRACE_CHECK(running());
  kill(pid_, SIGTERM);
  return Await();
}

int ChildProcess::Await() {
  TERRACE_CHECK(running());
  kill(pid_, SIGCONT);
  return Reap();
}

void ChildProcess::Pause() {
  TERRACE_CHECK(running());
  kill(pid_, SIGSTOP);
  int status = 0;
  TERRACE_CHECK(waitpid(pid_, &status, WUNTRACED) == pid_ && WIFSTOPPED(status));
}

void ChildProcess::Resume() {
  TERRACE_CHECK(running());
  kill(pid_, SIGCONT);
}

}  // namespace terrace
