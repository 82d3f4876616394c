#include "client/cli/cli.h"

#include <boost/json.hpp>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace terrace {
namespace {

// Who named the socket: where a wrong one is to be mended.
std::string SocketOrigin(const CliOptions& options) {
  if (!options.socket.empty()) return "this one is --socket's";
  const char* const named = std::getenv("TERRACE_SOCKET");
  if (named != nullptr && *named != '\0') return "this one is $TERRACE_SOCKET's";
  return "this one is the default";
}

}  // namespace

std::unique_ptr<Client> ConnectOrExplain(const CliOptions& options) {
  ClientOptions wanted;
  wanted.socket = options.socket;
  wanted.client_name = "terrace";
  wanted.reconnect = false;
  Result<std::unique_ptr<Client>> client = Client::Connect(wanted);
  if (client.ok()) return *std::move(client);
  Status why = client.status();
  if (why.code() == StatusCode::kUnavailable) {
    why =
        Status(why.code(), why.message() + ": start terraced, or name its socket with --socket (" +
                               SocketOrigin(options) + ")");
  }
  (void)Explain(options, why);
  return nullptr;
}

int Explain(const CliOptions& options, const Status& status) {
  if (options.json) {
    const boost::json::object out{{"status", StatusCodeName(status.code())},
                                  {"error", status.message()}};
    std::printf("%s\n", boost::json::serialize(out).c_str());
  }
  std::fprintf(stderr, "terrace: %s\n", Printable(status.ToString()).c_str());
  return status.code() == StatusCode::kInvalid ? kExitUsage : kExitFailure;
}

int FlushOutput(const CliOptions& options, int code) {
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  const std::string why = errno != 0 ? std::strerror(errno) : "an earlier write failed";
  CliOptions text = options;
  text.json = false;  // it could not be written either
  return Explain(text, Status(StatusCode::kIoError, "cannot write to standard output: " + why));
}

namespace {

constexpr std::string_view kText = "text:";
constexpr std::string_view kDigest = "sha256:";

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

}  // namespace

Result<shm::ChunkKey> ParseKey(std::string_view text) {
  const Status wrong(StatusCode::kInvalid, "'" + std::string(text) +
                                               "' is no key: use pairs of hex digits, text:WORDS "
                                               "or sha256:DIGEST, and @PART behind it for a part");
  uint16_t part = 0;
  const size_t at = text.rfind('@');
  std::string_view body = text.substr(0, at);
  if (at != std::string_view::npos) {
    const std::string_view digits = text.substr(at + 1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), part);
    if (error != std::errc() || end != digits.data() + digits.size()) return wrong;
  }
  const bool hashed = body.starts_with(kDigest);
  if (hashed) body.remove_prefix(kDigest.size());
  std::vector<std::byte> bytes;
  if (!hashed && body.starts_with(kText)) {
    for (const char c : body.substr(kText.size())) bytes.push_back(static_cast<std::byte>(c));
  } else {
    if (body.size() % 2 != 0) return wrong;
    for (size_t i = 0; i < body.size(); i += 2) {
      const int high = HexDigit(body[i]), low = HexDigit(body[i + 1]);
      if (high < 0 || low < 0) return wrong;
      bytes.push_back(static_cast<std::byte>(high * 16 + low));
    }
  }
  if (bytes.empty() || (hashed && bytes.size() != shm::kKeyBytes)) return wrong;
  Result<shm::ChunkKey> key = MakeKey(bytes, part);
  if (hashed && key.ok()) key->length = shm::kKeyLengthHashed;
  return key;
}

std::string FormatKey(const shm::ChunkKey& key) {
  std::string text(key.length == shm::kKeyLengthHashed ? kDigest : "");
  for (size_t i = 0; i < key.byte_count(); ++i) {
    constexpr char kDigits[] = "0123456789abcdef";
    text += kDigits[key.bytes()[i] >> 4];
    text += kDigits[key.bytes()[i] & 15];
  }
  if (key.part != 0) text += "@" + std::to_string(key.part);
  return text;
}

std::string Printable(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) {
      out += c;
      continue;
    }
    char escaped[8];
    std::snprintf(escaped, sizeof escaped, "\\x%02x", byte);
    out += escaped;
  }
  return out;
}

std::string HumanBytes(uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 || value >= 100 ? "%.0f %s" : "%.1f %s", value,
                kUnits[unit]);
  return text;
}

}  // namespace terrace
