// `terrace status`: tiers as bars, sessions, warnings.

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cmath>
#include <cstdio>
#include <exception>
#include <optional>

#include "client/cli/cli.h"

namespace terrace {
namespace {

namespace json = boost::json;

constexpr int kBarWidth = 40;

uint64_t Number(const json::object& from, const char* key) {
  const json::value* value = from.if_contains(key);
  return value != nullptr && value->is_number() ? value->to_number<uint64_t>() : 0;
}

// To be printed.
std::string Text(const json::object& from, const char* key) {
  const json::value* value = from.if_contains(key);
  if (value == nullptr || !value->is_string()) return {};
  return Printable(std::string_view(value->as_string()));
}

// One cell a fortieth of the tier; what is there at all gets at least a cell.
std::string Bar(const json::object& tier) {
  const uint64_t total = std::max<uint64_t>(Number(tier, "bytes"), 1);
  const std::pair<const char*, char> kinds[] = {
      {"live_bytes", '#'}, {"claimed_bytes", 'w'}, {"padding_bytes", '-'}, {"dead_bytes", 'x'}};
  std::string bar;
  for (const auto& [key, mark] : kinds) {
    const uint64_t bytes = Number(tier, key);
    auto cells = static_cast<size_t>((bytes * kBarWidth + total / 2) / total);
    if (bytes > 0 && cells == 0) cells = 1;
    bar.append(std::min(cells, kBarWidth - std::min<size_t>(bar.size(), kBarWidth)), mark);
  }
  bar.resize(kBarWidth, '.');
  return bar;
}

void PrintTier(const json::object& tier) {
  std::printf("  %-5s [%s] %s of %s live\n", Text(tier, "tier").c_str(), Bar(tier).c_str(),
              HumanBytes(Number(tier, "live_bytes")).c_str(),
              HumanBytes(Number(tier, "bytes")).c_str());
  std::printf("        # live   w being written %s   - padding %s   x dead %s   . free %s\n",
              HumanBytes(Number(tier, "claimed_bytes")).c_str(),
              HumanBytes(Number(tier, "padding_bytes")).c_str(),
              HumanBytes(Number(tier, "dead_bytes")).c_str(),
              HumanBytes(Number(tier, "free_bytes")).c_str());
  const json::object& segments = tier.at("segments").as_object();
  std::printf(
      "        %lu segments of %s on %s pages: %lu free, %lu open, %lu sealed, "
      "%lu draining, %lu stranded; %lu pinned\n",
      Number(segments, "total"), HumanBytes(Number(tier, "segment_bytes")).c_str(),
      HumanBytes(Number(tier, "page_bytes")).c_str(), Number(segments, "free"),
      Number(segments, "open"), Number(segments, "sealed"), Number(segments, "draining"),
      Number(segments, "stranded"), Number(segments, "pinned"));
}

void PrintNvme(const json::object& tier) {
  std::printf("  %-5s [%s] %s of %s live, %lu chunks\n", "nvme", Bar(tier).c_str(),
              HumanBytes(Number(tier, "live_bytes")).c_str(),
              HumanBytes(Number(tier, "bytes")).c_str(), Number(tier, "chunks"));
  const json::value* writable = tier.if_contains("writable");
  const bool read_only = writable != nullptr && writable->is_bool() && !writable->as_bool();
  std::printf("        %s%s, %s; %lu wait to be written, %lu are read\n",
              Text(tier, "state").c_str(), read_only ? ", read-only" : "",
              Text(tier, "device").c_str(), Number(tier, "demote_queue") + Number(tier, "demoting"),
              Number(tier, "loading"));
  const json::object& segments = tier.at("segments").as_object();
  std::printf("        %lu segments of %s: %lu free, %lu open, %lu sealed, %lu given up\n",
              Number(segments, "total"), HumanBytes(Number(tier, "segment_bytes")).c_str(),
              Number(segments, "free"), Number(segments, "open"), Number(segments, "sealed"),
              Number(segments, "quarantined"));
  std::printf(
      "        written %lu (%s), read %lu (%s), evicted %lu, carried over %lu, damaged %lu\n",
      Number(tier, "demoted"), HumanBytes(Number(tier, "demoted_bytes")).c_str(),
      Number(tier, "loads"), HumanBytes(Number(tier, "load_bytes")).c_str(),
      Number(tier, "evicted"), Number(tier, "moved"), Number(tier, "corrupt"));
  std::printf(
      "        found at start %lu, of no use then %lu; not written: declined %lu, failed %lu; "
      "reads failed %lu\n",
      Number(tier, "recovered"), Number(tier, "refused"), Number(tier, "demote_declined"),
      Number(tier, "demote_failed"), Number(tier, "load_failed"));
}

// Where something is encoded, or would be.
void PrintCodec(const json::object& tier) {
  const uint64_t chunks = Number(tier, "encoded_chunks"), stored = Number(tier, "encoded_bytes");
  if (Text(tier, "codec") != "auto" && chunks == 0 && Number(tier, "decodes_failed") == 0) return;
  const uint64_t saved = Number(tier, "encoded_saved_bytes");
  const double ratio =
      static_cast<double>(stored + saved) / static_cast<double>(std::max<uint64_t>(stored, 1));
  std::printf(
      "        codec %s: %lu chunks encoded, %s saved (%.2f x); of no gain %lu, passed by "
      "%lu; decoded %lu, failed %lu\n",
      Text(tier, "codec").c_str(), chunks, HumanBytes(saved).c_str(), chunks == 0 ? 1.0 : ratio,
      Number(tier, "encodes_ungainful"), Number(tier, "encodes_skipped"), Number(tier, "decodes"),
      Number(tier, "decodes_failed"));
}

void PrintTenant(const json::object& tenant) {
  const json::object& counters = tenant.at("counters").as_object();
  const json::object& index = tenant.at("index").as_object();
  std::printf("tenant %s: %lu chunks, %lu being written, policy %s, index %lu of %lu slots\n",
              Text(tenant, "name").c_str(), Number(tenant, "chunks"), Number(tenant, "filling"),
              Text(tenant, "policy").c_str(), Number(index, "used"), Number(index, "slots"));
  const uint64_t largest = Number(tenant, "chunk_bytes_max");
  std::printf("        largest chunk %lu bytes (%s)\n", largest, HumanBytes(largest).c_str());
  for (const json::value& value : tenant.at("tiers").as_array()) {
    const json::object& tier = value.as_object();
    if (Text(tier, "tier") == "nvme") {
      PrintNvme(tier);
      PrintCodec(tier);
    } else {
      PrintTier(tier);
    }
  }
  std::printf(
      "        puts %lu (%s), uses %lu, evicted %lu, carried over %lu, busy %lu, "
      "claims ended %lu\n",
      Number(counters, "puts"), HumanBytes(Number(counters, "put_bytes")).c_str(),
      Number(counters, "touches"), Number(counters, "evicted"), Number(counters, "moved"),
      Number(counters, "busy"), Number(counters, "claims_ended"));
  for (const json::value& value : tenant.at("namespaces").as_array()) {
    const json::object& ns = value.as_object();
    std::printf("  namespace %s: %lu chunks, %s, epoch %lu\n", Text(ns, "label").c_str(),
                Number(ns, "chunks"), HumanBytes(Number(ns, "bytes")).c_str(), Number(ns, "epoch"));
  }
}

void Print(const json::object& status) {
  std::printf("terraced %s, pid %lu, up %lu s, on %s\n", Text(status, "version").c_str(),
              Number(status, "pid"), Number(status, "uptime_s"), Text(status, "socket").c_str());
  for (const json::value& tenant : status.at("tenants").as_array()) {
    PrintTenant(tenant.as_object());
  }
  for (const json::value& value : status.at("sessions").as_array()) {
    const json::object& session = value.as_object();
    std::printf(
        "session %lu: %s, pid %lu%s: %lu requests, %lu pins on %lu segments, "
        "%lu claims, %s stranded\n",
        Number(session, "id"), Text(session, "name").c_str(), Number(session, "pid"),
        session.at("closed").as_bool() ? ", disconnected" : "", Number(session, "requests"),
        Number(session, "pins"), Number(session, "pinned_segments"), Number(session, "claims"),
        HumanBytes(Number(session, "stranded_bytes")).c_str());
  }
  for (const json::value& warning : status.at("warnings").as_array()) {
    std::printf("warning: %s\n", Printable(std::string_view(warning.as_string())).c_str());
  }
}

// False when the daemon's answer lacks what is shown here.
bool PrintAnswer(const std::string& text) {
  try {
    Print(json::parse(text).as_object());
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

volatile sig_atomic_t interrupted = 0;

// Ctrl-C ends the wait.  The signal is let in only here, so that none is lost between a check and
// the wait.
class Watch {
 public:
  Watch() {
    signal(SIGINT, [](int) { interrupted = 1; });
    sigset_t held;
    sigemptyset(&held);
    sigaddset(&held, SIGINT);
    sigprocmask(SIG_BLOCK, &held, &before_);
    sigdelset(&before_, SIGINT);
  }

  // False once Ctrl-C was pressed.
  bool Wait(double seconds) const {
    const double whole = std::floor(seconds);
    const timespec wait{.tv_sec = static_cast<time_t>(whole),
                        .tv_nsec = static_cast<long>((seconds - whole) * 1e9)};
    (void)ppoll(nullptr, 0, &wait, &before_);
    return interrupted == 0;
  }

 private:
  sigset_t before_{};
};

}  // namespace

int RunStatus(const CliOptions& options, bool watch, double seconds) {
  const std::unique_ptr<Client> client = ConnectOrExplain(options);
  if (client == nullptr) return kExitFailure;
  std::optional<Watch> watching;
  if (watch) watching.emplace();
  do {
    const Result<std::string> text = client->StatusJson();
    if (!text.ok()) return Explain(options, text.status());
    if (watch && !options.json && isatty(STDOUT_FILENO) == 1) std::printf("\033[H\033[J");
    if (options.json) {
      std::printf("%s\n", text->c_str());
    } else if (!PrintAnswer(*text)) {
      return Explain(options,
                     Status(StatusCode::kCorrupt,
                            "the daemon's status has another shape: run terraced and terrace of "
                            "one version, or use --json"));
    }
    std::fflush(stdout);
  } while (watching.has_value() && watching->Wait(seconds));
  return 0;
}

}  // namespace terrace
