#include "bench/bench.h"

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "bench/measure.h"
#include "bench/supervised.h"

namespace terrace {
namespace {

// --nvme and --nvme-bytes, of a workload that has a daemon with an NVMe tier then.
void AddNvme(CLI::App* workload, std::string* folder, uint64_t* bytes) {
  CLI::Option* const where =
      workload
          ->add_option("--nvme", *folder,
                       "a folder on the file system of an NVMe tier; what is made there goes again")
          ->check(CLI::ExistingDirectory);
  workload->add_option("--nvme-bytes", *bytes, "what the tier may take (4GiB)")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::Range(256 * kMiB, kGiB << 10))
      ->needs(where);
}

}  // namespace

int RunBench(int argc, char** argv) {
  CLI::App app{"terrace bench measures against this machine's limits, in one run"};
  app.name("terrace bench");
  app.require_subcommand(1);
  std::function<int(const std::string& folder)> run;

  std::string nvme_parent;  // where the run makes its folder; empty: no NVMe tier
  HitOptions hit;
  CLI::App* hits = app.add_subcommand("hit", "lookup + pin + first byte in DRAM");
  hits->add_option("--entries", hit.entries, "chunks of 4 KiB (1,000,000)")
      ->check(CLI::Range(1000ul, 100'000'000ul));
  hits->add_option("--index-slots", hit.index_slots, "slots of the index: a power of two");
  hits->add_option("--socket", hit.socket, "of a daemon that runs (a private one)");
  hits->add_flag("--json", hit.json);
  hits->callback([&] { run = [&](const std::string& folder) { return RunHit(folder, hit); }; });

  PutBenchOptions put;
  CLI::App* puts = app.add_subcommand("put", "1 MiB chunks against a copy with hash");
  puts->add_option("--clients", put.clients, "numbers of client processes (1 2 4)")
      ->check(CLI::Range(1u, 16u));
  puts->add_option("--rounds", put.rounds, "rounds of which the median is taken (9)")
      ->check(CLI::Range(1u, 1000u));
  puts->add_option("--socket", put.socket, "of a daemon that runs (a private one)");
  puts->add_flag("--json", put.json);
  puts->callback(
      [&] { run = [&](const std::string& folder) { return RunPutBench(folder, put); }; });

  ChurnOptions churn;
  CLI::App* churns = app.add_subcommand(
      "churn", "mixed sizes through a pool of 2 GiB, or with --nvme through a log");
  churns->add_option("--pools", churn.pools, "pools of puts before the sizes change (10)")
      ->check(CLI::Range(1.0, 1000.0));
  AddNvme(churns, &nvme_parent, &churn.nvme_bytes);
  churns->add_flag("--json", churn.json);
  churns->callback([&] {
    run = [&](const std::string& folder) {
      return nvme_parent.empty() ? RunChurn(folder, churn) : RunChurnNvme(folder, churn);
    };
  });

  TraceOptions trace;
  CLI::App* traces = app.add_subcommand("trace", "replay requests through two client processes");
  traces->add_option("file", trace.file, "JSON lines with hash_ids")->required();
  traces->add_option("--share", trace.shares, "capacity as shares of the distinct blocks")
      ->check(CLI::Range(0.001, 1.0));
  uint64_t trace_nvme_bytes = 4 * kGiB;
  AddNvme(traces, &nvme_parent, &trace_nvme_bytes);
  traces->add_flag("--json", trace.json);
  traces->callback([&] {
    if (!nvme_parent.empty()) trace.nvme_bytes = trace_nvme_bytes;
    run = [&](const std::string& folder) { return RunTrace(folder, trace); };
  });

  CodecBenchOptions codec;
  CLI::App* codecs = app.add_subcommand("codec", "lossless codec on real KV against memcpy");
  codecs->add_option("--kv", codec.kv, "a file of scripts/dump-demo-kv")->required();
  codecs->add_option("--tokens", codec.tokens, "tokens a chunk (256)")
      ->check(CLI::Range(1u, 65536u));
  codecs->add_option("--rounds", codec.rounds, "rounds of which the median is taken (9)")
      ->check(CLI::Range(1u, 1000u));
  codecs->add_flag("--json", codec.json);
  codecs->callback([&] { run = [&](const std::string&) { return RunCodec(codec); }; });

  NvmeBenchOptions nvme;
  uint64_t nvme_mib = nvme.bytes / kMiB;
  CLI::App* nvmes = app.add_subcommand("nvme", "the NVMe tier against fio on one file system");
  nvmes->add_option("--folder", nvme_parent, "on the file system that is measured (/tmp)")
      ->check(CLI::ExistingDirectory);
  nvmes->add_option("--mib", nvme_mib, "size of the tier in MiB (4096)")
      ->check(CLI::Range(256ul, 1ul << 20));
  nvmes->add_option("--rounds", nvme.rounds, "rounds of which the median is taken (9)")
      ->check(CLI::Range(1u, 1000u));
  nvmes->add_flag("--json", nvme.json);
  nvmes->callback([&] {
    nvme.bytes = nvme_mib * kMiB;
    run = [&](const std::string& folder) { return RunNvmeBench(folder, nvme); };
  });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return RunSupervised(run, nvme_parent.empty() ? "/tmp" : nvme_parent);
}

}  // namespace terrace
