// The commands that look at and move single chunks.

#include <boost/json.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "client/cli/cli.h"
#include "storage/base/limits.h"

namespace terrace {
namespace {

namespace json = boost::json;

const char* StateName(KeyState state) {
  switch (state) {
    case KeyState::kAbsent: return "absent";
    case KeyState::kFilling: return "being written";
    case KeyState::kReady:
    case KeyState::kNvme: return "ready";
  }
  return "unknown";
}

bool InMemory(const ListedChunk& chunk) { return chunk.tier == "dram"; }

// "segment 3, offset 4096", or "none".
std::string PlaceOf(bool there, uint32_t segment, uint64_t offset) {
  if (!there) return "none";
  return "segment " + std::to_string(segment) + ", offset " + std::to_string(offset);
}

// Where it lies in the log, and what the codec made of it.
std::string LogPlaceOf(const ListedChunk& chunk) {
  std::string place = PlaceOf(chunk.durable, chunk.log_segment, chunk.log_offset);
  if (!chunk.durable || chunk.log_bytes == chunk.payload_bytes) return place;
  return place + ", encoded in " + std::to_string(chunk.log_bytes) + " bytes";
}

json::object ToJson(const ListedChunk& chunk) {
  const auto where = [](bool there, uint64_t number) {
    return there ? json::value(number) : json::value();
  };
  return {{"key", FormatKey(chunk.key)},
          {"hashed", chunk.key.length == shm::kKeyLengthHashed},
          {"part", chunk.key.part},
          {"namespace", chunk.namespace_label},
          {"bytes", chunk.payload_bytes},
          {"state", StateName(chunk.state)},
          {"tier", chunk.tier},
          {"durable", chunk.durable},
          {"segment", where(InMemory(chunk), chunk.segment)},
          {"offset", where(InMemory(chunk), chunk.offset)},
          {"log_segment", where(chunk.durable, chunk.log_segment)},
          {"log_offset", where(chunk.durable, chunk.log_offset)},
          {"log_bytes", where(chunk.durable, chunk.log_bytes)},
          {"worth", chunk.worth},
          {"reuse_class", chunk.reuse_class},
          {"lease_left_ms", chunk.lease_left_ms}};
}

// "there are 'a', 'b'", to be read behind the name that is not among them.
std::string NamesOf(const std::vector<ListedNamespace>& all) {
  constexpr size_t kNamed = 5;
  if (all.empty()) return "there is none yet, `terrace put` makes one";
  std::string text = all.size() == 1 ? "there is" : "there are";
  for (size_t i = 0; i < std::min(all.size(), kNamed); ++i) {
    text += (i == 0 ? " '" : ", '") + all[i].identity.label + "'";
  }
  if (all.size() > kNamed) {
    text += " and " + std::to_string(all.size() - kNamed) + " more, see `terrace namespaces`";
  }
  return text;
}

// kNotFound names what is not there, and what is.
Result<ListedNamespace> FindNamespace(Client& client, const std::string& label) {
  const Result<std::vector<ListedNamespace>> all = client.Namespaces();
  if (!all.ok()) return all.status();
  for (const ListedNamespace& listed : *all) {
    if (listed.identity.label == label) return listed;
  }
  return Status(StatusCode::kNotFound, "no namespace '" + label + "': " + NamesOf(*all));
}

// A namespace that is there, under its own identity: looking at chunks never makes one.
Result<std::shared_ptr<Namespace>> Open(Client& client, const std::string& label) {
  const Result<ListedNamespace> found = FindNamespace(client, label);
  if (!found.ok()) return found.status();
  return client.Register(found->identity);
}

// What happened to a key, in words that say what to do about it.
Status EndOf(StatusCode code, const std::string& key, const std::string& label) {
  std::string message = "chunk " + key + " of namespace '" + label + "'";
  if (code == StatusCode::kNotFound) {
    message += ": `terrace ls -n " + label + "` lists those that are there";
  } else if (code == StatusCode::kExists) {
    message += " is there or being written: remove it first with `terrace rm`";
  } else if (code == StatusCode::kBusy) {
    message += " is being written, or the pool is full: look at `terrace status` and try again";
  } else if (code == StatusCode::kNoSpace) {
    message += " finds no room: look at `terrace status` for what holds the pool";
  }
  return Status(code, message);
}

json::object ToJson(const std::string& text, const shm::ChunkKey& key, const Status& status) {
  json::object out{
      {"key", text}, {"hex", FormatKey(key)}, {"status", StatusCodeName(status.code())}};
  if (!status.ok()) out["error"] = status.message();
  return out;
}

// `text`: the key as it was typed.
int Answer(const CliOptions& options, const char* done, const std::string& text,
           const shm::ChunkKey& key, const Status& status) {
  if (!status.ok()) {
    if (!options.json) return Explain(options, status);
    std::fprintf(stderr, "terrace: %s\n", Printable(status.ToString()).c_str());
  }
  if (options.json) {
    std::printf("%s\n", json::serialize(ToJson(text, key, status)).c_str());
  } else {
    std::printf("%s %s\n", done, Printable(text).c_str());
  }
  if (status.ok()) return 0;
  return status.code() == StatusCode::kInvalid ? kExitUsage : kExitFailure;
}

// "1048448 bytes (1.0 MiB)": a limit to the byte.
std::string ExactBytes(uint64_t bytes) {
  return std::to_string(bytes) + " bytes (" + HumanBytes(bytes) + ")";
}

// All that is there, but at most one byte more than fits: a longer file is known without being read
// to its end.
Result<std::string> ReadBytes(std::istream& in, const std::string& name) {
  std::string bytes(kChunkBytesMax + 1, '\0');
  in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (in.bad()) return Status(StatusCode::kIoError, "cannot read " + name);
  bytes.resize(static_cast<size_t>(in.gcount()));
  if (bytes.empty()) return Status(StatusCode::kInvalid, name + " is empty: a chunk has bytes");
  if (bytes.size() > kChunkBytesMax) {
    return Status(StatusCode::kInvalid, name + " is longer than " + ExactBytes(kChunkBytesMax) +
                                            ": cut it into several chunks");
  }
  return bytes;
}

// A chunk's bytes from a file, "-" is standard input; kInvalid says why they can be none.
Result<std::string> ReadPayload(const std::string& name) {
  if (name == "-") return ReadBytes(std::cin, "standard input");
  std::error_code error;
  if (std::filesystem::is_directory(name, error)) {
    return Status(StatusCode::kInvalid, "cannot read " + name + ": it is a folder");
  }
  std::ifstream file(name, std::ios::binary);
  if (!file) {
    return Status(StatusCode::kInvalid, "cannot read " + name + ": check the path and its mode");
  }
  return ReadBytes(file, name);
}

}  // namespace

int RunNamespaces(const CliOptions& options) {
  const std::unique_ptr<Client> client = ConnectOrExplain(options);
  if (client == nullptr) return kExitFailure;
  const Result<std::vector<ListedNamespace>> all = client->Namespaces();
  if (!all.ok()) return Explain(options, all.status());
  json::array out;
  for (const ListedNamespace& ns : *all) {
    if (options.json) {
      out.push_back(json::object{{"label", ns.identity.label},
                                 {"model", ns.identity.model},
                                 {"weights_digest", ns.identity.weights_digest},
                                 {"dtype", ns.identity.dtype},
                                 {"layout", ns.identity.layout},
                                 {"tokens_per_chunk", ns.identity.tokens_per_chunk},
                                 {"ranks", ns.identity.ranks},
                                 {"engine_build", ns.identity.engine_build},
                                 {"isa", ns.identity.isa},
                                 {"id", ns.id},
                                 {"epoch", ns.epoch},
                                 {"chunks", ns.chunk_count},
                                 {"bytes", ns.chunk_bytes}});
    } else {
      std::printf("%-32s %8lu chunks %10s  epoch %lu  model %s\n",
                  Printable(ns.identity.label).c_str(), ns.chunk_count,
                  HumanBytes(ns.chunk_bytes).c_str(), ns.epoch,
                  ns.identity.model.empty() ? "-" : Printable(ns.identity.model).c_str());
    }
  }
  if (options.json) std::printf("%s\n", json::serialize(out).c_str());
  return 0;
}

int RunList(const CliOptions& options, const std::string& label, uint32_t limit) {
  const std::unique_ptr<Client> client = ConnectOrExplain(options);
  if (client == nullptr) return kExitFailure;
  if (!label.empty()) {
    const Result<ListedNamespace> ns = FindNamespace(*client, label);
    if (!ns.ok()) return Explain(options, ns.status());
  }
  json::array out;
  uint64_t cursor = 0;
  uint32_t listed = 0;
  bool more = false;
  do {
    const Result<std::vector<ListedChunk>> chunks = client->List(&cursor, 1024);
    if (!chunks.ok()) return Explain(options, chunks.status());
    for (const ListedChunk& chunk : *chunks) {
      if (!label.empty() && chunk.namespace_label != label) continue;
      more = listed == limit;
      if (more) break;
      ++listed;
      if (options.json) {
        out.push_back(ToJson(chunk));
      } else {
        std::printf("%-71s %10s  %s\n", FormatKey(chunk.key).c_str(),
                    HumanBytes(chunk.payload_bytes).c_str(),
                    Printable(chunk.namespace_label).c_str());
      }
    }
  } while (cursor != 0 && !more);
  if (options.json) std::printf("%s\n", json::serialize(out).c_str());
  if (more) std::fprintf(stderr, "terrace: %u shown, --limit for more\n", listed);
  return 0;
}

int RunStat(const CliOptions& options, const std::string& label, const std::string& text) {
  const Result<shm::ChunkKey> key = ParseKey(text);
  if (!key.ok()) return Explain(options, key.status());
  const std::unique_ptr<Client> client = ConnectOrExplain(options);
  if (client == nullptr) return kExitFailure;
  const Result<ListedNamespace> ns = FindNamespace(*client, label);
  if (!ns.ok()) return Explain(options, ns.status());
  const Result<ListedChunk> chunk = client->Describe(label, *key);
  if (!chunk.ok() && chunk.status().code() == StatusCode::kNotFound) {
    return Explain(options, EndOf(StatusCode::kNotFound, text, label));
  }
  if (!chunk.ok()) return Explain(options, chunk.status());
  if (options.json) {
    std::printf("%s\n", json::serialize(ToJson(*chunk)).c_str());
    return 0;
  }
  std::printf(
      "key        %s\nnamespace  %s\nstate      %s\nbytes      %u (%s)\ntier       %s\n"
      "durable    %s\n"
      "in memory  %s\non nvme    %s\nworth      %.3g hits a byte, reuse class %u\n"
      "lease      %s\n",
      FormatKey(chunk->key).c_str(), Printable(chunk->namespace_label).c_str(),
      StateName(chunk->state), chunk->payload_bytes, HumanBytes(chunk->payload_bytes).c_str(),
      chunk->tier.c_str(), chunk->durable ? "yes" : "no",
      PlaceOf(InMemory(*chunk), chunk->segment, chunk->offset).c_str(), LogPlaceOf(*chunk).c_str(),
      chunk->worth, chunk->reuse_class,
      chunk->lease_left_ms > 0 ? (std::to_string(chunk->lease_left_ms / 1000) + " s left").c_str()
                               : "none");
  return 0;
}

int RunGet(const CliOptions& options, const std::string& label, const std::string& text,
           const std::string& output) {
  const Result<shm::ChunkKey> key = ParseKey(text);
  if (!key.ok()) return Explain(options, key.status());
  const std::unique_ptr<Client> client = ConnectOrExplain(options);
  if (client == nullptr) return kExitFailure;
  const Result<std::shared_ptr<Namespace>> ns = Open(*client, label);
  if (!ns.ok()) return Explain(options, ns.status());
  GetOptions wanted;
  wanted.verify = true;
  std::vector<GetResult> got = (*ns)->Get(std::span(&*key, 1), wanted);
  if (got[0].status != StatusCode::kOk) {
    return Answer(options, "got", text, *key, EndOf(got[0].status, text, label));
  }
  const std::span<const std::byte> bytes = got[0].pin.bytes();
  if (output.empty() || output == "-") {
    std::fwrite(bytes.data(), 1, bytes.size(), stdout);  // FlushOutput says if it failed
    return 0;
  }
  std::ofstream file(output, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) {
    return Explain(options,
                   Status(StatusCode::kIoError,
                          "cannot write " + output + ": check the folder, its mode and its room"));
  }
  return Answer(options, "got", text, *key, Status::Ok());
}

namespace {

Status Persist(Namespace& ns, const shm::ChunkKey& key, const std::string& text) {
  const StatusCode code = ns.Persist(std::span(&key, 1))[0];
  const std::string held = "chunk " + text + " is in memory, but not on NVMe: ";
  switch (code) {
    case StatusCode::kOk: return Status::Ok();
    case StatusCode::kUnavailable:
      return Status(code, held + "there is no NVMe tier, or it is off: see `terrace status`");
    case StatusCode::kDenied: return Status(code, held + "its file is read-only");
    case StatusCode::kInvalid:
      return Status(code, held + "it fits no segment there: raise nvme_segment");
    default: return Status(code, held + "see `terrace status`");
  }
}

}  // namespace

int RunPut(const CliOptions& options, const std::string& label, const std::string& text,
           const std::string& name, bool durable) {
  const Result<shm::ChunkKey> key = ParseKey(text);
  if (!key.ok()) return Explain(options, key.status());
  const Result<std::string> bytes = ReadPayload(name);
  if (!bytes.ok()) return Explain(options, bytes.status());
  const std::unique_ptr<Client> client = ConnectOrExplain(options);
  if (client == nullptr) return kExitFailure;
  Result<std::shared_ptr<Namespace>> ns = Open(*client, label);
  if (!ns.ok() && ns.status().code() == StatusCode::kNotFound) {
    NamespaceIdentity identity;
    identity.label = label;
    ns = client->Register(identity);
  }
  if (!ns.ok()) return Explain(options, ns.status());
  const PutItem item{.key = *key, .payload = std::as_bytes(std::span(*bytes))};
  const StatusCode code = (*ns)->Put(std::span(&item, 1))[0];
  Status end = code == StatusCode::kOk ? Status::Ok() : EndOf(code, text, label);
  if (code == StatusCode::kInvalid) {
    end = Status(code, (name == "-" ? "standard input" : name) + " has " +
                           ExactBytes(bytes->size()) + ": the daemon's largest chunk has " +
                           ExactBytes(client->chunk_bytes_max()));
  }
  if (end.ok() && durable) end = Persist(**ns, *key, text);
  return Answer(options, durable ? "put durably" : "put", text, *key, end);
}

int RunRemove(const CliOptions& options, const std::string& label,
              const std::vector<std::string>& texts) {
  std::vector<shm::ChunkKey> keys;
  for (const std::string& text : texts) {
    const Result<shm::ChunkKey> key = ParseKey(text);
    if (!key.ok()) return Explain(options, key.status());
    keys.push_back(*key);
  }
  const std::unique_ptr<Client> client = ConnectOrExplain(options);
  if (client == nullptr) return kExitFailure;
  const Result<std::shared_ptr<Namespace>> ns = Open(*client, label);
  if (!ns.ok()) return Explain(options, ns.status());
  const std::vector<StatusCode> ends = (*ns)->Remove(keys);
  int code = 0;
  json::array out;
  for (size_t i = 0; i < ends.size(); ++i) {
    const bool done = ends[i] == StatusCode::kOk;
    const Status end = done ? Status::Ok() : EndOf(ends[i], texts[i], label);
    if (!options.json) {
      code = std::max(code, Answer(options, "removed", texts[i], keys[i], end));
      continue;
    }
    out.push_back(ToJson(texts[i], keys[i], end));
    if (done) continue;
    std::fprintf(stderr, "terrace: %s\n", Printable(end.ToString()).c_str());
    code = std::max(code, end.code() == StatusCode::kInvalid ? kExitUsage : kExitFailure);
  }
  if (options.json) std::printf("%s\n", json::serialize(out).c_str());
  return code;
}

int RunClear(const CliOptions& options, const std::string& label) {
  const std::unique_ptr<Client> client = ConnectOrExplain(options);
  if (client == nullptr) return kExitFailure;
  const Result<ListedNamespace> ns = FindNamespace(*client, label);
  if (!ns.ok()) return Explain(options, ns.status());
  const Result<uint64_t> chunks = client->ClearNamespace(label);
  if (!chunks.ok()) return Explain(options, chunks.status());
  if (options.json) {
    std::printf("%s\n",
                json::serialize(json::object{{"namespace", label}, {"chunks", *chunks}}).c_str());
  } else {
    std::printf("cleared %lu chunks of %s\n", *chunks, Printable(label).c_str());
  }
  return 0;
}

int RunBump(const CliOptions& options, const std::string& label) {
  const std::unique_ptr<Client> client = ConnectOrExplain(options);
  if (client == nullptr) return kExitFailure;
  const Result<ListedNamespace> ns = FindNamespace(*client, label);
  if (!ns.ok()) return Explain(options, ns.status());
  const Result<EpochBump> bumped = client->BumpEpoch(label);
  if (!bumped.ok()) return Explain(options, bumped.status());
  const std::string warning = bumped->stored.ok()
                                  ? std::string()
                                  : "a daemon that restarts now may bring the ended epoch back: " +
                                        bumped->stored.ToString();
  if (options.json) {
    json::object out{{"namespace", label},
                     {"status", "ok"},
                     {"epoch", bumped->epoch},
                     {"durable", bumped->stored.ok()}};
    if (!warning.empty()) out["warning"] = warning;
    std::printf("%s\n", json::serialize(out).c_str());
  } else {
    std::printf("%s begins a new epoch: all that it held is a miss\n", Printable(label).c_str());
  }
  if (!warning.empty()) std::fprintf(stderr, "terrace: warning: %s\n", Printable(warning).c_str());
  return 0;
}

}  // namespace terrace
