#pragma once

// Text from clients, which may hold any bytes and goes on to other clients as JSON and as Cap'n
// Proto Text: both are UTF-8 to their readers.
//
// Threads: pure.

#include <cstddef>
#include <string>
#include <string_view>

namespace terrace {

bool IsUtf8(std::string_view text);

// The first `bytes_max` bytes at most, '?' for each byte that is no part of a character.
std::string ToUtf8(std::string_view text, size_t bytes_max);

}  // namespace terrace
