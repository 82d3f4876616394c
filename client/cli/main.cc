// terrace: looks inside the daemon, and moves single chunks in and out.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>

#include "client/cli/cli.h"
#ifdef TERRACE_HAS_BENCH
#include "bench/bench.h"
#endif

namespace terrace {
namespace {

constexpr const char* kKeyForms = "hex digits, text:WORDS or sha256:DIGEST; @PART behind";

struct Arguments {
  CliOptions options;
  std::string label, key, file;
  std::vector<std::string> keys;
  uint32_t limit = 100;
  double seconds = 1;
  bool watch = false, durable = false;
  int exit_code = 0;
};

void DeclareLooking(CLI::App& app, Arguments& a) {
  CLI::App* status = app.add_subcommand("status", "tiers, sessions and warnings");
  status->add_flag("--watch", a.watch, "again and again, until Ctrl-C");
  status->add_option("--interval", a.seconds, "seconds between looks")
      ->check(CLI::Range(0.1, 3600.0))
      ->type_name("SECONDS");
  status->callback([&a] { a.exit_code = RunStatus(a.options, a.watch, a.seconds); });

  app.add_subcommand("namespaces", "the tenant's namespaces")->callback([&a] {
    a.exit_code = RunNamespaces(a.options);
  });
  CLI::App* list = app.add_subcommand(
      "ls", "chunks; of a key of more than 32 bytes its digest is kept, shown as sha256:DIGEST");
  list->add_option("-n,--namespace", a.label, "only those of this namespace");
  list->add_option("--limit", a.limit, "at most so many (100)")->check(CLI::Range(1u, UINT32_MAX));
  list->callback([&a] { a.exit_code = RunList(a.options, a.label, a.limit); });

  CLI::App* stat = app.add_subcommand("stat", "one chunk: state, place, worth, lease");
  stat->add_option("key", a.key, kKeyForms)->required();
  stat->add_option("-n,--namespace", a.label, "its namespace")->required();
  stat->callback([&a] { a.exit_code = RunStat(a.options, a.label, a.key); });

  CLI::App* explain = app.add_subcommand("explain", "why a get of a chunk misses");
  explain->add_option("key", a.key, "hex digits, or text:WORDS; @PART behind")->required();
  explain->add_option("-n,--namespace", a.label, "its namespace")->required();
  explain->callback([&a] { a.exit_code = RunExplain(a.options, a.label, a.key); });

  app.add_subcommand("doctor", "check the machine and the daemon, with mends")->callback([&a] {
    a.exit_code = RunDoctor(a.options);
  });
}

void DeclareMoving(CLI::App& app, Arguments& a) {
  CLI::App* get = app.add_subcommand("get", "a chunk's bytes, verified");
  get->add_option("key", a.key, kKeyForms)->required();
  get->add_option("-n,--namespace", a.label, "its namespace")->required();
  get->add_option("-o,--output", a.file, "a file; standard output otherwise");
  get->callback([&a] { a.exit_code = RunGet(a.options, a.label, a.key, a.file); });

  CLI::App* put = app.add_subcommand("put", "a file as a chunk");
  put->add_option("key", a.key, kKeyForms)->required();
  put->add_option("file", a.file, "the bytes; - is standard input")->required();
  put->add_option("-n,--namespace", a.label, "its namespace; made when it is absent")->required();
  put->add_flag("--durable", a.durable, "wait until it survives kill -9 and loss of power");
  put->callback([&a] { a.exit_code = RunPut(a.options, a.label, a.key, a.file, a.durable); });

  CLI::App* remove = app.add_subcommand("rm", "forget chunks");
  remove->add_option("keys", a.keys, "as for get")->required();
  remove->add_option("-n,--namespace", a.label, "their namespace")->required();
  remove->callback([&a] { a.exit_code = RunRemove(a.options, a.label, a.keys); });

  CLI::App* clear = app.add_subcommand("clear", "forget all chunks of a namespace");
  clear->add_option("namespace", a.label)->required();
  clear->callback([&a] { a.exit_code = RunClear(a.options, a.label); });

  CLI::App* bump = app.add_subcommand("bump", "begin a new epoch of a namespace");
  bump->add_option("namespace", a.label)->required();
  bump->callback([&a] { a.exit_code = RunBump(a.options, a.label); });
}

int Run(int argc, char** argv) {
#ifdef TERRACE_HAS_BENCH
  // Its workloads have flags of their own.
  if (argc > 1 && std::string_view(argv[1]) == "bench") {
    return FlushOutput({}, RunBench(argc - 1, argv + 1));
  }
#endif
  // It is another program, with flags of its own.
  const std::vector<std::string> words(argv + 1, argv + argc);
  const auto named = std::find_if(words.begin(), words.end(),
                                  [](const std::string& word) { return word != "--json"; });
  if (named != words.end() && *named == "fsck") {
    CliOptions options;
    options.json = named != words.begin();
    return FlushOutput({}, RunFsck(options, {named + 1, words.end()}));
  }
  CLI::App app{"terrace looks inside terraced"};
  app.set_version_flag("--version", std::string("terrace ") + TERRACE_VERSION);
  app.require_subcommand(0, 1);  // a wrong word is to be named before the lack of a right one
  app.failure_message([](const CLI::App* failed, const CLI::Error& error) {
    const std::vector<CLI::App*> commands = failed->get_subcommands();
    const std::string command = commands.empty() ? "" : commands.front()->get_name() + " ";
    return "terrace: " + std::string(error.what()) + ": see `terrace " + command + "--help`\n";
  });
  app.fallthrough();
  Arguments arguments;
  arguments.options.version = TERRACE_VERSION;
  app.add_option("--socket", arguments.options.socket,
                 "the daemon's socket; $TERRACE_SOCKET, then the default place otherwise");
  app.add_flag("--json", arguments.options.json, "for programs");
  DeclareLooking(app, arguments);
  DeclareMoving(app, arguments);
  app.add_subcommand(
      "fsck", "check the logs of a daemon that is down, and mend them: `terrace fsck --help`");
#ifdef TERRACE_HAS_BENCH
  app.add_subcommand("bench", "measure against the machine's limits: `terrace bench --help`");
#endif
  try {
    app.parse(argc, argv);
  } catch (const CLI::RequiredError& error) {
    // A word that nobody knows is the nearer mistake: what lacks may well be behind it.
    const std::vector<std::string> unknown = app.remaining(true);
    if (unknown.empty()) return app.exit(error) == 0 ? 0 : kExitUsage;
    return app.exit(CLI::ExtrasError(app.get_name(), unknown)) == 0 ? 0 : kExitUsage;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  if (app.get_subcommands().empty()) {
    return Explain(arguments.options,
                   Status(StatusCode::kInvalid, "no command: see `terrace --help`"));
  }
  return FlushOutput(arguments.options, arguments.exit_code);
}

}  // namespace
}  // namespace terrace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_DFL);
  return terrace::Run(argc, argv);
}
