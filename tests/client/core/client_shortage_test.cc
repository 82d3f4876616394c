// A process that is short of descriptors or threads: the library goes without, and later with.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <system_error>
#include <thread>
#include <vector>

#include "client/core/client.h"
#include "storage/base/check.h"
#include "storage/base/fd.h"
#include "tests/support/chunks.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/soon.h"

namespace terrace {
namespace {

// While it lives, this process may open `free` descriptors and no more.
class FewDescriptors {
 public:
  explicit FewDescriptors(size_t free) {
    TERRACE_CHECK(getrlimit(RLIMIT_NOFILE, &before_) == 0);
    constexpr rlim_t kEnough = 256;
    const rlimit low{.rlim_cur = kEnough, .rlim_max = before_.rlim_max};
    TERRACE_CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
    for (;;) {
      UniqueFd taken(open("/dev/null", O_RDONLY | O_CLOEXEC));
      if (!taken.valid()) break;
      taken_.push_back(std::move(taken));
    }
    TERRACE_CHECK(taken_.size() >= free);
    taken_.resize(taken_.size() - free);
  }
  FewDescriptors(const FewDescriptors&) = delete;
  FewDescriptors& operator=(const FewDescriptors&) = delete;
  ~FewDescriptors() { TERRACE_CHECK(setrlimit(RLIMIT_NOFILE, &before_) == 0); }

 private:
  rlimit before_{};
  std::vector<UniqueFd> taken_;
};

// While it lives, this process can start no thread: there is no room for a stack.
class NoThreads {
 public:
  NoThreads() {
    TERRACE_CHECK(pthread_getattr_default_np(&before_) == 0);
    pthread_attr_t huge;
    TERRACE_CHECK(pthread_getattr_default_np(&huge) == 0);
    TERRACE_CHECK(pthread_attr_setstacksize(&huge, size_t{1} << 50) == 0);
    TERRACE_CHECK(pthread_setattr_default_np(&huge) == 0);
    pthread_attr_destroy(&huge);
  }
  NoThreads(const NoThreads&) = delete;
  NoThreads& operator=(const NoThreads&) = delete;
  ~NoThreads() {
    TERRACE_CHECK(pthread_setattr_default_np(&before_) == 0);
    pthread_attr_destroy(&before_);
  }

 private:
  pthread_attr_t before_{};
};

bool PutsAndGets(Client& client, uint32_t number) {
  const Result<std::shared_ptr<Namespace>> names = client.Register(Identity());
  if (!names.ok()) return false;
  const auto payload = Payload(number, 10'000);
  const PutItem item{.key = Key(number), .payload = payload};
  if ((*names)->Put(std::span(&item, 1)).front() != StatusCode::kOk) return false;
  Pin pin;
  return (*names)->GetOne(Key(number), &pin) == StatusCode::kOk && Equal(pin.bytes(), payload);
}

TEST(ClientShortage, WithFewDescriptorsItIsAwayAndWorksOnceThereAreMore) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "UBSan reads a vptr through a pipe, which it cannot have here";
#endif
  DaemonFixture daemon;
  for (uint32_t free = 0; free <= 12; ++free) {
    std::unique_ptr<Client> client;
    {
      const FewDescriptors few(free);
      client = Client::Create({.socket = daemon.socket(), .client_name = "short"});
      const Result<std::string> status = client->StatusJson();
      EXPECT_TRUE(status.ok() || status.status().code() == StatusCode::kUnavailable)
          << free << ": " << status.status().ToString();
      EXPECT_TRUE(free > 0 || !client->available());
    }
    EXPECT_TRUE(Soon([&] { return client->available(); })) << free;
    EXPECT_TRUE(Soon([&] { return PutsAndGets(*client, free); })) << free;
  }
}

TEST(ClientShortage, ConnectWithoutDescriptorsIsUnavailableAndSaysWhy) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "UBSan reads a vptr through a pipe, which it cannot have here";
#endif
  DaemonFixture daemon;
  const FewDescriptors few(0);
  const auto client = Client::Connect({.socket = daemon.socket(), .client_name = "short"});
  ASSERT_FALSE(client.ok());
  EXPECT_EQ(client.status().code(), StatusCode::kUnavailable);
  EXPECT_NE(client.status().message().find("Too many open files"), std::string::npos);
}

TEST(ClientShortage, WithoutAThreadItIsAwayAndWorksOnceThereIsOne) {
  DaemonFixture daemon;
  std::unique_ptr<Client> client;
  {
    const NoThreads none;
    EXPECT_THROW(std::thread([] {}).join(), std::system_error);
    client = Client::Create({.socket = daemon.socket(), .client_name = "short"});
    EXPECT_FALSE(client->available());
    const Result<std::string> status = client->StatusJson();
    EXPECT_EQ(status.status().code(), StatusCode::kUnavailable);
    EXPECT_NE(status.status().message().find("thread"), std::string::npos);
    const auto connected = Client::Connect({.socket = daemon.socket(), .client_name = "short"});
    EXPECT_EQ(connected.status().code(), StatusCode::kUnavailable);
    // The caller takes its signals as before.
    sigset_t blocked;
    ASSERT_EQ(pthread_sigmask(SIG_SETMASK, nullptr, &blocked), 0);
    EXPECT_EQ(sigismember(&blocked, SIGINT), 0);
  }
  EXPECT_TRUE(Soon([&] { return client->available(); }));
  EXPECT_TRUE(PutsAndGets(*client, 1));
}

}  // namespace
}  // namespace terrace
