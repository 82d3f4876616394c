// terraced: the daemon.

#include <signal.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>

#include "daemon/app/daemon.h"

namespace terrace {
namespace {

struct Flags {
  std::string config, socket, dram, segment, policy, huge_pages, log_level;
  uint64_t index_slots = 0;
  bool check_config = false;
};

void Declare(CLI::App& app, Flags& flags) {
  app.set_version_flag("--version", std::string("terraced ") + TERRACE_VERSION);
  app.add_option("--config", flags.config, "TOML file; see terraced.example.toml");
  app.add_flag("--check-config", flags.check_config, "read the configuration, say if it is right");
  app.add_option("--socket", flags.socket, "Unix socket to serve on");
  app.add_option("--dram", flags.dram, "memory for chunks: 4GiB, 512MiB, auto");
  app.add_option("--segment", flags.segment, "segment size: a power of two, 2MiB to 1GiB, or auto");
  app.add_option("--index-slots", flags.index_slots, "slots of the index: a power of two");
  app.add_option("--policy", flags.policy, "gittins or lru");
  app.add_option("--huge-pages", flags.huge_pages, "auto or off");
  app.add_option("--log-level", flags.log_level, "debug, info, warning or error");
}

// Flags are read as if they stood in a file named after them, by the same rules.
Result<Config> ReadSettings(const Flags& flags) {
  Config config;
  if (!flags.config.empty()) {
    Result<Config> loaded = LoadConfig(flags.config);
    if (!loaded.ok()) return loaded.status();
    config = *std::move(loaded);
  }
  std::string text;
  const auto add = [&text](const char* key, const std::string& value) {
    if (!value.empty()) text += std::string(key) + " = '''" + value + "'''\n";
  };
  add("socket", flags.socket);
  add("dram", flags.dram);
  add("segment", flags.segment);
  add("policy", flags.policy);
  add("huge_pages", flags.huge_pages);
  add("log_level", flags.log_level);
  if (flags.index_slots != 0) text += "index_slots = " + std::to_string(flags.index_slots) + "\n";
  const Result<Config> given = ParseConfig(text, "flags");
  if (!given.ok()) return given.status();
  if (!flags.socket.empty()) config.socket = given->socket;
  if (!flags.dram.empty()) config.dram_bytes = given->dram_bytes;
  if (!flags.segment.empty()) config.segment_bytes = given->segment_bytes;
  if (!flags.policy.empty()) config.policy = given->policy;
  if (!flags.huge_pages.empty()) config.huge_pages = given->huge_pages;
  if (!flags.log_level.empty()) config.log_level = given->log_level;
  if (flags.index_slots != 0) config.index_slots = given->index_slots;
  Status checked = CheckConfig(config);
  if (!checked.ok()) return checked;
  return config;
}

int Fail(const Status& status) {
  std::fprintf(stderr, "terraced: %s\n", status.message().c_str());
  return status.code() == StatusCode::kInvalid ? 2 : 1;
}

int Serve(const Config& config) {
  // The signals are taken here, by no thread that starts below.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);

  SetLogLevel(config.log_level);
  Result<std::unique_ptr<Daemon>> daemon = Daemon::Start(config);
  if (!daemon.ok()) return Fail(daemon.status());
  LogInfo((*daemon)->Describe());
  sd_notify(0, "READY=1");

  int signal_number = 0;
  sigwait(&signals, &signal_number);
  LogInfo(std::string("stopping on ") + strsignal(signal_number) + "; again to end at once");
  sd_notify(0, "STOPPING=1");
  // The next one ends the process by its default action.
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  (*daemon)->Stop();
  return 0;
}

}  // namespace
}  // namespace terrace

int main(int argc, char** argv) {
  CLI::App app{"terraced keeps the KV cache of LLM inference outside the engines"};
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
    std::puts("the configuration is right");
    return 0;
  }
  return terrace::Serve(*config);
}
