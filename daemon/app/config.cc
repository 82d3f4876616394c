#include "daemon/app/config.h"

#include <unistd.h>

#include <toml++/toml.h>
#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "storage/base/limits.h"

namespace terrace {
namespace {

constexpr std::array kRootKeys = {"socket", "socket_mode", "dram",      "segment", "index_slots",
                                  "policy", "huge_pages",  "log_level", "tenant"};
constexpr std::array kTenantKeys = {"name", "uids", "dram"};

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

class Reader {
 public:
  explicit Reader(std::string file) : file_(std::move(file)) {}

  Status Read(const toml::table& table, Config* config);

 private:
  Status Wrong(const toml::node& node, std::string_view key, std::string_view right) const {
    std::ostringstream value;
    value << toml::node_view<const toml::node>(&node);
    return Status(StatusCode::kInvalid, Where(node.source()) + std::string(key) + " = " +
                                            value.str() + ": " + std::string(right));
  }

  std::string Where(const toml::source_region& at) const {
    return file_ + ":" + std::to_string(at.begin.line) + ": ";
  }

  template <size_t N>
  Status CheckKeys(const toml::table& table, const std::array<const char*, N>& known) const;

  Status ReadSize(const toml::table& table, const char* key, std::string_view zero_word,
                  uint64_t* out) const;
  Status ReadText(const toml::table& table, const char* key, std::string* out) const;
  Status ReadRoot(const toml::table& table, Config* config) const;
  Status ReadTenant(const toml::table& table, TenantConfig* tenant) const;

  const std::string file_;
};

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

Status Reader::ReadSize(const toml::table& table, const char* key, std::string_view zero_word,
                        uint64_t* out) const {
  const toml::node* node = table.get(key);
  if (node == nullptr) return Status::Ok();
  const std::string right =
      "use a size such as \"4GiB\" or \"512MiB\", or \"" + std::string(zero_word) + "\"";
  if (const auto bytes = node->value_exact<int64_t>()) {
    if (*bytes <= 0) return Wrong(*node, key, right);
    *out = static_cast<uint64_t>(*bytes);
    return Status::Ok();
  }
  const auto text = node->value_exact<std::string>();
  if (!text) return Wrong(*node, key, right);
  if (*text == zero_word) return Status::Ok();
  const Result<uint64_t> bytes = ParseSize(*text);
  if (!bytes.ok() || *bytes == 0) return Wrong(*node, key, right);
  *out = *bytes;
  return Status::Ok();
}

Status Reader::ReadText(const toml::table& table, const char* key, std::string* out) const {
  const toml::node* node = table.get(key);
  if (node == nullptr) return Status::Ok();
  const auto text = node->value_exact<std::string>();
  if (!text || text->empty()) return Wrong(*node, key, "use a string");
  *out = *text;
  return Status::Ok();
}

Status Reader::ReadRoot(const toml::table& table, Config* config) const {
  for (const Status& status :
       {CheckKeys(table, kRootKeys), ReadText(table, "socket", &config->socket),
        ReadText(table, "policy", &config->policy),
        ReadSize(table, "dram", "auto", &config->dram_bytes),
        ReadSize(table, "segment", "auto", &config->segment_bytes)}) {
    if (!status.ok()) return status;
  }
  const uint64_t segment = config->segment_bytes;
  if (segment != 0 && (segment < kSegmentBytesMin || segment > kSegmentBytesMax ||
                       (segment & (segment - 1)) != 0)) {
    return Wrong(*table.get("segment"), "segment",
                 "use \"auto\" or a power of two from \"2MiB\" to \"1GiB\"");
  }
  if (const toml::node* node = table.get("policy");
      node != nullptr && config->policy != "gittins" && config->policy != "lru") {
    return Wrong(*node, "policy", "use \"gittins\" or \"lru\"");
  }
  if (const toml::node* node = table.get("socket_mode")) {
    const auto mode = node->value_exact<int64_t>();
    if (!mode || *mode < 0 || *mode > 0777) {
      return Wrong(*node, "socket_mode", "use an octal mode such as 0o660");
    }
    config->socket_mode = static_cast<uint32_t>(*mode);
  }
  if (const toml::node* node = table.get("index_slots")) {
    const auto slots = node->value_exact<int64_t>();
    if (node->value_exact<std::string>() != "auto") {
      if (!slots || *slots < 64 || *slots > (int64_t{1} << 31) || (*slots & (*slots - 1)) != 0) {
        return Wrong(*node, "index_slots", "use \"auto\" or a power of two from 64 to 2^31");
      }
      config->index_slots = static_cast<uint64_t>(*slots);
    }
  }
  if (const toml::node* node = table.get("huge_pages")) {
    const auto word = node->value_exact<std::string>();
    if (word != "auto" && word != "off")
      return Wrong(*node, "huge_pages", "use \"auto\" or \"off\"");
    config->huge_pages = word == "auto";
  }
  if (const toml::node* node = table.get("log_level")) {
    const auto word = node->value_exact<std::string>();
    if (word == "debug") {
      config->log_level = LogLevel::kDebug;
    } else if (word == "info") {
      config->log_level = LogLevel::kInfo;
    } else if (word == "warning") {
      config->log_level = LogLevel::kWarning;
    } else if (word == "error") {
      config->log_level = LogLevel::kError;
    } else {
      return Wrong(*node, "log_level", "use \"debug\", \"info\", \"warning\" or \"error\"");
    }
  }
  return Status::Ok();
}

Status Reader::ReadTenant(const toml::table& table, TenantConfig* tenant) const {
  for (const Status& status :
       {CheckKeys(table, kTenantKeys), ReadText(table, "name", &tenant->name),
        ReadSize(table, "dram", "auto", &tenant->dram_bytes)}) {
    if (!status.ok()) return status;
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
    if (!uid || *uid < 0 || *uid > UINT32_MAX) return Wrong(node, "uids", "use numeric user ids");
    tenant->uids.push_back(static_cast<uid_t>(*uid));
  }
  return Status::Ok();
}

Status Reader::Read(const toml::table& table, Config* config) {
  Status root = ReadRoot(table, config);
  if (!root.ok()) return root;
  const toml::node* tenants = table.get("tenant");
  if (tenants == nullptr) return Status::Ok();
  if (!tenants->is_array_of_tables()) return Wrong(*tenants, "tenant", "use [[tenant]] tables");
  for (const toml::node& node : *tenants->as_array()) {
    TenantConfig tenant;
    Status read = ReadTenant(*node.as_table(), &tenant);
    if (!read.ok()) return read;
    config->tenants.push_back(std::move(tenant));
  }
  return Status::Ok();
}

}  // namespace

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
  if (error != std::errc() || value < 0) return wrong;
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
    Status read = Reader(file).Read(table, &config);
    if (!read.ok()) return read;
  } catch (const toml::parse_error& error) {
    return Status(StatusCode::kInvalid, file + ":" + std::to_string(error.source().begin.line) +
                                            ": " + std::string(error.description()));
  }
  return config;
}

Result<Config> LoadConfig(const std::string& file) {
  std::ifstream in(file);
  if (!in) {
    return Status(StatusCode::kInvalid, file + ": cannot be read: check the path and its mode");
  }
  std::ostringstream text;
  text << in.rdbuf();
  return ParseConfig(text.str(), file);
}

Status CheckConfig(const Config& config) {
  uint64_t shares = 0;
  for (size_t i = 0; i < config.tenants.size(); ++i) {
    const TenantConfig& tenant = config.tenants[i];
    if (tenant.name == "default") {
      return Status(StatusCode::kInvalid, "tenant 'default' exists by itself: use another name");
    }
    for (size_t j = 0; j < i; ++j) {
      if (config.tenants[j].name != tenant.name) continue;
      return Status(StatusCode::kInvalid, "two tenants are named '" + tenant.name + "'");
    }
    shares += tenant.dram_bytes;
  }
  if (config.dram_bytes != 0 && shares >= config.dram_bytes) {
    return Status(StatusCode::kInvalid, "the tenants' shares are " + FormatSize(shares) +
                                            " of dram = " + FormatSize(config.dram_bytes) +
                                            ": leave room for the default tenant");
  }
  return Status::Ok();
}

}  // namespace terrace
