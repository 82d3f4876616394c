#include "daemon/app/config.h"

#include <unistd.h>

#include <toml++/toml.h>
#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "storage/base/limits.h"

namespace terrace {
namespace {

constexpr std::array kRootKeys = {
    "socket",     "socket_mode",  "dram",           "segment",    "index_slots",     "nvme",
    "nvme_bytes", "nvme_segment", "nvme_admission", "nvme_codec", "nvme_scrub_days", "catalog",
    "policy",     "huge_pages",   "log_level",      "tenant"};
constexpr std::array kTenantKeys = {"name", "uids", "dram", "nvme_bytes"};
constexpr std::string_view kDramExamples = "\"4GiB\" or \"512MiB\", or \"auto\"";
constexpr std::string_view kNvmeExamples = "\"64GiB\" or \"2TiB\", or \"auto\"";
constexpr std::string_view kShareExamples = "\"4GiB\" or \"512MiB\"";

// Edit distance, for "did you mean".
size_t Distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0]++;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

// What a setting may be, in words that follow "use" and "is not"; the examples as a file has them.
struct Right {
  std::string_view what;
  std::string_view examples = {};
};

constexpr Right kString = {.what = "a string"};
constexpr Right kPath = {.what = "a path", .examples = "/run/x.sock"};

constexpr Right kFolder = {.what = "a folder or \"off\""};
constexpr Right kFolderFlag = {.what = "a folder or off", .examples = "/var/lib/terrace/catalog"};

enum class From { kFile, kFlag };

class Reader {
 public:
  // `name`: the file, or the flag.
  Reader(From from, std::string name) : from_(from), name_(std::move(name)) {}

  // Sets what the table names and leaves the rest.
  Status Read(const toml::table& table, Config* config) const;
  Status ReadRoot(const toml::table& table, Config* config) const;

 private:
  Status Wrong(const toml::node& node, std::string_view key, const Right& right) const;

  std::string Where(const toml::source_region& at) const {
    return name_ + ":" + std::to_string(at.begin.line) + ": ";
  }

  template <size_t N>
  Status CheckKeys(const toml::table& table, const std::array<const char*, N>& known) const;

  // "auto" is 0.
  Status ReadSize(const toml::table& table, const char* key, std::string_view examples,
                  uint64_t* out) const;
  Status ReadText(const toml::table& table, const char* key, const Right& right,
                  std::string* out) const;
  Status ReadSegment(const toml::table& table, const char* key, uint64_t* out) const;
  Status ReadNvme(const toml::table& table, Config* config) const;
  Status ReadAdmission(const toml::table& table, Config* config) const;
  Status ReadIndexSlots(const toml::table& table, Config* config) const;
  Status ReadWords(const toml::table& table, Config* config) const;
  Status ReadTenant(const toml::table& table, TenantConfig* tenant) const;

  const From from_;
  const std::string name_;
};

Status Reader::Wrong(const toml::node& node, std::string_view key, const Right& right) const {
  std::ostringstream message;
  if (from_ == From::kFile) {
    message << Where(node.source()) << key << " = " << toml::node_view<const toml::node>(&node)
            << ": use " << right.what;
    if (!right.examples.empty()) message << " such as " << right.examples;
    return Status(StatusCode::kInvalid, message.str());
  }
  message << name_ << ": \"";
  if (const auto number = node.value_exact<int64_t>()) message << *number;
  message << node.value_exact<std::string>().value_or("") << "\" is not " << right.what;
  if (!right.examples.empty()) {
    // A shell needs no quotes around these.
    std::string plain(right.examples);
    std::erase(plain, '"');
    message << "; write for example " << plain;
  }
  return Status(StatusCode::kInvalid, message.str());
}

template <size_t N>
Status Reader::CheckKeys(const toml::table& table, const std::array<const char*, N>& known) const {
  for (const auto& [key, node] : table) {
    const std::string_view name = key.str();
    if (std::count(known.begin(), known.end(), name) != 0) continue;
    const auto* nearest = *std::min_element(known.begin(), known.end(), [&](auto a, auto b) {
      return Distance(name, a) < Distance(name, b);
    });
    return Status(StatusCode::kInvalid, Where(key.source()) + "unknown key '" + std::string(name) +
                                            "': did you mean '" + nearest + "'?");
  }
  return Status::Ok();
}

Status Reader::ReadSize(const toml::table& table, const char* key, std::string_view examples,
                        uint64_t* out) const {
  const toml::node* node = table.get(key);
  if (node == nullptr) return Status::Ok();
  const Right right{.what = "a size", .examples = examples};
  if (const auto bytes = node->value_exact<int64_t>()) {
    if (*bytes <= 0) return Wrong(*node, key, right);
    *out = static_cast<uint64_t>(*bytes);
    return Status::Ok();
  }
  const auto text = node->value_exact<std::string>();
  if (!text) return Wrong(*node, key, right);
  if (*text == "auto") {
    *out = 0;
    return Status::Ok();
  }
  const Result<uint64_t> bytes = ParseSize(*text);
  if (!bytes.ok() || *bytes == 0) return Wrong(*node, key, right);
  *out = *bytes;
  return Status::Ok();
}

Status Reader::ReadText(const toml::table& table, const char* key, const Right& right,
                        std::string* out) const {
  const toml::node* node = table.get(key);
  if (node == nullptr) return Status::Ok();
  const auto text = node->value_exact<std::string>();
  if (!text || text->empty()) return Wrong(*node, key, right);
  *out = *text;
  return Status::Ok();
}

Status Reader::ReadSegment(const toml::table& table, const char* key, uint64_t* out) const {
  uint64_t bytes = *out;
  Status read = ReadSize(table, key, "\"32MiB\", or \"auto\"", &bytes);
  if (!read.ok()) return read;
  const bool power = (bytes & (bytes - 1)) == 0;
  if (bytes != 0 && (bytes < kSegmentBytesMin || bytes > kSegmentBytesMax || !power)) {
    return Wrong(*table.get(key), key,
                 {.what = "\"auto\" or a power of two from \"2MiB\" to \"1GiB\""});
  }
  *out = bytes;
  return Status::Ok();
}

// One path, or a list of them.
Status Reader::ReadNvme(const toml::table& table, Config* config) const {
  const toml::node* node = table.get("nvme");
  if (node == nullptr) return Status::Ok();
  const Right right = from_ == From::kFile
                          ? Right{.what = "a list of paths", .examples = "[\"/var/lib/terrace\"]"}
                          : Right{.what = "a path", .examples = "/var/lib/terrace"};
  std::vector<std::string> paths;
  const auto take = [&paths](const toml::node& path) {
    const auto text = path.value_exact<std::string>();
    if (!text || text->empty()) return false;
    paths.push_back(*text);
    return true;
  };
  if (!node->is_array() && !take(*node)) return Wrong(*node, "nvme", right);
  if (const toml::array* list = node->as_array()) {
    for (const toml::node& path : *list) {
      if (!take(path)) return Wrong(*node, "nvme", right);
    }
  }
  config->nvme = std::move(paths);
  return Status::Ok();
}

Status Reader::ReadAdmission(const toml::table& table, Config* config) const {
  const toml::node* node = table.get("nvme_admission");
  if (node == nullptr) return Status::Ok();
  const std::string word = node->value_exact<std::string>().value_or("");
  constexpr std::string_view kADay = "/day";
  if (word == "always" || word == "second-hit") {
    config->nvme_admission = word == "always" ? NvmeAdmission::kAlways : NvmeAdmission::kSecondHit;
    return Status::Ok();
  }
  if (word.ends_with(kADay)) {
    const Result<uint64_t> bytes =
        ParseSize(std::string_view(word).substr(0, word.size() - kADay.size()));
    if (bytes.ok() && *bytes != 0) {
      config->nvme_admission = NvmeAdmission::kBytesADay;
      config->nvme_bytes_a_day = *bytes;
      return Status::Ok();
    }
  }
  return Wrong(
      *node, "nvme_admission",
      {.what = "\"always\", \"second-hit\" or a size a day", .examples = "\"500GiB/day\""});
}

Status Reader::ReadIndexSlots(const toml::table& table, Config* config) const {
  const toml::node* node = table.get("index_slots");
  if (node == nullptr) return Status::Ok();
  if (node->value_exact<std::string>() == "auto") {
    config->index_slots = 0;
    return Status::Ok();
  }
  const auto slots = node->value_exact<int64_t>();
  if (!slots || *slots < 64 || *slots > (int64_t{1} << 31) || (*slots & (*slots - 1)) != 0) {
    return Wrong(*node, "index_slots", {.what = "\"auto\" or a power of two from 64 to 2^31"});
  }
  config->index_slots = static_cast<uint64_t>(*slots);
  return Status::Ok();
}

Status Reader::ReadWords(const toml::table& table, Config* config) const {
  if (const toml::node* node = table.get("policy")) {
    const auto word = node->value_exact<std::string>();
    if (word != "gittins" && word != "lru") {
      return Wrong(*node, "policy", {.what = "\"gittins\" or \"lru\""});
    }
    config->policy = *word;
  }
  const std::pair<const char*, bool*> words[] = {{"huge_pages", &config->huge_pages},
                                                 {"nvme_codec", &config->nvme_encode}};
  for (const auto& [key, into] : words) {
    const toml::node* node = table.get(key);
    if (node == nullptr) continue;
    const auto word = node->value_exact<std::string>();
    if (word != "auto" && word != "off") {
      return Wrong(*node, key, {.what = "\"auto\" or \"off\""});
    }
    *into = word == "auto";
  }
  if (const toml::node* node = table.get("log_level")) {
    constexpr std::pair<std::string_view, LogLevel> kLevels[] = {{"debug", LogLevel::kDebug},
                                                                 {"info", LogLevel::kInfo},
                                                                 {"warning", LogLevel::kWarning},
                                                                 {"error", LogLevel::kError}};
    const auto word = node->value_exact<std::string>();
    const auto* const level = std::find_if(std::begin(kLevels), std::end(kLevels),
                                           [&](const auto& known) { return word == known.first; });
    if (level == std::end(kLevels)) {
      return Wrong(*node, "log_level", {.what = "\"debug\", \"info\", \"warning\" or \"error\""});
    }
    config->log_level = level->second;
  }
  return Status::Ok();
}

Status Reader::ReadRoot(const toml::table& table, Config* config) const {
  for (const Status& status :
       {CheckKeys(table, kRootKeys),
        ReadText(table, "socket", from_ == From::kFile ? kString : kPath, &config->socket),
        ReadSize(table, "dram", kDramExamples, &config->dram_bytes),
        ReadSegment(table, "segment", &config->segment_bytes), ReadNvme(table, config),
        ReadSize(table, "nvme_bytes", kNvmeExamples, &config->nvme_bytes),
        ReadSegment(table, "nvme_segment", &config->nvme_segment_bytes),
        ReadText(table, "catalog", from_ == From::kFile ? kFolder : kFolderFlag, &config->catalog),
        ReadAdmission(table, config), ReadIndexSlots(table, config), ReadWords(table, config)}) {
    if (!status.ok()) return status;
  }
  if (const toml::node* node = table.get("nvme_scrub_days")) {
    const auto days = node->value_exact<int64_t>();
    if (!days || *days < 0 || *days > 3650) {
      return Wrong(*node, "nvme_scrub_days",
                   {.what = "whole days, or 0 for never", .examples = "7"});
    }
    config->nvme_scrub_days = static_cast<uint32_t>(*days);
  }
  if (const toml::node* node = table.get("socket_mode")) {
    const auto mode = node->value_exact<int64_t>();
    if (!mode || *mode < 0 || *mode > 0777) {
      return Wrong(*node, "socket_mode", {.what = "an octal mode", .examples = "0o660"});
    }
    config->socket_mode = static_cast<uint32_t>(*mode);
  }
  return Status::Ok();
}

Status Reader::ReadTenant(const toml::table& table, TenantConfig* tenant) const {
  for (const Status& status :
       {CheckKeys(table, kTenantKeys), ReadText(table, "name", kString, &tenant->name),
        ReadSize(table, "dram", kShareExamples, &tenant->dram_bytes),
        ReadSize(table, "nvme_bytes", kShareExamples, &tenant->nvme_bytes)}) {
    if (!status.ok()) return status;
  }
  // "auto" would be read as none.
  if (const toml::node* share = table.get("nvme_bytes"); share && tenant->nvme_bytes == 0) {
    return Wrong(*share, "nvme_bytes", {.what = "a size", .examples = kShareExamples});
  }
  const std::string where = Where(table.source());
  if (tenant->name.empty())
    return Status(StatusCode::kInvalid, where + "a [[tenant]] needs a name");
  if (tenant->dram_bytes == 0) {
    return Status(StatusCode::kInvalid,
                  where + "tenant '" + tenant->name + "' needs dram, its share of the pool");
  }
  const toml::node* uids = table.get("uids");
  if (uids == nullptr || !uids->is_array() || uids->as_array()->empty()) {
    return Status(StatusCode::kInvalid,
                  where + "tenant '" + tenant->name + "' needs uids, such as uids = [1001, 1002]");
  }
  for (const toml::node& node : *uids->as_array()) {
    const auto uid = node.value_exact<int64_t>();
    if (!uid || *uid < 0 || *uid > UINT32_MAX)
      return Wrong(node, "uids", {.what = "numeric user ids"});
    tenant->uids.push_back(static_cast<uid_t>(*uid));
  }
  return Status::Ok();
}

Status Reader::Read(const toml::table& table, Config* config) const {
  Status root = ReadRoot(table, config);
  if (!root.ok()) return root;
  const toml::node* tenants = table.get("tenant");
  if (tenants == nullptr) return Status::Ok();
  if (!tenants->is_array_of_tables())
    return Wrong(*tenants, "tenant", {.what = "[[tenant]] tables"});
  for (const toml::node& node : *tenants->as_array()) {
    TenantConfig tenant;
    Status read = ReadTenant(*node.as_table(), &tenant);
    if (!read.ok()) return read;
    config->tenants.push_back(std::move(tenant));
  }
  return Status::Ok();
}

}  // namespace

std::string CatalogFolderOf(const Config& config) {
  if (config.catalog == "off") return "";
  if (!config.catalog.empty()) return config.catalog;
  for (const std::string& path : config.nvme) {
    std::error_code error;
    if (std::filesystem::is_directory(path, error)) {
      return (std::filesystem::path(path) / "catalog").string();
    }
  }
  return "";
}

std::string DefaultSocket() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  if (geteuid() != 0 && runtime != nullptr && *runtime != '\0') {
    return std::string(runtime) + "/terrace/terraced.sock";
  }
  return "/run/terrace/terraced.sock";
}

Result<uint64_t> ParseSize(std::string_view text) {
  const Status wrong(StatusCode::kInvalid, "'" + std::string(text) +
                                               "' is no size: use bytes, or KiB, MiB, GiB, TiB, "
                                               "such as 512MiB");
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || !std::isfinite(value) || value < 0) return wrong;
  std::string unit;
  for (const char* at = end; at != text.data() + text.size(); ++at) {
    if (*at != ' ') unit += static_cast<char>(std::tolower(static_cast<unsigned char>(*at)));
  }
  double scale = 0;
  if (unit.empty() || unit == "b") scale = 1;
  if (unit == "kib" || unit == "k") scale = static_cast<double>(kKiB);
  if (unit == "mib" || unit == "m") scale = static_cast<double>(kMiB);
  if (unit == "gib" || unit == "g") scale = static_cast<double>(kGiB);
  if (unit == "tib" || unit == "t") scale = static_cast<double>(kGiB) * 1024;
  if (scale == 0 || value * scale > 1e18) return wrong;
  return static_cast<uint64_t>(value * scale);
}

std::string FormatSize(uint64_t bytes) {
  const std::pair<uint64_t, const char*> units[] = {
      {1024 * kGiB, " TiB"}, {kGiB, " GiB"}, {kMiB, " MiB"}, {kKiB, " KiB"}};
  for (const auto& [unit, name] : units) {
    if (bytes >= unit && bytes % unit == 0) return std::to_string(bytes / unit) + name;
  }
  return std::to_string(bytes) + " bytes";
}

Result<Config> ParseConfig(std::string_view text, const std::string& file) {
  Config config;
  try {
    const toml::table table = toml::parse(text, file);
    Status read = Reader(From::kFile, file).Read(table, &config);
    if (!read.ok()) return read;
  } catch (const toml::parse_error& error) {
    return Status(StatusCode::kInvalid, file + ":" + std::to_string(error.source().begin.line) +
                                            ": " + std::string(error.description()));
  }
  return config;
}

Result<Config> LoadConfig(const std::string& file) {
  std::error_code error;
  if (std::filesystem::is_directory(file, error)) {
    return Status(StatusCode::kInvalid, file + ": is a folder: name the file in it");
  }
  std::ifstream in(file);
  if (!in) {
    return Status(StatusCode::kInvalid, file + ": cannot be read: check the path and its mode");
  }
  std::ostringstream text;
  text << in.rdbuf();
  return ParseConfig(text.str(), file);
}

Status ApplyFlag(const std::string& flag, const std::string& value, Config* config) {
  std::string key = flag.substr(flag.find_first_not_of('-'));
  std::replace(key.begin(), key.end(), '-', '_');
  toml::table table;
  // A number is one in a file too; everything else is text there.
  int64_t number = 0;
  const char* const end = value.data() + value.size();
  const auto parsed = std::from_chars(value.data(), end, number);
  if (key == "index_slots" && parsed.ec == std::errc() && parsed.ptr == end) {
    table.insert(key, number);
  } else {
    table.insert(key, value);
  }
  return Reader(From::kFlag, flag).ReadRoot(table, config);
}

}  // namespace terrace
