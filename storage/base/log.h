#pragma once

// The daemon's log: lines to stderr (journald adds the time and the unit).  spdlog stays behind
// this wrapper, which is not a template: a file that logs does not pay for its headers.
//
// Threads: safe from any thread.

#include <cstdint>
#include <string_view>

namespace terrace {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError, kOff };

void SetLogLevel(LogLevel level);
void Log(LogLevel level, std::string_view message);

inline void LogDebug(std::string_view message) { Log(LogLevel::kDebug, message); }
inline void LogInfo(std::string_view message) { Log(LogLevel::kInfo, message); }
inline void LogWarning(std::string_view message) { Log(LogLevel::kWarning, message); }
inline void LogError(std::string_view message) { Log(LogLevel::kError, message); }

}  // namespace terrace
