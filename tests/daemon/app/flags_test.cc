#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/app/config.h"

namespace terrace {
namespace {

std::string Refused(const std::string& flag, const std::string& value) {
  Config config;
  const Status status = ApplyFlag(flag, value, &config);
  EXPECT_EQ(status.code(), StatusCode::kInvalid);
  return status.message();
}

TEST(Flags, ErrorsNameFlagValueAndMend) {
  EXPECT_EQ(Refused("--segment", "banana"),
            R"(--segment: "banana" is not a size; write for example 32MiB, or auto)");
  EXPECT_EQ(Refused("--segment", "3MiB"),
            R"(--segment: "3MiB" is not "auto" or a power of two from "2MiB" to "1GiB")");
  const std::string dram = R"( is not a size; write for example 4GiB or 512MiB, or auto)";
  EXPECT_EQ(Refused("--dram", "much"), R"(--dram: "much")" + dram);
  EXPECT_EQ(Refused("--dram", ""), R"(--dram: "")" + dram);
  EXPECT_EQ(Refused("--dram", "a\"b'''c"), R"(--dram: "a"b'''c")" + dram);
  EXPECT_EQ(Refused("--index-slots", "1000"),
            R"(--index-slots: "1000" is not "auto" or a power of two from 64 to 2^31)");
  EXPECT_EQ(Refused("--index-slots", "many"),
            R"(--index-slots: "many" is not "auto" or a power of two from 64 to 2^31)");
  EXPECT_EQ(Refused("--policy", "fifo"), R"(--policy: "fifo" is not "gittins" or "lru")");
  EXPECT_EQ(Refused("--huge-pages", "on"), R"(--huge-pages: "on" is not "auto" or "off")");
  EXPECT_EQ(Refused("--log-level", "loud"),
            R"(--log-level: "loud" is not "debug", "info", "warning" or "error")");
  EXPECT_EQ(Refused("--socket", ""),
            R"(--socket: "" is not a path; write for example /run/x.sock)");
}

TEST(Flags, EachSetsItsOwnAndLeavesTheRest) {
  Config config;
  config.policy = "lru";
  for (const auto& [flag, value] :
       {std::pair("--socket", "/tmp/'x\".sock"), std::pair("--dram", "4194304"),
        std::pair("--segment", "2MiB"), std::pair("--index-slots", "128"),
        std::pair("--huge-pages", "off"), std::pair("--log-level", "error")}) {
    const Status applied = ApplyFlag(flag, value, &config);
    EXPECT_TRUE(applied.ok()) << applied.message();
  }
  EXPECT_EQ(config.socket, "/tmp/'x\".sock");
  EXPECT_EQ(config.dram_bytes, uint64_t{4} << 20);
  EXPECT_EQ(config.segment_bytes, uint64_t{2} << 20);
  EXPECT_EQ(config.index_slots, 128u);
  EXPECT_FALSE(config.huge_pages);
  EXPECT_EQ(config.log_level, LogLevel::kError);
  EXPECT_EQ(config.policy, "lru");
}

TEST(Flags, AutoTakesBackWhatTheFileSays) {
  Config config;
  config.dram_bytes = config.segment_bytes = uint64_t{2} << 20;
  config.index_slots = 64;
  for (const char* flag : {"--dram", "--segment", "--index-slots"}) {
    EXPECT_TRUE(ApplyFlag(flag, "auto", &config).ok());
  }
  EXPECT_EQ(config.dram_bytes, 0u);
  EXPECT_EQ(config.segment_bytes, 0u);
  EXPECT_EQ(config.index_slots, 0u);
}

}  // namespace
}  // namespace terrace
