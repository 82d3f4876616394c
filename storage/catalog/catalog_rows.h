#pragma once

// What the catalog keeps, row by row, and how a row lies in the database: ordered keys of one
// prefix a kind, little-endian values.
//
// Threads: values and pure functions.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proto/shm/chunk_key.h"
#include "storage/record/record.h"

namespace terrace {

inline constexpr size_t kCatalogNameBytesMax = 256;            // a tenant, a namespace's label
inline constexpr size_t kCatalogBlobBytesMax = 64 * 1024;      // a tenant's, a namespace's
inline constexpr size_t kCatalogAttributeBytesMax = 4 * 1024;  // of a chunk

// The name of a chunk in the whole daemon: ids of namespaces are a tenant's own.
struct ChunkName {
  uint32_t tenant = 0;
  uint32_t namespace_id = 0;
  shm::ChunkKey key;

  friend bool operator==(const ChunkName&, const ChunkName&) = default;
};

// Where a chunk lies in the NVMe log: a hint.  Its header in the log decides.
struct ChunkRow {
  LogPlace place;
  uint32_t device = 0;
  uint32_t payload_bytes = 0;
  uint32_t stored_bytes = 0;
  uint64_t header_checksum = 0;
  std::string attributes;  // what the header lacks; its writer knows the meaning

  friend bool operator==(const ChunkRow&, const ChunkRow&) = default;
};

// Why it left or was refused.  Its writer knows the meaning of the number, and never renumbers.
struct GoneRow {
  uint8_t reason = 1;   // 1..255
  uint32_t bytes = 0;   // of its payload
  int64_t wall_ns = 0;  // CLOCK_REALTIME

  friend bool operator==(const GoneRow&, const GoneRow&) = default;
};

struct TenantRow {
  std::string name;
  uint32_t id = 0;
  std::string blob;

  friend bool operator==(const TenantRow&, const TenantRow&) = default;
};

struct NamespaceRow {
  uint32_t tenant = 0;
  std::string label;
  uint32_t id = 0;
  uint64_t epoch = 0;
  std::string spec;

  friend bool operator==(const NamespaceRow&, const NamespaceRow&) = default;
};

// The next id that a tenant's namespaces have never used; 0: all were.
struct NextIdRow {
  uint32_t tenant = 0;
  uint32_t next_id = 1;

  friend bool operator==(const NextIdRow&, const NextIdRow&) = default;
};

struct LeaseRow {
  ChunkName name;
  int64_t until_wall_ns = 0;

  friend bool operator==(const LeaseRow&, const LeaseRow&) = default;
};

inline constexpr uint32_t kEnduranceTotal = 0;  // as a day: since ever

struct EnduranceRow {
  uint32_t device = 0;
  uint32_t day = kEnduranceTotal;  // since 1970-01-01, UTC
  uint64_t written_bytes = 0;

  friend bool operator==(const EnduranceRow&, const EnduranceRow&) = default;
};

// All rows that are written synchronously.
struct CatalogState {
  std::vector<TenantRow> tenants;
  std::vector<NamespaceRow> namespaces;
  std::vector<NextIdRow> next_ids;
  std::vector<LeaseRow> leases;
  std::vector<EnduranceRow> endurance;
};

// What became of a chunk, as `terrace explain` shows it.
struct GoneEntry {
  uint64_t number = 0;  // grows with every row of the history
  GoneRow row;
};

namespace catalog {

// The first byte of a key.
enum class Kind : char {
  kChunk = 'c',
  kEndurance = 'e',
  kGenerations = 'g',  // of the history: one row
  kHistory = 'h',
  kNextId = 'i',
  kLease = 'l',
  kMark = 'm',
  kNamespace = 'n',
  kTenant = 't',
  kVersion = 'v',
};

// All keys of a kind are in [KindStart, KindEnd).
std::string KindStart(Kind kind);
std::string KindEnd(Kind kind);

// Keys that start with `prefix` are in [prefix, PrefixEnd(prefix)).  REQUIRES: not all 0xff.
std::string PrefixEnd(std::string prefix);

void AppendBig32(uint32_t value, std::string* to);
void AppendBig64(uint64_t value, std::string* to);
uint32_t ReadBig32(std::string_view from);  // REQUIRES: 4 bytes
uint64_t ReadBig64(std::string_view from);  // REQUIRES: 8 bytes

inline constexpr size_t kNameBytes = 43;  // of a ChunkName in a key
void AppendName(const ChunkName& name, std::string* to);
// Nothing for what is no name.
std::optional<ChunkName> ParseName(std::string_view bytes);

std::string NameKey(Kind kind, const ChunkName& name);  // chunk or lease
// The chunks of one namespace are in [ChunkPrefix, PrefixEnd(ChunkPrefix)).
std::string ChunkPrefix(uint32_t tenant, uint32_t namespace_id);
std::string TenantKey(const std::string& name);
std::string NamespaceKey(uint32_t tenant, const std::string& label);
std::string NextIdKey(uint32_t tenant);
std::string EnduranceKey(uint32_t device, uint32_t day);
std::string MarkKey(std::string_view mark);
// Of one generation of the history, or of one name in it.
std::string HistoryPrefix(uint32_t generation);
std::string HistoryPrefix(uint32_t generation, const ChunkName& name);

std::string Value(const ChunkRow& row);
std::string Value(const GoneRow& row);
std::string Value(const TenantRow& row);
std::string Value(const NamespaceRow& row);
std::string Value(const NextIdRow& row);
std::string Value(const LeaseRow& row);
std::string Value(const EnduranceRow& row);

// False: not a row of this kind.  `row` is then of no use.
bool Parse(std::string_view key, std::string_view value, ChunkName* name, ChunkRow* row);
bool Parse(std::string_view value, GoneRow* row);
bool Parse(std::string_view key, std::string_view value, TenantRow* row);
bool Parse(std::string_view key, std::string_view value, NamespaceRow* row);
bool Parse(std::string_view key, std::string_view value, NextIdRow* row);
bool Parse(std::string_view key, std::string_view value, LeaseRow* row);
bool Parse(std::string_view key, std::string_view value, EnduranceRow* row);

}  // namespace catalog
}  // namespace terrace
