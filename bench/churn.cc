// `terrace bench churn`: chunks of 64 KiB to the largest there may be, drawn by a Zipf law, through
// a pool that holds a tenth of them; then smaller ones for good.

#include <boost/json.hpp>
#include <memory>

#include "bench/bench_daemon.h"
#include "bench/churn_player.h"
#include "bench/measure.h"
#include "bench/payloads.h"
#include "bench/population.h"
#include "storage/base/limits.h"

namespace terrace {
namespace {

constexpr uint64_t kPool = 2 * kGiB;
constexpr uint64_t kSegment = 32 * kMiB;
constexpr double kPoolsWanted = 10;   // what all chunks of a population come to
constexpr double kPoolsToSettle = 2;  // of puts, after the change
constexpr double kPoolsCompared = 1;  // of puts, in the window that is compared

// A pool of its own with the policy.
struct Pool {
  BenchDaemon daemon;
  std::unique_ptr<Client> client;
  std::shared_ptr<Namespace> ns;
};

Result<Pool> OpenPool(const std::string& folder, const std::string& policy) {
  Result<BenchDaemon> daemon = BenchDaemon::Start(
      folder,
      {"--dram", std::to_string(kPool), "--segment", std::to_string(kSegment), "--policy", policy});
  if (!daemon.ok()) return daemon.status();
  ClientOptions wanted;
  wanted.socket = daemon->socket();
  wanted.client_name = "bench churn";
  Result<std::unique_ptr<Client>> client = Client::Connect(wanted);
  if (!client.ok()) return client.status();
  NamespaceIdentity identity;
  identity.label = "churn";
  Result<std::shared_ptr<Namespace>> ns = (*client)->Register(identity);
  if (!ns.ok()) return ns.status();
  return Pool{.daemon = *std::move(daemon), .client = *std::move(client), .ns = *std::move(ns)};
}

struct Churn {
  ChurnTally kept, lru, settling, after, fresh_settling, fresh;
  double moved_per_put = 0;

  uint64_t wrong_bytes() const {
    return kept.wrong_bytes + lru.wrong_bytes + settling.wrong_bytes + after.wrong_bytes +
           fresh_settling.wrong_bytes + fresh.wrong_bytes;
  }
  uint64_t refused_not_busy() const {
    return kept.refused_not_busy + lru.refused_not_busy + settling.refused_not_busy +
           after.refused_not_busy + fresh_settling.refused_not_busy + fresh.refused_not_busy;
  }
};

constexpr double kNoLimit = 1e300;
constexpr uint64_t kFirstSeed = 3, kSecondSeed = 5;

Result<Churn> Measure(const std::string& folder, const ChurnOptions& options) {
  const Payloads payloads(kChunkBytesMax);
  const auto pool_bytes = static_cast<double>(kPool);
  const double wanted_bytes = kPoolsWanted * pool_bytes;
  const Population mixed(0, 64 * kKiB, kChunkBytesMax, wanted_bytes);
  // Other keys, and not a multiple of the payloads' period apart.
  const Population small(1'000'000'007, 64 * kKiB, 512 * kKiB, wanted_bytes);
  Churn churn;
  {
    Progress("mixed sizes, default policy");
    Result<Pool> pool = OpenPool(folder, "gittins");
    if (!pool.ok()) return pool.status();
    ChurnPlayer player(pool->ns, payloads, WhenBusy::kGoOn);
    Random random(kFirstSeed);
    churn.kept = player.Play(mixed, random, options.pools * pool_bytes, UINT64_MAX);
    churn.moved_per_put = TenantNumber(*pool->client, "/counters/moved_bytes") /
                          TenantNumber(*pool->client, "/counters/put_bytes");
    Progress("smaller sizes in the same pool");
    Random second(kSecondSeed);
    churn.settling = player.Play(small, second, kPoolsToSettle * pool_bytes, UINT64_MAX);
    churn.after = player.Play(small, second, kPoolsCompared * pool_bytes, UINT64_MAX);
  }
  {
    Progress("the same smaller sizes in a fresh pool");
    Result<Pool> pool = OpenPool(folder, "gittins");
    if (!pool.ok()) return pool.status();
    ChurnPlayer player(pool->ns, payloads, WhenBusy::kGoOn);
    Random second(kSecondSeed);
    churn.fresh_settling = player.Play(small, second, kNoLimit, churn.settling.requests);
    churn.fresh = player.Play(small, second, kNoLimit, churn.after.requests);
  }
  Progress("mixed sizes, LRU");
  Result<Pool> pool = OpenPool(folder, "lru");
  if (!pool.ok()) return pool.status();
  Random random(kFirstSeed);
  churn.lru = ChurnPlayer(pool->ns, payloads, WhenBusy::kGoOn)
                  .Play(mixed, random, kNoLimit, churn.kept.requests);
  return churn;
}

}  // namespace

int RunChurn(const std::string& folder, const ChurnOptions& options) {
  const Result<Churn> churn = Measure(folder, options);
  if (!churn.ok()) {
    std::fprintf(stderr, "terrace bench: %s\n", churn.status().message().c_str());
    return 1;
  }
  if (options.json) {
    const boost::json::object out{
        {"wrong_bytes", churn->wrong_bytes()},     {"refused_not_busy", churn->refused_not_busy()},
        {"hit_ratio", churn->kept.ratio()},        {"lru_hit_ratio", churn->lru.ratio()},
        {"hit_ratio_after", churn->after.ratio()}, {"fresh_hit_ratio_after", churn->fresh.ratio()},
        {"requests", churn->kept.requests},        {"put_bytes", churn->kept.put_bytes},
        {"moved_per_put", churn->moved_per_put}};
    std::printf("%s\n", boost::json::serialize(out).c_str());
  } else {
    std::printf("%lu requests, %.1f GiB put: hits %.4f, lru %.4f, moved a put %.3f\n",
                churn->kept.requests, static_cast<double>(churn->kept.put_bytes) / kGiB,
                churn->kept.ratio(), churn->lru.ratio(), churn->moved_per_put);
    std::printf("after the sizes changed: hits %.4f, a fresh pool %.4f\n", churn->after.ratio(),
                churn->fresh.ratio());
    std::printf("wrong bytes %lu; refused, and not for busy: %lu\n", churn->wrong_bytes(),
                churn->refused_not_busy());
  }
  return churn->wrong_bytes() == 0 && churn->refused_not_busy() == 0 ? 0 : 1;
}

}  // namespace terrace
