// terraced: the daemon.

#include <signal.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <utility>
#include <vector>

#include "daemon/app/daemon.h"
#include "storage/base/clock.h"
#include "storage/base/log.h"

namespace terrace {
namespace {

struct Flags {
  std::string config;
  bool check_config = false;
  // What a file has too: flag and value.
  std::vector<std::pair<std::string, std::string>> settings;
};

constexpr std::pair<const char*, const char*> kSettings[] = {
    {"--socket", "Unix socket to serve on"},
    {"--dram", "memory for chunks: 4GiB, 512MiB, auto"},
    {"--segment", "segment size: a power of two, 2MiB to 1GiB, or auto"},
    {"--index-slots", "slots of the index: a power of two, 64 to 2^31, or auto"},
    {"--nvme", "folder, file or block device for the NVMe tier"},
    {"--nvme-bytes", "bytes it may take: 64GiB, auto"},
    {"--nvme-segment", "its segment size: a power of two, 2MiB to 1GiB, or auto"},
    {"--nvme-admission", "always, second-hit, or a size a day: 500GiB/day"},
    {"--nvme-codec", "auto: what gains is written there encoded; off"},
    {"--catalog", "folder for why chunks left; off: kept in memory only"},
    {"--policy", "gittins or lru"},
    {"--huge-pages", "auto or off"},
    {"--log-level", "debug, info, warning or error"},
};

void Declare(CLI::App& app, Flags& flags) {
  app.set_version_flag("--version", std::string("terraced ") + TERRACE_VERSION);
  app.add_option("--config", flags.config, "TOML file; see terraced.example.toml");
  app.add_flag("--check-config", flags.check_config, "read the configuration, say if it is right");
  for (const auto& [flag, meaning] : kSettings) {
    app.add_option_function<std::string>(
           flag,
           [&flags, name = flag](const std::string& value) {
             flags.settings.emplace_back(name, value);
           },
           meaning)
        ->type_name("VALUE");
  }
}

Result<Config> ReadSettings(const Flags& flags) {
  Config config;
  if (!flags.config.empty()) {
    Result<Config> loaded = LoadConfig(flags.config);
    if (!loaded.ok()) return loaded.status();
    config = *std::move(loaded);
  }
  for (const auto& [flag, value] : flags.settings) {
    Status applied = ApplyFlag(flag, value, &config);
    if (!applied.ok()) return applied;
  }
  Status checked = CheckConfig(config);
  if (!checked.ok()) return checked;
  return config;
}

int Fail(const Status& status) {
  std::fprintf(stderr, "terraced: %s\n", status.message().c_str());
  return status.code() == StatusCode::kInvalid ? 2 : 1;
}

// How often it is put on record what was written: so much a kill -9 forgets.
constexpr time_t kNoteSeconds = 60;

// How long a start that goes on may take until it is heard of again.
constexpr char kExtendStart[] = "EXTEND_TIMEOUT_USEC=90000000";

// SIGTERM and SIGINT, taken by the main thread alone.
class StopSignals {
 public:
  // REQUIRES: no other thread runs yet.
  StopSignals() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGTERM);
    sigaddset(&signals_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  }

  // Whether one came; it is taken.
  bool Came() {
    const timespec now{};
    if (number_ == 0) number_ = std::max(sigtimedwait(&signals_, nullptr, &now), 0);
    return number_ != 0;
  }
  // False when none came for so long.
  bool Await(time_t seconds) {
    const timespec time{.tv_sec = seconds, .tv_nsec = 0};
    if (number_ == 0) number_ = std::max(sigtimedwait(&signals_, nullptr, &time), 0);
    return number_ != 0;
  }
  const char* name() const { return strsignal(number_); }
  // The next one ends the process by its default action.
  void Release() { pthread_sigmask(SIG_UNBLOCK, &signals_, nullptr); }

 private:
  sigset_t signals_;
  int number_ = 0;
};

int Serve(const Config& config) {
  StopSignals signals;
  signal(SIGPIPE, SIG_IGN);

  SetLogLevel(config.log_level);
  for (const std::string& warning : ConfigWarnings(config)) LogWarning(warning);
  int64_t extended_ns = 0;
  Result<std::unique_ptr<Daemon>> daemon = Daemon::Start(config, [&] {
    if (MonotonicNs() - extended_ns >= kNsPerSecond) {
      extended_ns = MonotonicNs();
      sd_notify(0, kExtendStart);
    }
    return !signals.Came();
  });
  if (!daemon.ok() && daemon.status().code() == StatusCode::kCancelled) {
    LogInfo(std::string("stopping on ") + signals.name() + " before the start was done");
    sd_notify(0, "STOPPING=1");
    // A device may still hold memory of ours: nothing is destroyed under it.
    _exit(0);
  }
  if (!daemon.ok()) return Fail(daemon.status());
  LogInfo((*daemon)->Describe());
  sd_notify(0, "READY=1");

  while (!signals.Await(kNoteSeconds)) (*daemon)->NoteWritten();
  LogInfo(std::string("stopping on ") + signals.name() + "; again to end at once");
  sd_notify(0, "STOPPING=1");
  signals.Release();
  if ((*daemon)->Stop()) return 0;
  LogError("leaving without waiting for an NVMe device that hangs");
  _exit(0);
}

}  // namespace
}  // namespace terrace

int main(int argc, char** argv) {
  CLI::App app{"terraced keeps the KV cache of LLM inference outside the engines"};
  app.failure_message([](const CLI::App*, const CLI::Error& error) {
    return "terraced: " + std::string(error.what()) + ": see `terraced --help`\n";
  });
  terrace::Flags flags;
  terrace::Declare(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const terrace::Result<terrace::Config> config = terrace::ReadSettings(flags);
  if (!config.ok()) return terrace::Fail(config.status());
  if (flags.check_config) {
    for (const std::string& warning : terrace::ConfigWarnings(*config)) {
      std::fprintf(stderr, "terraced: warning: %s\n", warning.c_str());
    }
    std::puts("the configuration is right");
    return 0;
  }
  return terrace::Serve(*config);
}
