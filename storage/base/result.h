#pragma once

// A value, or the Status that says why there is none.
//
// Threads: a value; shares nothing.

#include <optional>
#include <utility>

#include "storage/base/check.h"
#include "storage/base/status.h"

namespace terrace {

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}         // NOLINT: implicit by intent
  Result(Status status) : status_(std::move(status)) {  // NOLINT: implicit by intent
    TERRACE_CHECK(!status_.ok());
  }

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }

  // REQUIRES: ok().
  T& operator*() & {
    TERRACE_CHECK(ok());
    return *value_;
  }
  const T& operator*() const& {
    TERRACE_CHECK(ok());
    return *value_;
  }
  T&& operator*() && {
    TERRACE_CHECK(ok());
    return *std::move(value_);
  }
  T* operator->() {
    TERRACE_CHECK(ok());
    return &*value_;
  }
  const T* operator->() const {
    TERRACE_CHECK(ok());
    return &*value_;
  }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace terrace
