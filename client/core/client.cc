#include "client/core/client.h"

#include <cerrno>
#include <cstdlib>

#include "client/core/client_state.h"
#include "client/core/fork_guard.h"
#include "client/core/rpc_convert.h"

namespace terrace {
namespace {

constexpr const char* kMachinesSocket = "/run/terrace/terraced.sock";

// Where a daemon may serve, the nearest first: the user's own, then the machine's.
std::vector<std::string> SocketPaths(const ClientOptions& options) {
  if (!options.socket.empty()) return {options.socket};
  const char* const named = std::getenv("TERRACE_SOCKET");
  if (named != nullptr && *named != '\0') return {named};
  const char* const runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime == nullptr || *runtime == '\0') return {kMachinesSocket};
  return {std::string(runtime) + "/terrace/terraced.sock", kMachinesSocket};
}

Sockets FindSockets(const ClientOptions& options) {
  Sockets found{.paths = SocketPaths(options), .words = {}};
  for (const std::string& path : found.paths) {
    found.words += (found.words.empty() ? "" : " or ") + path;
  }
  return found;
}

ClientOptions Complete(ClientOptions options) {
  if (options.client_name.empty()) options.client_name = program_invocation_short_name;
  return options;
}

}  // namespace

// -- ClientState ----------------------------------------------------------------------------------

ClientState::ClientState(ClientOptions options)
    : options_(Complete(std::move(options))),
      sockets_(FindSockets(options_)),
      of_process_(new OfProcess{.process = ProcessGeneration(),
                                .connection = Connection::Start(options_, sockets_)}) {}

ClientState::~ClientState() {
  OfProcess* const mine = of_process_.load(std::memory_order_acquire);
  if (mine->process != ProcessGeneration()) return;
  mine->connection->Stop();
  delete mine;
}

Connection& ClientState::connection() {
  OfProcess* mine = of_process_.load(std::memory_order_acquire);
  const uint64_t process = ProcessGeneration();
  if (mine->process == process) {
    mine->connection->EnsureStarted();
    return *mine->connection;
  }
  auto fresh = std::make_unique<OfProcess>(
      OfProcess{.process = process, .connection = Connection::Start(options_, sockets_)});
  if (!of_process_.compare_exchange_strong(mine, fresh.get(), std::memory_order_acq_rel)) {
    fresh->connection->Stop();  // another thread was first
    return *mine->connection;
  }
  Connection& connection = *fresh.release()->connection;
  // Whatever the answer: calls say kUnavailable themselves.
  static_cast<void>(connection.AwaitAvailable(MonotonicNs() + options_.connect_timeout_ns));
  return connection;
}

void ClientState::Stop() {
  OfProcess* const mine = of_process_.load(std::memory_order_acquire);
  if (mine->process == ProcessGeneration()) mine->connection->Stop();
}

// -- Client ---------------------------------------------------------------------------------------

struct Client::Impl {
  std::shared_ptr<ClientState> state;

  Connection& connection() { return state->connection(); }

  // Through the Admin capability, asked for anew with each call: it may go with the connection.
  template <typename T>
  Result<T> CallAdmin(std::function<Delivered<T>(rpc::Admin::Client)> call) {
    return connection().Call<T>([call = std::move(call)](Link& link) {
      using Reply = capnp::Response<rpc::Terrace::AdminResults>;
      return link.terrace.adminRequest().send().then([call](Reply&& reply) -> Delivered<T> {
        if (reply.getStatus().getCode() != rpc::Code::OK) {
          return Delivery<T>(FromRpc(reply.getStatus()));
        }
        return call(reply.getAdmin());
      });
    });
  }
};

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

std::unique_ptr<Client> Client::Create(ClientOptions options) {
  auto impl = std::make_unique<Impl>();
  impl->state = std::make_shared<ClientState>(std::move(options));
  return std::unique_ptr<Client>(new Client(std::move(impl)));
}

Result<std::unique_ptr<Client>> Client::Connect(ClientOptions options) {
  const int64_t deadline_ns = MonotonicNs() + options.connect_timeout_ns;
  std::unique_ptr<Client> client = Create(std::move(options));
  Status available = client->impl_->connection().AwaitAvailable(deadline_ns);
  if (!available.ok()) return available;
  return client;
}

Client::~Client() { impl_->state->Stop(); }

bool Client::available() const { return impl_->connection().available(); }

Status Client::AwaitAvailable(int64_t timeout_ns) const {
  return impl_->connection().AwaitAvailable(MonotonicNs() + timeout_ns);
}

uint32_t Client::chunk_bytes_max() const { return impl_->connection().chunk_bytes_max(); }

const std::string& Client::socket() const { return impl_->state->socket(); }

Result<std::shared_ptr<Namespace>> Client::Register(const NamespaceIdentity& identity) {
  auto state = std::make_shared<NamespaceState>(identity);
  Status registered = impl_->connection().Register(state);
  if (!registered.ok()) return registered;
  auto made = std::make_unique<Namespace::Impl>(impl_->state, std::move(state));
  return std::shared_ptr<Namespace>(new Namespace(std::move(made)));
}

Result<std::string> Client::StatusJson() {
  return impl_->connection().Call<std::string>([](Link& link) {
    return link.terrace.statusRequest().send().then(
        [](capnp::Response<rpc::Terrace::StatusResults>&& reply) -> Delivery<std::string> {
          return std::string(reply.getJson().cStr());
        });
  });
}

Result<std::vector<ListedNamespace>> Client::Namespaces() {
  using Listed = std::vector<ListedNamespace>;
  using Reply = capnp::Response<rpc::Admin::ListNamespacesResults>;
  return impl_->CallAdmin<Listed>([](rpc::Admin::Client admin) {
    return admin.listNamespacesRequest().send().then([](Reply&& reply) -> Delivery<Listed> {
      Listed listed;
      for (const auto info : reply.getNamespaces()) listed.push_back(FromRpc(info));
      return listed;
    });
  });
}

Result<std::vector<ListedChunk>> Client::List(uint64_t* cursor, uint32_t limit) {
  struct Listed {
    std::vector<ListedChunk> chunks;
    uint64_t cursor = 0;
  };
  using Reply = capnp::Response<rpc::Admin::ListResults>;
  Result<Listed> listed =
      impl_->CallAdmin<Listed>([from = *cursor, limit](rpc::Admin::Client admin) {
        auto request = admin.listRequest();
        request.setCursor(from);
        request.setLimit(limit);
        return request.send().then([](Reply&& reply) -> Delivery<Listed> {
          Listed found{.chunks = {}, .cursor = reply.getCursor()};
          for (const auto info : reply.getChunks()) found.chunks.push_back(FromRpc(info));
          return found;
        });
      });
  if (!listed.ok()) return listed.status();
  *cursor = listed->cursor;
  return std::move(listed->chunks);
}

Result<ListedChunk> Client::Describe(std::string_view label, const shm::ChunkKey& key) {
  using Reply = capnp::Response<rpc::Admin::DescribeResults>;
  return impl_->CallAdmin<ListedChunk>([label = std::string(label), key](rpc::Admin::Client admin) {
    auto request = admin.describeRequest();
    request.setLabel(label.c_str());
    ToRpc(key, request.initKey());
    return request.send().then([](Reply&& reply) -> Delivery<ListedChunk> {
      if (reply.getStatus().getCode() != rpc::Code::OK) return FromRpc(reply.getStatus());
      return FromRpc(reply.getInfo());
    });
  });
}

Result<uint64_t> Client::ClearNamespace(std::string_view label) {
  using Reply = capnp::Response<rpc::Admin::ClearNamespaceResults>;
  return impl_->CallAdmin<uint64_t>([label = std::string(label)](rpc::Admin::Client admin) {
    auto request = admin.clearNamespaceRequest();
    request.setLabel(label.c_str());
    return request.send().then([](Reply&& reply) -> Delivery<uint64_t> {
      if (reply.getStatus().getCode() != rpc::Code::OK) return FromRpc(reply.getStatus());
      return reply.getChunks();
    });
  });
}

Result<EpochBump> Client::BumpEpoch(std::string_view label) {
  using Reply = capnp::Response<rpc::Admin::BumpEpochResults>;
  return impl_->CallAdmin<EpochBump>([label = std::string(label)](rpc::Admin::Client admin) {
    auto request = admin.bumpEpochRequest();
    request.setLabel(label.c_str());
    return request.send().then([](Reply&& reply) -> Delivery<EpochBump> {
      if (reply.getStatus().getCode() != rpc::Code::OK) return FromRpc(reply.getStatus());
      return EpochBump{.epoch = reply.getInfo().getEpoch(), .stored = FromRpc(reply.getStored())};
    });
  });
}

}  // namespace terrace
