// The program behind ClientProcess: `scripted_client SOCKET NAME`, commands on its input.

#include <poll.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "client/core/client.h"
#include "storage/base/check.h"
#include "storage/base/clock.h"
#include "tests/support/chunks.h"

namespace terrace {
namespace {

std::string Names(const std::vector<StatusCode>& codes) {
  std::string line;
  for (const StatusCode code : codes) {
    line += (line.empty() ? "" : " ") + std::string(StatusCodeName(code));
  }
  return line;
}

class ScriptedClient {
 public:
  ScriptedClient(const std::string& socket, const std::string& name) {
    Result<std::unique_ptr<Client>> client =
        Client::Connect({.socket = socket, .client_name = name});
    TERRACE_CHECK(client.ok());
    client_ = *std::move(client);
    Result<std::shared_ptr<Namespace>> names = client_->Register(Identity());
    TERRACE_CHECK(names.ok());
    names_ = *std::move(names);
  }

  void Run() {
    Answer("ready");
    std::string line;
    while (std::getline(std::cin, line)) {
      std::istringstream words(line);
      std::string command;
      words >> command;
      const std::string answer = Execute(command, words);
      if (!answer.empty()) Answer(answer);
    }
  }

 private:
  static void Answer(const std::string& line) { std::cout << line << std::endl; }

  static uint32_t Number(std::istringstream& words) {
    uint32_t number = 0;
    words >> number;
    TERRACE_CHECK(!words.fail());
    return number;
  }

  // Empty: answered already.
  std::string Execute(const std::string& command, std::istringstream& words) {
    if (command == "put") return Put(words);
    if (command == "get") return Get(Number(words));
    if (command == "same") return Same(Number(words));
    if (command == "begin") return Begin(words);
    if (command == "half") return Copy(Number(words), 2);
    if (command == "fill") return Fill(Number(words));
    if (command == "copy") return CopyOnAndOn(words);
    if (command == "pinning") return PinOnAndOn(Number(words));
    if (command == "seal") ticket_.Seal(Number(words));
    if (command == "submit") ticket_.CommitAsync();
    if (command == "finish") return Names(ticket_.Finish());
    return "done";
  }

  std::string Put(std::istringstream& words) {
    const uint32_t number = Number(words);
    const auto payload = Payload(number, Number(words));
    const PutItem item{.key = Key(number), .payload = payload};
    return Names(names_->Put(std::span(&item, 1)));
  }

  std::string Get(uint32_t number) { return Names({names_->GetOne(Key(number), &pin_)}); }

  std::string Same(uint32_t number) const {
    if (!pin_.held()) return "no pin";
    return Equal(pin_.bytes(), Payload(number, pin_.bytes().size())) ? "same" : "changed";
  }

  std::string Begin(std::istringstream& words) {
    const int64_t timeout_ns = Number(words) * kNsPerMs;
    const uint32_t bytes = Number(words);
    std::vector<PutRequest> requests;
    payloads_.clear();
    for (uint32_t number = 0; words >> number;) {
      requests.push_back({.key = Key(number), .payload_bytes = bytes});
      payloads_.push_back(Payload(number, bytes));
    }
    Result<PutTicket> begun = names_->BeginPut(requests, timeout_ns);
    if (!begun.ok()) return Names({begun.status().code()});
    ticket_ = *std::move(begun);
    std::vector<StatusCode> codes;
    for (const PutTicket::Grant& grant : ticket_.Wait()) codes.push_back(grant.status);
    return Names(codes);
  }

  // The first 1/`part` of the payload.
  std::string Copy(uint32_t i, size_t part) {
    const std::vector<std::byte>& payload = payloads_.at(i);
    std::memcpy(ticket_.Wait()[i].payload, payload.data(), payload.size() / part);
    return "done";
  }

  std::string Fill(uint32_t i) {
    ticket_.Fill(i, payloads_.at(i).data());
    return "done";
  }

  std::string CopyOnAndOn(std::istringstream& words) {
    std::vector<uint32_t> indexes;
    for (uint32_t i = 0; words >> i;) indexes.push_back(i);
    OnAndOn([&] {
      for (const uint32_t i : indexes) Copy(i, 1);
    });
    return "";
  }

  std::string PinOnAndOn(uint32_t number) {
    OnAndOn([&] {
      Pin pin;
      TERRACE_CHECK(names_->GetOne(Key(number), &pin) == StatusCode::kOk);
    });
    return "";
  }

  static void OnAndOn(const std::function<void()>& work) {
    work();
    Answer("running");
    pollfd command{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
    while (poll(&command, 1, 0) == 0) work();
    work();
  }

  std::unique_ptr<Client> client_;
  std::shared_ptr<Namespace> names_;
  Pin pin_;
  PutTicket ticket_;
  std::vector<std::vector<std::byte>> payloads_;
};

}  // namespace
}  // namespace terrace

int main(int argc, char** argv) {
  TERRACE_CHECK(argc == 3);
  terrace::ScriptedClient(argv[1], argv[2]).Run();
  return 0;
}
