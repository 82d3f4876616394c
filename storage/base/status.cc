#include "storage/base/status.h"

#include <cerrno>
#include <cstring>

namespace terrace {

std::string_view StatusCodeName(StatusCode code) {
  switch (code) {
    case StatusCode::kOk: return "ok";
    case StatusCode::kNotFound: return "not found";
    case StatusCode::kBusy: return "busy";
    case StatusCode::kExists: return "exists";
    case StatusCode::kStale: return "stale";
    case StatusCode::kInvalid: return "invalid";
    case StatusCode::kDenied: return "denied";
    case StatusCode::kDeadline: return "deadline";
    case StatusCode::kCancelled: return "cancelled";
    case StatusCode::kUnavailable: return "unavailable";
    case StatusCode::kCorrupt: return "corrupt";
    case StatusCode::kNoSpace: return "no space";
    case StatusCode::kIoError: return "io error";
  }
  return "unknown";
}

std::string Status::ToString() const {
  std::string text(StatusCodeName(code_));
  if (!message_.empty()) text += ": " + message_;
  return text;
}

Status ErrnoStatus(std::string_view what, int error) {
  StatusCode code = StatusCode::kIoError;
  if (error == ENOMEM || error == ENOSPC || error == EDQUOT) code = StatusCode::kNoSpace;
  if (error == EACCES || error == EPERM) code = StatusCode::kDenied;
  if (error == EAGAIN || error == EMFILE || error == ENFILE) code = StatusCode::kBusy;
  return Status(code, std::string(what) + ": " + std::strerror(error));
}

}  // namespace terrace
