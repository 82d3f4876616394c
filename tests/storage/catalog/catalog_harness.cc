#include "tests/storage/catalog/catalog_harness.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <future>

#include "storage/base/check.h"

namespace terrace {

TestFolder::TestFolder() {
  char name[] = "/tmp/terrace-catalog-XXXXXX";
  TERRACE_CHECK(mkdtemp(name) != nullptr);
  path_ = name;
}

TestFolder::~TestFolder() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

ChunkName NumberedName(uint64_t number, uint32_t namespace_id) {
  ChunkName name{.tenant = 3, .namespace_id = namespace_id, .key = {}};
  // Spread, as hashes are.
  const uint64_t words[2] = {number * 0x9e3779b97f4a7c15, number};
  name.key = shm::ChunkKey::FromBytes(words, sizeof words, static_cast<uint16_t>(number % 7));
  return name;
}

uint64_t NumberOf(const ChunkName& name) {
  const uint64_t number = name.key.words[1];
  return name == NumberedName(number, name.namespace_id) ? number : UINT64_MAX;
}

ChunkRow NumberedRow(uint64_t number, uint32_t life) {
  ChunkRow row;
  row.place = {.sequence = number + 1, .segment = life, .offset_units = 7};
  row.device = static_cast<uint32_t>(number % 3);
  row.payload_bytes = static_cast<uint32_t>(4096 + number % 1000);
  row.stored_bytes = row.payload_bytes - 1;
  row.header_checksum = number * 31 + life;
  row.attributes = std::string(number % 40, static_cast<char>('a' + number % 26));
  return row;
}

GoneRow NumberedGone(uint64_t number) {
  return {.reason = static_cast<uint8_t>(1 + number % 255),
          .bytes = static_cast<uint32_t>(number * 8),
          .wall_ns = static_cast<int64_t>(number) * 1000};
}

CatalogOptions SmallCatalog(const std::string& folder) {
  CatalogOptions options;
  options.folder = folder;
  options.linger_ns = kNsPerMs;
  options.retry_ns = 0;
  options.free_bytes_min = 0;
  return options;
}

std::unique_ptr<Catalog> OpenCatalog(const CatalogOptions& options) {
  Result<std::unique_ptr<Catalog>> catalog = Catalog::Open(options);
  if (!catalog.ok()) std::fprintf(stderr, "%s\n", catalog.status().ToString().c_str());
  TERRACE_CHECK(catalog.ok());
  return *std::move(catalog);
}

Status CommitNow(Catalog& catalog, CatalogUpdate update) {
  std::promise<Status> done;
  const Status queued =
      catalog.Commit(std::move(update), [&done](const Status& status) { done.set_value(status); });
  return queued.ok() ? done.get_future().get() : queued;
}

Status FlushNow(Catalog& catalog) {
  std::promise<Status> done;
  const Status queued = catalog.Flush([&done](const Status& status) { done.set_value(status); });
  return queued.ok() ? done.get_future().get() : queued;
}

std::vector<GoneEntry> FindGoneNow(Catalog& catalog, const ChunkName& name) {
  std::promise<Result<std::vector<GoneEntry>>> found;
  const Status queued = catalog.FindGone(
      name, [&found](Result<std::vector<GoneEntry>> entries) { found.set_value(entries); });
  TERRACE_CHECK(queued.ok());
  const Result<std::vector<GoneEntry>> entries = found.get_future().get();
  TERRACE_CHECK(entries.ok());
  return *entries;
}

LoadedChunks Load(const Catalog& catalog) {
  LoadedChunks loaded;
  const Result<uint64_t> damaged = catalog.LoadChunks(
      [&loaded](const ChunkName& name, const ChunkRow& row) { loaded.rows[NumberOf(name)] = row; },
      nullptr);
  loaded.status = damaged.status();
  if (damaged.ok()) loaded.damaged = *damaged;
  return loaded;
}

}  // namespace terrace
