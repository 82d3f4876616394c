#include "daemon/control/utf8.h"

#include <algorithm>
#include <cstdint>

namespace terrace {
namespace {

// Bytes of the character that `text` begins with; 0: it begins with none.  REQUIRES: !text.empty().
size_t CharacterBytes(std::string_view text) {
  const auto first = static_cast<uint8_t>(text[0]);
  if (first < 0x80) return 1;
  const size_t bytes = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < bytes) return 0;
  // What the second byte may be leaves out overlong forms, surrogates and what is past U+10FFFF.
  const uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
  const uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
  const auto second = static_cast<uint8_t>(text[1]);
  if (second < low || second > high) return 0;
  const std::string_view rest = text.substr(2, bytes - 2);
  const bool continued =
      std::all_of(rest.begin(), rest.end(), [](char byte) { return (byte & 0xc0) == 0x80; });
  return continued ? bytes : 0;
}

}  // namespace

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const size_t bytes = CharacterBytes(text);
    if (bytes == 0) return false;
    text.remove_prefix(bytes);
  }
  return true;
}

std::string ToUtf8(std::string_view text, size_t bytes_max) {
  std::string out;
  while (!text.empty()) {
    const size_t bytes = CharacterBytes(text);
    const std::string_view next = bytes == 0 ? "?" : text.substr(0, bytes);
    if (out.size() + next.size() > bytes_max) break;
    out += next;
    text.remove_prefix(std::max<size_t>(bytes, 1));
  }
  return out;
}

}  // namespace terrace
