#pragma once

// Tells a process from its forked children, without a system call: a word in a page that the kernel
// wipes in the child.
//
// Threads: safe from any thread.

#include <cstdint>

namespace terrace {

// Never 0, the same for the life of a process, and another one in each of its forked descendants
// than in any of their ancestors.
uint64_t ProcessGeneration();

}  // namespace terrace
