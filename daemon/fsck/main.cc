// terrace-fsck: what `terrace fsck` runs.

#include <signal.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdio>

#include "daemon/fsck/fsck.h"
#include "daemon/fsck/fsck_report.h"
#include "storage/base/log.h"

namespace terrace {
namespace {

std::atomic<bool> stopped{false};
static_assert(std::atomic<bool>::is_always_lock_free);

// SIGINT and SIGTERM end the run between two writes; the second one at once.
void StopOnSignals() {
  struct sigaction action {};
  action.sa_handler = [](int) { stopped.store(true); };
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGINT, SIGTERM}) {
    sigaction(number, &action, nullptr);
    sigaddset(&signals, number);
  }
  sigprocmask(SIG_UNBLOCK, &signals, nullptr);
}

void Declare(CLI::App& app, FsckOptions& options) {
  app.add_option("--config", options.config, "terraced's settings: whose logs, and the catalog")
      ->type_name("FILE");
  app.add_option("--nvme", options.nvme,
                 "folders of logs, or the files or devices of one log in their order")
      ->type_name("PATH");
  app.add_option("--catalog", options.catalog, "the catalog's folder; off: none")
      ->type_name("FOLDER");
  app.add_flag("--quick", options.quick, "read no payloads: heads, footers and headers only");
  app.add_flag("--repair", options.repair,
               "mend: copies from the good one, footers from headers; damaged records are retired");
  app.add_flag("--rebuild", options.rebuild, "make the catalog anew from the logs");
  app.add_flag("--json", options.json, "for programs");
  app.footer(
      "Reads only, unless --repair or --rebuild is given; terraced must be down.\n"
      "Exit code, the sum of: 0 clean, 1 damage mended, 4 damage left, 8 not checked, 16 wrong "
      "use, 32 broken off.");
}

int Run(int argc, char** argv) {
  CLI::App app{"checks the logs of a terraced that is down", "terrace fsck"};
  app.failure_message([](const CLI::App*, const CLI::Error& error) {
    return "terrace fsck: " + std::string(error.what()) + ": see `terrace fsck --help`\n";
  });
  FsckOptions options;
  Declare(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kFsckClean : kFsckUsage;
  }
  SetLogLevel(LogLevel::kError);
  StopOnSignals();
  const int code = RunFsck(options, [] { return !stopped.load(); });
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  std::fputs("terrace fsck: cannot write to standard output\n", stderr);
  return code | kFsckFailed;
}

}  // namespace
}  // namespace terrace

int main(int argc, char** argv) { return terrace::Run(argc, argv); }
