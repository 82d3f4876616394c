#pragma once

// A client, a terraced and the folder of its NVMe log, for a test; the folder goes with it.
//
// Threads: one.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "client/core/client.h"
#include "tests/support/chunks.h"
#include "tests/support/daemon_fixture.h"

namespace terrace {

class NvmeDaemonTest : public ::testing::Test {
 protected:
  // 64 MiB of DRAM in segments of 2 MiB; `flags` besides.
  explicit NvmeDaemonTest(const std::vector<std::string>& flags) {
    std::string folder = std::filesystem::temp_directory_path() / "terrace-nvme-XXXXXX";
    folder_ = mkdtemp(folder.data());
    std::vector<std::string> all = {"--dram", "64MiB",  "--segment",
                                    "2MiB",   "--nvme", folder_ + "/"};
    all.insert(all.end(), flags.begin(), flags.end());
    daemon_ = std::make_unique<DaemonFixture>(all);
    Connect();
  }
  ~NvmeDaemonTest() override {
    ns_.reset();
    client_.reset();
    daemon_.reset();
    std::filesystem::remove_all(folder_);
  }

  void Connect() {
    ns_.reset();
    client_ = *Client::Connect({.socket = daemon_->socket()});
    ns_ = *client_->Register(Identity());
  }

  std::string folder_;
  std::unique_ptr<DaemonFixture> daemon_;
  std::unique_ptr<Client> client_;
  std::shared_ptr<Namespace> ns_;
};

}  // namespace terrace
