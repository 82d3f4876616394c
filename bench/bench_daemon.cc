#include "bench/bench_daemon.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "client/core/client.h"
#include "storage/base/clock.h"

namespace terrace {
namespace {

constexpr int64_t kStartNs = 30 * kNsPerSecond;
constexpr int64_t kEndNs = 10 * kNsPerSecond;

std::string Beside(const char* name) {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return self.parent_path() / name;
}

}  // namespace

Result<BenchDaemon> BenchDaemon::Start(const std::string& folder,
                                       const std::vector<std::string>& arguments) {
  const std::string binary = Beside("terraced");
  const std::string socket = folder + "/terraced.sock";
  if (access(binary.c_str(), X_OK) != 0) {
    return Status(StatusCode::kInvalid,
                  binary +
                      " is not there: install the daemon beside terrace, or name a daemon that "
                      "runs by --socket where the workload takes one");
  }
  std::vector<std::string> words = {binary, "--socket", socket, "--log-level", "warning"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return ErrnoStatus("fork", errno);
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // a killed bench leaves no daemon behind
    if (getppid() != parent) _exit(0);
    execv(binary.c_str(), argv.data());
    _exit(127);
  }
  BenchDaemon daemon(pid, socket);
  const int64_t until = MonotonicNs() + kStartNs;
  while (MonotonicNs() < until) {
    int ended = 0;
    if (waitpid(pid, &ended, WNOHANG) == pid) {
      daemon.pid_ = 0;
      return Status(StatusCode::kInvalid, binary + " did not start; what it says stands above");
    }
    ClientOptions options;
    options.socket = socket;
    options.client_name = "bench";
    options.connect_timeout_ns = 200 * kNsPerMs;
    options.reconnect = false;
    if (Client::Connect(options).ok()) return daemon;
    usleep(20'000);
  }
  return Status(StatusCode::kDeadline, binary + " did not serve within 30 s");
}

BenchDaemon BenchDaemon::Borrow(const std::string& socket) { return {0, socket}; }

BenchDaemon::BenchDaemon(BenchDaemon&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)), socket_(std::move(other.socket_)) {}

BenchDaemon::~BenchDaemon() {
  if (pid_ <= 0) return;
  kill(pid_, SIGTERM);
  const int64_t until_ns = MonotonicNs() + kEndNs;
  while (MonotonicNs() < until_ns) {
    if (waitpid(pid_, nullptr, WNOHANG) != 0) return;
    usleep(5'000);
  }
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

}  // namespace terrace
