#pragma once

// The catalog's rows about itself.
//
// Threads: pure functions.

#include <cstdint>
#include <optional>
#include <string>

#include "storage/catalog/catalog_rows.h"

namespace terrace {

// The format's version; newer ones are refused.
inline std::string VersionKey() { return catalog::KindStart(catalog::Kind::kVersion); }

// The number of the last commit, written with it.
inline std::string CommitMarkKey() { return catalog::MarkKey("commit"); }

// Chunk rows were complete when it was closed; gone while it is open.
inline std::string CompleteMarkKey() { return catalog::MarkKey("complete"); }

inline std::string CommitMarkValue(uint64_t number) {
  std::string value;
  catalog::AppendBig64(number, &value);
  return value;
}

inline std::optional<uint64_t> ParseCommitMark(std::string_view value) {
  if (value.size() != 8) return std::nullopt;
  return catalog::ReadBig64(value);
}

inline std::string VersionValue(uint32_t version) {
  std::string value;
  catalog::AppendBig32(version, &value);
  return value;
}

inline std::optional<uint32_t> ParseVersion(std::string_view value) {
  if (value.size() != 4) return std::nullopt;
  return catalog::ReadBig32(value);
}

}  // namespace terrace
