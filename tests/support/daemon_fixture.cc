#include "tests/support/daemon_fixture.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "storage/base/check.h"

namespace terrace {
namespace {

constexpr int kReadyMs = 20'000;

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
  if (process_.running()) Terminate();
  std::filesystem::remove_all(folder_);
}

void DaemonFixture::Start() {
  TERRACE_CHECK(!process_.running());
  ChildProcess::Spec spec{
      .words = {ProgramPath("terraced"), "--socket", socket_, "--log-level", "warning"},
      .environment = {{"NOTIFY_SOCKET", folder_ + "/notify"}}};
  spec.words.insert(spec.words.end(), flags_.begin(), flags_.end());
  process_ = ChildProcess(std::move(spec));
  AwaitReady();
}

void DaemonFixture::Terminate() { TERRACE_CHECK(process_.Terminate() == 0); }

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

}  // namespace terrace
