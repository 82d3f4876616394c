#include "tests/support/daemon_fixture.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "storage/base/check.h"

namespace terrace {
namespace {

constexpr int kReadyMs = 20'000;

std::string Binary() {
  const char* const folder = std::getenv("TERRACE_BIN");
  TERRACE_CHECK(folder != nullptr);  // set by ctest; by hand: the build folder's bin
  return std::string(folder) + "/terraced";
}

UniqueFd BindNotify(const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  TERRACE_CHECK(path.size() < sizeof address.sun_path);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  TERRACE_CHECK(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  return fd;
}

}  // namespace

DaemonFixture::DaemonFixture(std::vector<std::string> flags) : flags_(std::move(flags)) {
  char folder[] = "/tmp/terrace-test-XXXXXX";
  TERRACE_CHECK(mkdtemp(folder) != nullptr);
  folder_ = folder;
  socket_ = folder_ + "/terraced.sock";
  notify_ = BindNotify(folder_ + "/notify");
  Start();
}

DaemonFixture::~DaemonFixture() {
  if (pid_ > 0) Kill();
  std::filesystem::remove_all(folder_);
}

void DaemonFixture::Start() {
  TERRACE_CHECK(pid_ < 0);
  std::vector<std::string> words{Binary(), "--socket", socket_, "--log-level", "warning"};
  words.insert(words.end(), flags_.begin(), flags_.end());
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const std::string notify = folder_ + "/notify";
  const pid_t parent = getpid();
  pid_ = fork();
  TERRACE_CHECK(pid_ >= 0);
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    setenv("NOTIFY_SOCKET", notify.c_str(), 1);
    execv(arguments[0], arguments.data());
    _exit(127);
  }
  AwaitReady();
}

void DaemonFixture::AwaitReady() {
  for (;;) {
    pollfd readable{.fd = notify_.get(), .events = POLLIN, .revents = 0};
    TERRACE_CHECK(poll(&readable, 1, kReadyMs) == 1);
    char message[256];
    const ssize_t length = recv(notify_.get(), message, sizeof message, 0);
    TERRACE_CHECK(length > 0);
    const std::string_view text(message, static_cast<size_t>(length));
    if (text.find("READY=1") != std::string_view::npos) return;
  }
}

void DaemonFixture::Reap() {
  int status = 0;
  TERRACE_CHECK(waitpid(pid_, &status, 0) == pid_);
  pid_ = -1;
}

void DaemonFixture::Kill() {
  kill(pid_, SIGKILL);
  Reap();
}

void DaemonFixture::Terminate() {
  kill(pid_, SIGTERM);
  Reap();
}

void DaemonFixture::Pause() {
  kill(pid_, SIGSTOP);
  int status = 0;
  TERRACE_CHECK(waitpid(pid_, &status, WUNTRACED) == pid_ && WIFSTOPPED(status));
}

void DaemonFixture::Resume() { kill(pid_, SIGCONT); }

}  // namespace terrace
