#include "storage/mem/guarded_copy.h"

#include <signal.h>
#include <ucontext.h>

#include <atomic>
#include <cerrno>
#include <mutex>

#include "storage/base/check.h"

#if !defined(__x86_64__)
#error "guarded copy: this processor needs its own copying instruction and program counter"
#endif

// Copies with a single instruction, whose address the handler knows: no state of the thread is
// needed, nothing has to be unwound, and the registers keep how far it came.  Answers 0, or 1
// where the handler has sent it on to `fault`.
extern "C" {
int terrace_guarded_copy(void* into, const void* from, size_t bytes);
extern const char terrace_guarded_copy_move[];
extern const char terrace_guarded_copy_fault[];
}

asm(R"(
  .pushsection .text.terrace_guarded_copy, "ax", @progbits
  .globl terrace_guarded_copy
  .hidden terrace_guarded_copy
  .globl terrace_guarded_copy_move
  .hidden terrace_guarded_copy_move
  .globl terrace_guarded_copy_fault
  .hidden terrace_guarded_copy_fault
  .type terrace_guarded_copy, @function
terrace_guarded_copy:
  .cfi_startproc
  movq %rdx, %rcx
terrace_guarded_copy_move:
  rep movsb
  xorl %eax, %eax
  ret
terrace_guarded_copy_fault:
  movl $1, %eax
  ret
  .cfi_endproc
  .size terrace_guarded_copy, .-terrace_guarded_copy
  .popsection
)");

namespace terrace {
namespace {

// A signal handler has no other way to state: set once, before the handler is installed.
struct sigaction previous_action = {};
std::atomic<bool> installed = false;

void PassOn(int signal, siginfo_t* info, void* context) {
  if ((previous_action.sa_flags & SA_SIGINFO) != 0) {
    previous_action.sa_sigaction(signal, info, context);
    return;
  }
  if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
    previous_action.sa_handler(signal);
    return;
  }
  // The default: the faulting instruction runs again after the return and ends the process there,
  // which leaves a core that shows it.  A signal that someone sent must be sent again.
  struct sigaction default_action = {};
  default_action.sa_handler = SIG_DFL;
  sigaction(signal, &default_action, nullptr);
  if (info->si_code <= 0) raise(signal);
}

// Async-signal-safe: reads constants and changes the interrupted registers.
void OnBusError(int signal, siginfo_t* info, void* context) {
  greg_t& instruction = static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP];
  const greg_t move = reinterpret_cast<greg_t>(terrace_guarded_copy_move);
  if (info->si_code > 0 && instruction == move) {
    instruction = reinterpret_cast<greg_t>(terrace_guarded_copy_fault);
    return;
  }
  PassOn(signal, info, context);
}

}  // namespace

Status InstallGuard() {
  static std::mutex installing;
  const std::lock_guard lock(installing);
  if (installed.load(std::memory_order_relaxed)) return Status::Ok();
  // Asked first: the handler may run as soon as it is installed.
  if (sigaction(SIGBUS, nullptr, &previous_action) != 0) {
    return ErrnoStatus("reading the SIGBUS handler", errno);
  }
  struct sigaction action = {};
  action.sa_sigaction = OnBusError;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigemptyset(&action.sa_mask);
  if (sigaction(SIGBUS, &action, nullptr) != 0) {
    return ErrnoStatus("installing a SIGBUS handler", errno);
  }
  installed.store(true, std::memory_order_release);
  return Status::Ok();
}

Status GuardedCopy(void* into, const void* from, size_t bytes) {
  TERRACE_CHECK(installed.load(std::memory_order_acquire));
  if (terrace_guarded_copy(into, from, bytes) == 0) return Status::Ok();
  return Status(StatusCode::kCorrupt, "memory of a client could not be read: a hole or an end");
}

}  // namespace terrace
