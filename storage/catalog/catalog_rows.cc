#include "storage/catalog/catalog_rows.h"

#include <bit>
#include <cstring>

#include "storage/base/check.h"

namespace terrace::catalog {
namespace {

constexpr size_t kChunkFixedBytes = 40;
static_assert(std::endian::native == std::endian::little, "values are little-endian");

template <typename T>
void Append(T value, std::string* to) {
  to->append(reinterpret_cast<const char*>(&value), sizeof value);
}

// Takes a value off the front.  REQUIRES: it is there.
template <typename T>
T Take(std::string_view* from) {
  T value;
  std::memcpy(&value, from->data(), sizeof value);
  from->remove_prefix(sizeof value);
  return value;
}

std::string Key(Kind kind, size_t bytes) {
  std::string key;
  key.reserve(1 + bytes);
  key.push_back(static_cast<char>(kind));
  return key;
}

}  // namespace

std::string KindStart(Kind kind) { return std::string(1, static_cast<char>(kind)); }
std::string KindEnd(Kind kind) {
  return std::string(1, static_cast<char>(static_cast<char>(kind) + 1));
}

std::string PrefixEnd(std::string prefix) {
  while (!prefix.empty() && static_cast<uint8_t>(prefix.back()) == 0xff) prefix.pop_back();
  TERRACE_CHECK(!prefix.empty());
  prefix.back() = static_cast<char>(static_cast<uint8_t>(prefix.back()) + 1);
  return prefix;
}

void AppendBig32(uint32_t value, std::string* to) { Append(__builtin_bswap32(value), to); }
void AppendBig64(uint64_t value, std::string* to) { Append(__builtin_bswap64(value), to); }
uint32_t ReadBig32(std::string_view from) { return __builtin_bswap32(Take<uint32_t>(&from)); }
uint64_t ReadBig64(std::string_view from) { return __builtin_bswap64(Take<uint64_t>(&from)); }

void AppendName(const ChunkName& name, std::string* to) {
  AppendBig32(name.tenant, to);
  AppendBig32(name.namespace_id, to);
  to->append(reinterpret_cast<const char*>(name.key.bytes()), shm::kKeyBytes);
  Append(name.key.length, to);
  Append(name.key.part, to);
}

std::optional<ChunkName> ParseName(std::string_view bytes) {
  if (bytes.size() != kNameBytes) return std::nullopt;
  ChunkName name;
  name.tenant = ReadBig32(bytes);
  name.namespace_id = ReadBig32(bytes.substr(4));
  std::memcpy(name.key.words.data(), bytes.data() + 8, shm::kKeyBytes);
  bytes.remove_prefix(8 + shm::kKeyBytes);
  name.key.length = Take<uint8_t>(&bytes);
  name.key.part = Take<uint16_t>(&bytes);
  if (!name.key.valid() || !name.key.zero_padded()) return std::nullopt;
  return name;
}

std::string NameKey(Kind kind, const ChunkName& name) {
  std::string key = Key(kind, kNameBytes);
  AppendName(name, &key);
  return key;
}

std::string ChunkPrefix(uint32_t tenant, uint32_t namespace_id) {
  std::string key = Key(Kind::kChunk, 8);
  AppendBig32(tenant, &key);
  AppendBig32(namespace_id, &key);
  return key;
}

std::string TenantKey(const std::string& name) { return Key(Kind::kTenant, name.size()) + name; }

std::string NamespaceKey(uint32_t tenant, const std::string& label) {
  std::string key = Key(Kind::kNamespace, 4 + label.size());
  AppendBig32(tenant, &key);
  return key + label;
}

std::string NextIdKey(uint32_t tenant) {
  std::string key = Key(Kind::kNextId, 4);
  AppendBig32(tenant, &key);
  return key;
}

std::string EnduranceKey(uint32_t device, uint32_t day) {
  std::string key = Key(Kind::kEndurance, 8);
  AppendBig32(device, &key);
  AppendBig32(day, &key);
  return key;
}

std::string MarkKey(std::string_view mark) { return Key(Kind::kMark, mark.size()).append(mark); }

std::string HistoryPrefix(uint32_t generation) {
  std::string key = Key(Kind::kHistory, 12 + kNameBytes);
  AppendBig32(generation, &key);
  return key;
}

std::string HistoryPrefix(uint32_t generation, const ChunkName& name) {
  std::string key = HistoryPrefix(generation);
  AppendName(name, &key);
  return key;
}

std::string Value(const ChunkRow& row) {
  std::string value;
  value.reserve(kChunkFixedBytes + row.attributes.size());
  Append(row.place.sequence, &value);
  Append(row.place.segment, &value);
  Append(row.place.offset_units, &value);
  Append(row.header_checksum, &value);
  Append(row.device, &value);
  Append(row.payload_bytes, &value);
  Append(row.stored_bytes, &value);
  Append(uint32_t{0}, &value);
  return value.append(row.attributes);
}

bool Parse(std::string_view key, std::string_view value, ChunkName* name, ChunkRow* row) {
  if (key.size() != 1 + kNameBytes || value.size() < kChunkFixedBytes) return false;
  const std::optional<ChunkName> parsed = ParseName(key.substr(1));
  if (!parsed) return false;
  *name = *parsed;
  row->place.sequence = Take<uint64_t>(&value);
  row->place.segment = Take<uint32_t>(&value);
  row->place.offset_units = Take<uint32_t>(&value);
  row->header_checksum = Take<uint64_t>(&value);
  row->device = Take<uint32_t>(&value);
  row->payload_bytes = Take<uint32_t>(&value);
  row->stored_bytes = Take<uint32_t>(&value);
  Take<uint32_t>(&value);
  row->attributes = value;
  return true;
}

std::string Value(const GoneRow& row) {
  std::string value;
  Append(row.wall_ns, &value);
  Append(row.bytes, &value);
  Append(row.reason, &value);
  return value;
}

bool Parse(std::string_view value, GoneRow* row) {
  if (value.size() != 13) return false;
  row->wall_ns = Take<int64_t>(&value);
  row->bytes = Take<uint32_t>(&value);
  row->reason = Take<uint8_t>(&value);
  return row->reason != 0;
}

std::string Value(const TenantRow& row) {
  std::string value;
  Append(row.id, &value);
  return value + row.blob;
}

bool Parse(std::string_view key, std::string_view value, TenantRow* row) {
  if (value.size() < 4) return false;
  row->name = key.substr(1);
  row->id = Take<uint32_t>(&value);
  row->blob = value;
  return true;
}

std::string Value(const NamespaceRow& row) {
  std::string value;
  Append(row.epoch, &value);
  Append(row.id, &value);
  return value + row.spec;
}

bool Parse(std::string_view key, std::string_view value, NamespaceRow* row) {
  if (key.size() < 5 || value.size() < 12) return false;
  row->tenant = ReadBig32(key.substr(1));
  row->label = key.substr(5);
  row->epoch = Take<uint64_t>(&value);
  row->id = Take<uint32_t>(&value);
  row->spec = value;
  return true;
}

std::string Value(const NextIdRow& row) {
  std::string value;
  Append(row.next_id, &value);
  return value;
}

bool Parse(std::string_view key, std::string_view value, NextIdRow* row) {
  if (key.size() != 5 || value.size() != 4) return false;
  row->tenant = ReadBig32(key.substr(1));
  row->next_id = Take<uint32_t>(&value);
  return true;
}

std::string Value(const LeaseRow& row) {
  std::string value;
  Append(row.until_wall_ns, &value);
  return value;
}

bool Parse(std::string_view key, std::string_view value, LeaseRow* row) {
  const std::optional<ChunkName> name = ParseName(key.substr(1));
  if (!name || value.size() != 8) return false;
  row->name = *name;
  row->until_wall_ns = Take<int64_t>(&value);
  return true;
}

std::string Value(const EnduranceRow& row) {
  std::string value;
  Append(row.written_bytes, &value);
  return value;
}

bool Parse(std::string_view key, std::string_view value, EnduranceRow* row) {
  if (key.size() != 9 || value.size() != 8) return false;
  row->device = ReadBig32(key.substr(1));
  row->day = ReadBig32(key.substr(5));
  row->written_bytes = Take<uint64_t>(&value);
  return true;
}

}  // namespace terrace::catalog
