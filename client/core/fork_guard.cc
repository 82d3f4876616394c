#include "client/core/fork_guard.h"

#include <pthread.h>
#include <sys/mman.h>

#include <atomic>
#include <new>

#include "storage/base/check.h"
#include "storage/base/limits.h"

namespace terrace {
namespace {

using Word = std::atomic<uint64_t>;

Word* generation_word = nullptr;

void ForgetInChild() { generation_word->store(0, std::memory_order_relaxed); }

Word* MakeWord() {
  void* const page =
      mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  TERRACE_CHECK(page != MAP_FAILED);
  generation_word = new (page) Word(0);
  // Either suffices.  The kernel's wipe also sees a clone() that runs no handlers; the handler also
  // works where the kernel knows no wipe.
  madvise(page, kPageBytes, MADV_WIPEONFORK);
  pthread_atfork(nullptr, nullptr, ForgetInChild);
  return generation_word;
}

// Copied into the child by fork, so a child counts on from its parent.
std::atomic<uint64_t> last_generation{0};

}  // namespace

uint64_t ProcessGeneration() {
  static Word* const word = MakeWord();
  uint64_t generation = word->load(std::memory_order_acquire);
  if (generation != 0) return generation;
  const uint64_t next = last_generation.fetch_add(1, std::memory_order_relaxed) + 1;
  if (word->compare_exchange_strong(generation, next, std::memory_order_acq_rel)) return next;
  return generation;  // another thread was first
}

}  // namespace terrace
