#include <new>
#include <utility>

#include "client/core/client.h"
#include "client/core/fork_guard.h"
#include "client/core/session.h"
#include "proto/shm/record_layout.h"
#include "storage/record/record.h"

namespace terrace {

Pin::Pin(Pin&& other) noexcept { *this = std::move(other); }

Pin& Pin::operator=(Pin&& other) noexcept {
  if (this == &other) return *this;
  Release();
  session_ = std::move(other.session_);
  copy_ = std::move(other.copy_);
  bytes_ = std::exchange(other.bytes_, {});
  process_ = other.process_;
  pin_ = other.pin_;
  key_ = other.key_;
  namespace_id_ = other.namespace_id_;
  return *this;
}

Pin::~Pin() { Release(); }

Status Pin::Verify() const {
  if (session_ == nullptr) return Status::Ok();
  const auto& header =
      *reinterpret_cast<const shm::RecordHeader*>(bytes_.data() - shm::kRecordHeaderBytes);
  const auto payload_bytes = static_cast<uint32_t>(bytes_.size());
  Status header_ok = ValidateHeader(
      header, {.key = key_, .namespace_id = namespace_id_, .payload_bytes = payload_bytes});
  if (!header_ok.ok()) return header_ok;
  return VerifyPayload(bytes_.data(), payload_bytes, header.leaves);
}

void Pin::Release() {
  bytes_ = {};
  copy_ = nullptr;
  if (session_ == nullptr) return;
  if (process_ != ProcessGeneration()) {
    // The parent's session: its end here would unmap and close what the child does not own.
    static_cast<void>(new std::shared_ptr<Session>(std::move(session_)));
    return;
  }
  session_->Unpin(pin_);
  session_ = nullptr;
}

}  // namespace terrace
