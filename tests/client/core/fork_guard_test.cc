#include "client/core/fork_guard.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>
#include <thread>
#include <vector>

namespace terrace {
namespace {

// What the child says, as an exit status of 0..255.
int InChild(int (*say)()) {
  const pid_t child = fork();
  if (child == 0) _exit(say());
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

uint64_t parent_generation = 0;

TEST(ForkGuard, StaysTheSameInAProcess) {
  const uint64_t first = ProcessGeneration();
  EXPECT_NE(first, 0u);
  std::set<uint64_t> seen;
  std::thread([&seen] { seen.insert(ProcessGeneration()); }).join();
  EXPECT_EQ(seen, std::set<uint64_t>{first});
}

TEST(ForkGuard, ChildrenAndGrandchildrenDifferFromTheirAncestors) {
  parent_generation = ProcessGeneration();
  EXPECT_EQ(InChild([] {
              const uint64_t child = ProcessGeneration();
              if (child == 0 || child == parent_generation || child != ProcessGeneration())
                return 1;
              parent_generation = child;
              return InChild([] { return ProcessGeneration() == parent_generation ? 1 : 0; });
            }),
            0);
  EXPECT_EQ(ProcessGeneration(), parent_generation);
}

TEST(ForkGuard, ThreadsOfAChildAgree) {
  parent_generation = ProcessGeneration();
  EXPECT_EQ(InChild([] {
              uint64_t seen[2] = {0, 0};
              std::thread one([&seen] { seen[0] = ProcessGeneration(); });
              std::thread two([&seen] { seen[1] = ProcessGeneration(); });
              one.join();
              two.join();
              return seen[0] == seen[1] && seen[0] != parent_generation ? 0 : 1;
            }),
            0);
}

}  // namespace
}  // namespace terrace
