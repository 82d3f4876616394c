#pragma once

// Broken invariants end the process, in release too: a daemon that goes on after one serves wrong
// bytes.  Never for input: what a client, a file or a user says is answered with a Status.

namespace terrace {

[[noreturn]] void CheckFailed(const char* condition, const char* file, int line);

}  // namespace terrace

#define TERRACE_CHECK(condition)                     \
  (__builtin_expect(static_cast<bool>(condition), 1) \
       ? static_cast<void>(0)                        \
       : ::terrace::CheckFailed(#condition, __FILE__, __LINE__))
