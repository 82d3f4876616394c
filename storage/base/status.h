#pragma once

// What happened, as the caller must act on it: a code, and for people a message that names the
// thing, the value and the mend.
//
// Threads: values; share nothing.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace terrace {

// The code says what the caller does next.
enum class StatusCode : uint8_t {
  kOk = 0,
  kNotFound,     // treat as a miss
  kBusy,         // retry later: a queue, the pool or a limit is full
  kExists,       // the key is there already, or is being written: nothing to do
  kStale,        // the namespace's epoch or the claim has ended: begin anew
  kInvalid,      // give up: the request itself is wrong
  kDenied,       // give up: the caller may not do this
  kDeadline,     // the deadline passed first: treat as a miss
  kCancelled,    // the caller took it back
  kUnavailable,  // no daemon: treat as a miss, try again once it is back
  kCorrupt,      // a checksum or an identity differed: treat as a miss
  kNoSpace,      // no room in this place: reclaim, then try again
  kIoError,      // the system refused: treat as a miss
};

std::string_view StatusCodeName(StatusCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  explicit Status(StatusCode code) : code_(code) {}
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  static Status Ok() { return Status(); }

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

  // "busy: the pool has no room" for logs and terminals; the code's name alone without a message.
  std::string ToString() const;

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

// A Status from errno: `what` names the call and its object ("memfd_create terrace-dram-3").
Status ErrnoStatus(std::string_view what, int error);

}  // namespace terrace
