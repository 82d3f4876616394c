// Writes into a catalog until it is killed, and says on stdout what was acknowledged:
//
//   catalog_child FOLDER
//
// Words of 8 bytes: 2 n: commit n was done; 2 n + 1: the rows below n were flushed.  Rows of the
// catalog are numbered without a gap; commit n is next id n and a namespace of epoch n.

#include <unistd.h>

#include <atomic>
#include <cstdio>

#include "tests/storage/catalog/catalog_harness.h"

namespace terrace {
namespace {

constexpr uint64_t kRowsACommit = 40;

void Say(uint64_t word) {
  if (write(STDOUT_FILENO, &word, sizeof word) != sizeof word) _exit(3);
}

void StartCommit(Catalog& catalog, uint64_t number) {
  CatalogUpdate update;
  update.Put(NextIdRow{.tenant = 1, .next_id = static_cast<uint32_t>(number)});
  update.Put(NamespaceRow{.tenant = 1,
                          .label = "space-" + std::to_string(number % 5),
                          .id = static_cast<uint32_t>(number),
                          .epoch = number,
                          .spec = std::string(500, 's')});
  const Status queued = catalog.Commit(std::move(update), [number](const Status& status) {
    if (!status.ok()) _exit(4);
    Say(2 * number);
  });
  if (!queued.ok() && queued.code() != StatusCode::kBusy) _exit(5);
}

int Main(const char* folder) {
  CatalogOptions options = SmallCatalog(folder);
  options.write_buffer_bytes = 64 * kKiB;
  options.history_rows_max = 2000;
  const auto catalog = OpenCatalog(options);
  const Result<CatalogState> state = catalog->LoadState();
  if (!state.ok()) return 6;
  uint64_t commit = state->next_ids.empty() ? 0 : state->next_ids.front().next_id;
  for (uint64_t row = Load(*catalog).rows.size();; ++row) {
    if (catalog->queue_room() < 100 && !FlushNow(*catalog).ok()) return 7;
    if (!catalog->Put(NumberedName(row), NumberedRow(row)).ok()) return 8;
    if (!catalog->NoteGone(NumberedName(row), NumberedGone(row)).ok()) return 9;
    if (row % kRowsACommit != 0) continue;
    StartCommit(*catalog, ++commit);
    if (row % (kRowsACommit * 8) != 0) continue;
    if (!FlushNow(*catalog).ok()) return 10;
    Say(2 * (row + 1) + 1);
  }
}

}  // namespace
}  // namespace terrace

int main(int argc, char** argv) { return argc == 2 ? terrace::Main(argv[1]) : 2; }
