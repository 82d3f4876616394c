#include "daemon/app/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "daemon/app/nvme_path.h"
#include "storage/base/limits.h"

namespace terrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string Refused(const std::string& text) {
  const Result<Config> config = ParseConfig(text, "t.toml");
  if (config.ok()) return "accepted";
  EXPECT_EQ(config.status().code(), StatusCode::kInvalid);
  return config.status().message();
}

TEST(Config, EmptyIsTheDefaults) {
  const Result<Config> config = ParseConfig("", "t.toml");
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->policy, "gittins");
  EXPECT_EQ(config->dram_bytes, 0u);
  EXPECT_EQ(config->socket_mode, 0600u);
  EXPECT_TRUE(config->huge_pages);
}

TEST(Config, ReadsEveryKey) {
  const Result<Config> config = ParseConfig(R"(
socket = "/tmp/x.sock"
socket_mode = 0o660
dram = "2 GiB"
segment = "32MiB"
index_slots = 1024
nvme = ["/a", "/b"]
nvme_bytes = "1TiB"
nvme_segment = "64MiB"
nvme_admission = "500 GiB/day"
nvme_codec = "auto"
nvme_scrub_days = 30
catalog = "/c"
policy = "lru"
huge_pages = "off"
log_level = "warning"
[[tenant]]
name = "search"
uids = [1001, 1002]
dram = "512MiB"
nvme_bytes = "100GiB"
)",
                                            "t.toml");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->socket, "/tmp/x.sock");
  EXPECT_EQ(config->socket_mode, 0660u);
  EXPECT_EQ(config->dram_bytes, uint64_t{2} << 30);
  EXPECT_EQ(config->segment_bytes, uint64_t{32} << 20);
  EXPECT_EQ(config->index_slots, 1024u);
  EXPECT_EQ(config->nvme, (std::vector<std::string>{"/a", "/b"}));
  EXPECT_EQ(config->nvme_bytes, uint64_t{1} << 40);
  EXPECT_EQ(config->nvme_segment_bytes, uint64_t{64} << 20);
  EXPECT_EQ(config->nvme_admission, NvmeAdmission::kBytesADay);
  EXPECT_EQ(config->nvme_bytes_a_day, uint64_t{500} << 30);
  EXPECT_TRUE(config->nvme_encode);
  EXPECT_EQ(config->nvme_scrub_days, 30u);
  EXPECT_EQ(config->catalog, "/c");
  EXPECT_EQ(config->policy, "lru");
  EXPECT_FALSE(config->huge_pages);
  EXPECT_EQ(config->log_level, LogLevel::kWarning);
  ASSERT_EQ(config->tenants.size(), 1u);
  EXPECT_EQ(config->tenants[0].uids, (std::vector<uid_t>{1001, 1002}));
  EXPECT_EQ(config->tenants[0].dram_bytes, uint64_t{512} << 20);
  EXPECT_EQ(config->tenants[0].nvme_bytes, uint64_t{100} << 30);
}

TEST(Config, NvmeIsAPathOrAList) {
  EXPECT_EQ(ParseConfig(R"(nvme = "/a")", "t.toml")->nvme, std::vector<std::string>{"/a"});
  EXPECT_TRUE(ParseConfig("", "t.toml")->nvme.empty());
  EXPECT_THAT(Refused("nvme = 3"), HasSubstr("t.toml:1: nvme = 3: use a list of paths"));
  EXPECT_THAT(Refused(R"(nvme = ["/a", ""])"), HasSubstr("use a list of paths"));
}

TEST(Config, TheCatalogLiesInTheFirstFolderOfNvme) {
  Config config;
  EXPECT_EQ(CatalogFolderOf(config), "");
  config.nvme = {"/none/folder/", "/tmp/"};
  EXPECT_EQ(CatalogFolderOf(config), "/tmp/catalog");
  config.catalog = "/c";
  EXPECT_EQ(CatalogFolderOf(config), "/c");
  config.catalog = "off";
  EXPECT_EQ(CatalogFolderOf(config), "");
  EXPECT_THAT(Refused("catalog = 3"), HasSubstr("t.toml:1: catalog = 3: use a folder or \"off\""));
}

TEST(Config, TheCatalogIsCountedWhereItLiesBesideTheLog) {
  Config config;
  EXPECT_EQ(CatalogBytesOf(config), 0u);
  config.nvme = {"/tmp/"};
  EXPECT_EQ(CatalogBytesOf(config), 384 * kMiB);  // a 64th of the default is more
  config.nvme_bytes = kGiB;
  EXPECT_EQ(CatalogBytesOf(config), 16 * kMiB);
  config.nvme_bytes = 64 * kMiB;
  EXPECT_EQ(CatalogBytesOf(config), 8 * kMiB);
  EXPECT_TRUE(CheckConfig(config).ok());
  config.nvme_bytes = 9 * kMiB;
  EXPECT_THAT(CheckConfig(config).message(), HasSubstr("tenant 'default' has 1 MiB"));
  config.nvme_bytes = 8 * kMiB;
  EXPECT_THAT(CheckConfig(config).message(), HasSubstr("the catalog's is 8 MiB"));
  config.catalog = "/c";
  EXPECT_EQ(CatalogBytesOf(config), 0u);
}

TEST(Config, NvmeAdmissionIsAWordOrASizeADay) {
  EXPECT_EQ(ParseConfig(R"(nvme_admission = "second-hit")", "t.toml")->nvme_admission,
            NvmeAdmission::kSecondHit);
  for (const char* wrong : {R"("often")", R"("/day")", R"("0/day")", "3"}) {
    EXPECT_THAT(Refused(std::string("nvme_admission = ") + wrong),
                HasSubstr(R"(use "always", "second-hit" or a size a day)"));
  }
}

TEST(Config, TheCodecIsAutoOrOff) {
  EXPECT_FALSE(Config().nvme_encode);
  EXPECT_FALSE(ParseConfig(R"(nvme_codec = "off")", "t.toml")->nvme_encode);
  for (const char* wrong : {"true", R"("on")", "1"}) {
    EXPECT_THAT(Refused(std::string("nvme_codec = ") + wrong), HasSubstr(R"(use "auto" or "off")"));
  }
}

TEST(Config, ScrubDaysAreWholeDays) {
  for (const char* wrong : {"-1", "4000", "1.5", R"("7")"}) {
    EXPECT_THAT(Refused(std::string("nvme_scrub_days = ") + wrong),
                HasSubstr("whole days, or 0 for never"));
  }
  EXPECT_EQ(ParseConfig("nvme_scrub_days = 0", "t.toml")->nvme_scrub_days, 0u);
}

TEST(Config, TenantsShareNvmeBytes) {
  Config config;
  config.tenants.push_back(
      {.name = "a", .uids = {1}, .dram_bytes = 8 * kMiB, .nvme_bytes = uint64_t{2} << 30});
  EXPECT_THAT(CheckConfig(config).message(), HasSubstr("there is no nvme"));
  config.nvme = {"/a/"};
  EXPECT_TRUE(CheckConfig(config).ok());
  config.nvme_bytes = uint64_t{1} << 30;
  EXPECT_THAT(CheckConfig(config).message(), HasSubstr("leave room for the default tenant"));
  EXPECT_THAT(Refused("[[tenant]]\nname = \"a\"\nuids = [1]\ndram = \"1GiB\"\n"
                      "nvme_bytes = \"auto\""),
              HasSubstr("t.toml:5: nvme_bytes = 'auto': use a size such as"));
}

TEST(Config, NvmeSharesTooSmallForALogAreRefused) {
  Config config;
  config.nvme = {"/a/"};
  config.nvme_bytes = 17 * kMiB;
  EXPECT_THAT(CheckConfig(config).message(),
              HasSubstr("tenant 'default' has 17 MiB of nvme_bytes: give it 18 MiB or more"));
  config.nvme_bytes = 18 * kMiB;
  EXPECT_TRUE(CheckConfig(config).ok()) << CheckConfig(config).message();
  config.tenants.push_back(
      {.name = "a", .uids = {1}, .dram_bytes = 8 * kMiB, .nvme_bytes = 4 * kMiB});
  EXPECT_THAT(CheckConfig(config).message(), HasSubstr("tenant 'a' has 4 MiB of nvme_bytes"));
  config.tenants.clear();
  config.nvme_segment_bytes = kGiB;
  config.nvme_bytes = 4 * kGiB;
  EXPECT_THAT(CheckConfig(config).message(),
              HasSubstr("give it 6 GiB or more, or lower nvme_segment = 1 GiB"));
  config = {};
  config.nvme = {"/a/", "/b/"};
  config.nvme_bytes = 18 * kMiB;
  EXPECT_THAT(CheckConfig(config).message(), HasSubstr("give it 32 MiB or more"));
}

TEST(Config, NvmeSettingsWithoutAPathAreRefused) {
  for (const char* setting : {"nvme_bytes = \"1GiB\"", "nvme_segment = \"4MiB\"",
                              "nvme_admission = \"second-hit\"", "nvme_codec = \"auto\""}) {
    const Result<Config> config = ParseConfig(setting, "t.toml");
    ASSERT_TRUE(config.ok());
    EXPECT_THAT(CheckConfig(*config).message(), HasSubstr("and there is no nvme"));
  }
}

// A mistyped or unmounted folder must not become a file of 32 GiB.
TEST(Config, NvmePathsSayWhatTheyAre) {
  std::string made = std::filesystem::temp_directory_path() / "terrace-paths-XXXXXX";
  ASSERT_NE(mkdtemp(made.data()), nullptr);
  std::ofstream(made + "/old.log").close();
  const auto checked = [](std::vector<std::string> paths) {
    Config config;
    config.nvme = std::move(paths);
    return CheckConfig(config).message();
  };
  EXPECT_THAT(checked({made + "/missing"}), HasSubstr("end a folder's name in \"/\""));
  EXPECT_EQ(checked({made + "/missing/"}), "");
  EXPECT_EQ(checked({made + "/new.terrace"}), "");
  EXPECT_EQ(checked({made, made + "/old.log"}), "");
  EXPECT_EQ(checked({"/dev/none"}), "");
  EXPECT_THAT(checked({made, made}), HasSubstr("twice"));

  Config config;
  config.nvme = {made + "/missing/", made + "/new.terrace", made, "/dev/none"};
  EXPECT_THAT(ConfigWarnings(config),
              ElementsAre(HasSubstr("missing/ is not there"), HasSubstr("/dev/none is not there")));
  config.nvme = {made + "/new.terrace"};
  config.tenants.push_back({.name = "a", .uids = {0}, .dram_bytes = 8 * kMiB, .nvme_bytes = kGiB});
  EXPECT_THAT(CheckConfig(config).message(), HasSubstr("it must be a folder"));
  config.tenants[0].nvme_bytes = 0;
  EXPECT_TRUE(CheckConfig(config).ok());
  std::filesystem::remove_all(made);
}

TEST(Config, ATenantsNameFitsItsLog) {
  Config config;
  config.tenants.push_back({.name = std::string(65, 'x'), .uids = {1}, .dram_bytes = 8 * kMiB});
  EXPECT_THAT(CheckConfig(config).message(), HasSubstr("65 bytes: use 64 at most"));
  config.tenants[0].name.pop_back();
  EXPECT_TRUE(CheckConfig(config).ok());
}

TEST(Config, ErrorsNameFileLineKeyAndMend) {
  EXPECT_THAT(Refused("\ndrm = \"1GiB\"\n"), HasSubstr("t.toml:2: unknown key 'drm'"));
  EXPECT_THAT(Refused("drm = \"1GiB\"\n"), HasSubstr("did you mean 'dram'?"));
  EXPECT_THAT(Refused("dram = \"banana\""), HasSubstr("t.toml:1: dram = "));
  EXPECT_THAT(Refused("dram = \"banana\""), HasSubstr("use a size such as"));
  EXPECT_THAT(Refused("dram = -5"), HasSubstr("use a size such as"));
  EXPECT_THAT(Refused("segment = \"3MiB\""), HasSubstr("t.toml:1: segment = "));
  EXPECT_THAT(Refused("segment = \"3MiB\""), HasSubstr("power of two from \"2MiB\""));
  EXPECT_THAT(Refused("segment = \"2GiB\""), HasSubstr("power of two from \"2MiB\""));
  EXPECT_THAT(Refused("segment = \"1MiB\""), HasSubstr("power of two from \"2MiB\""));
  EXPECT_THAT(Refused("policy = \"fifo\""), HasSubstr("use \"gittins\" or \"lru\""));
  EXPECT_THAT(Refused("index_slots = 1000"), HasSubstr("power of two"));
  EXPECT_THAT(Refused("huge_pages = true"), HasSubstr("use \"auto\" or \"off\""));
  EXPECT_THAT(Refused("log_level = \"loud\""), HasSubstr("\"debug\""));
  EXPECT_THAT(Refused("socket_mode = 4096"), HasSubstr("octal"));
  EXPECT_THAT(Refused("socket = 5"), HasSubstr("use a string"));
  EXPECT_THAT(Refused("tenant = 3"), HasSubstr("[[tenant]]"));
  EXPECT_THAT(Refused("[[tenant]]\nname = \"a\"\ndram = \"1GiB\""), HasSubstr("needs uids"));
  EXPECT_THAT(Refused("[[tenant]]\nname = \"a\"\nuids = [\"root\"]\ndram = \"1GiB\""),
              HasSubstr("numeric user ids"));
  EXPECT_THAT(Refused("[[tenant]]\nname = \"a\"\nuids = [1]"), HasSubstr("needs dram"));
  EXPECT_THAT(Refused("dram = "), HasSubstr("t.toml:1: "));
}

TEST(Config, MissingFileIsNamed) {
  const Result<Config> config = LoadConfig("/nonexistent/terraced.toml");
  ASSERT_FALSE(config.ok());
  EXPECT_THAT(config.status().message(), HasSubstr("/nonexistent/terraced.toml"));
}

TEST(Config, SharesMustLeaveRoomForTheDefaultTenant) {
  Config config;
  config.dram_bytes = 1024;
  config.tenants.push_back({.name = "a", .uids = {1}, .dram_bytes = 1024, .nvme_bytes = 0});
  EXPECT_THAT(CheckConfig(config).message(), HasSubstr("leave room"));
  config.tenants[0].name = "default";
  EXPECT_THAT(CheckConfig(config).message(), HasSubstr("exists by itself"));
}

TEST(Config, AUidBelongsToOneTenant) {
  Config config;
  config.tenants.push_back({.name = "a", .uids = {1, 2}, .dram_bytes = uint64_t{64} << 20});
  config.tenants.push_back({.name = "b", .uids = {3, 2}, .dram_bytes = uint64_t{64} << 20});
  config.dram_bytes = uint64_t{1} << 30;
  EXPECT_THAT(CheckConfig(config).message(), HasSubstr("uid 2 is in tenant 'a' and in tenant 'b'"));
  config.tenants[1].uids = {3};
  EXPECT_TRUE(CheckConfig(config).ok());
}

TEST(Config, SizesThatTheDaemonRefusesAreRefused) {
  Config config;
  config.dram_bytes = 1;
  EXPECT_THAT(CheckConfig(config).message(), HasSubstr("dram = 0 MiB is not within 2 MiB and"));
  config.dram_bytes = config.segment_bytes = uint64_t{1} << 30;
  EXPECT_THAT(CheckConfig(config).message(), HasSubstr("tenant 'default'"));
  EXPECT_THAT(CheckConfig(config).message(), HasSubstr("4 to 4096 are needed"));
  // More than any machine has free is right: where it runs decides.
  config.dram_bytes = uint64_t{1} << 42;
  EXPECT_TRUE(CheckConfig(config).ok()) << CheckConfig(config).message();
  config.tenants.push_back({.name = "a", .uids = {1}, .dram_bytes = uint64_t{1} << 30});
  EXPECT_THAT(CheckConfig(config).message(), HasSubstr("tenant 'a'"));
  config = {};
  config.tenants.push_back({.name = "a", .uids = {1}, .dram_bytes = uint64_t{64} << 30});
  EXPECT_THAT(CheckConfig(config).message(), HasSubstr("of dram = \"auto\", at most"));
}

TEST(Config, WarnsOfUidsThatTheSocketShutsOut) {
  Config config;
  config.tenants.push_back({.name = "a", .uids = {0, geteuid()}, .dram_bytes = 1});
  EXPECT_THAT(ConfigWarnings(config), IsEmpty());
  config.tenants.push_back({.name = "b", .uids = {0, 4242}, .dram_bytes = 1});
  EXPECT_THAT(ConfigWarnings(config), ElementsAre(HasSubstr("tenant 'b' has uid 4242, but "
                                                            "socket_mode = 0o600")));
  config.socket_mode = 0666;
  EXPECT_THAT(ConfigWarnings(config), IsEmpty());
}

TEST(Config, ExampleHoldsEveryKeyAndIsTheDefaults) {
  std::ifstream in(TERRACE_EXAMPLE);
  std::stringstream text, uncommented;
  text << in.rdbuf();
  ASSERT_FALSE(text.str().empty());
  const Result<Config> as_it_is = ParseConfig(text.str(), "example");
  ASSERT_TRUE(as_it_is.ok()) << as_it_is.status().message();
  // A setting is a line "#key = value"; prose has a space behind the hash.
  for (std::string line; std::getline(text, line);) {
    if (line.size() > 1 && line[0] == '#' && line[1] != ' ') uncommented << line.substr(1);
    uncommented << "\n";
  }
  for (const char* key : {"socket", "socket_mode", "dram", "segment", "index_slots", "policy",
                          "huge_pages", "log_level", "uids", "name", "nvme", "nvme_bytes",
                          "nvme_segment", "nvme_admission", "nvme_codec", "nvme_scrub_days"}) {
    EXPECT_THAT(uncommented.str(), HasSubstr(std::string("\n") + key + " = "));
  }
  const Result<Config> spelled_out = ParseConfig(uncommented.str(), "example");
  ASSERT_TRUE(spelled_out.ok()) << spelled_out.status().message();
  EXPECT_EQ(spelled_out->policy, as_it_is->policy);
  EXPECT_EQ(spelled_out->dram_bytes, as_it_is->dram_bytes);
  EXPECT_EQ(spelled_out->segment_bytes, as_it_is->segment_bytes);
  EXPECT_EQ(spelled_out->index_slots, as_it_is->index_slots);
  EXPECT_EQ(spelled_out->socket_mode, as_it_is->socket_mode);
  EXPECT_EQ(spelled_out->huge_pages, as_it_is->huge_pages);
  EXPECT_EQ(spelled_out->log_level, as_it_is->log_level);
  EXPECT_EQ(spelled_out->nvme_bytes, as_it_is->nvme_bytes);
  EXPECT_EQ(spelled_out->nvme_segment_bytes, as_it_is->nvme_segment_bytes);
  EXPECT_EQ(spelled_out->nvme_admission, as_it_is->nvme_admission);
  EXPECT_EQ(spelled_out->nvme_encode, as_it_is->nvme_encode);
  EXPECT_EQ(spelled_out->nvme_scrub_days, as_it_is->nvme_scrub_days);
  // The one without a default is nowhere as it is.
  EXPECT_TRUE(as_it_is->nvme.empty());
  EXPECT_EQ(spelled_out->nvme.size(), 1u);
  ASSERT_EQ(spelled_out->tenants.size(), 1u);
  EXPECT_NE(spelled_out->tenants[0].nvme_bytes, 0u);
}

TEST(Size, ParsesAndFormats) {
  EXPECT_EQ(*ParseSize("4096"), 4096u);
  EXPECT_EQ(*ParseSize("1.5 GiB"), (uint64_t{3} << 30) / 2);
  EXPECT_EQ(*ParseSize("64kib"), 65536u);
  EXPECT_FALSE(ParseSize("").ok());
  EXPECT_FALSE(ParseSize("12 parsecs").ok());
  EXPECT_FALSE(ParseSize("-1").ok());
  for (const char* endless : {"nan", "nan GiB", "inf", "infinity", "-inf"}) {
    EXPECT_FALSE(ParseSize(endless).ok()) << endless;
  }
  EXPECT_EQ(FormatSize(uint64_t{2} << 30), "2 GiB");
  EXPECT_EQ(FormatSize(1536 << 10), "1536 KiB");
  EXPECT_EQ(FormatSize(7), "7 bytes");
}

}  // namespace
}  // namespace terrace
