// `terrace explain`: why a get misses, in words or as JSON.

#include <boost/json.hpp>
#include <cstdio>

#include "client/cli/cli.h"

namespace terrace {
namespace {

namespace json = boost::json;

json::value Known(int64_t wall_ms) {
  if (wall_ms == 0) return nullptr;
  return wall_ms;
}

json::value Known(const std::string& text) {
  if (text.empty()) return nullptr;
  return json::string(text);
}

json::object ToJson(const Explanation& explanation, const shm::ChunkKey& key,
                    const std::string& label, const std::string& text) {
  json::array tiers;
  if (explanation.in_dram) tiers.push_back("dram");
  if (explanation.on_nvme) tiers.push_back("nvme");
  const bool caused = explanation.cause != GoneCause::kNone;
  return {{"key", FormatKey(key)},
          {"part", key.part},
          {"namespace", label},
          {"namespace_known", explanation.namespace_known},
          {"answer", Name(explanation.answer)},
          {"cause", caused ? json::value(Name(explanation.cause)) : json::value(nullptr)},
          {"when_ms", Known(explanation.when_ms)},
          {"tiers", std::move(tiers)},
          {"bytes", explanation.payload_bytes},
          {"put_ms", Known(explanation.put_ms)},
          {"other_namespace", Known(explanation.other_label)},
          {"other_field", Known(explanation.other_field)},
          {"history_since_ms", Known(explanation.history_since_ms)},
          {"history_lost", explanation.history_lost},
          {"daemon_started_ms", Known(explanation.daemon_started_ms)},
          {"text", text}};
}

}  // namespace

int RunExplain(const CliOptions& options, const std::string& label, const std::string& key) {
  const Result<shm::ChunkKey> parsed = ParseKey(key);
  if (!parsed.ok()) return Explain(options, parsed.status());
  const std::unique_ptr<Client> client = ConnectOrExplain(options);
  if (client == nullptr) return kExitFailure;
  const Result<Explanation> explanation = client->Explain(label, *parsed);
  if (!explanation.ok()) return Explain(options, explanation.status());
  const std::string text = explanation->Text(key, label);
  if (options.json) {
    std::printf("%s\n", json::serialize(ToJson(*explanation, *parsed, label, text)).c_str());
  } else {
    std::printf("%s\n", Printable(text).c_str());
  }
  return 0;
}

}  // namespace terrace
