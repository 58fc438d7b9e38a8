// Numbers as the shortest decimals that read back as they were.
#pragma once

#include <charconv>
#include <string>

namespace dcrnn_fast::server {

template <typename Float>
void append_shortest(std::string& out, Float value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof(text), value).ptr;
  out.append(text, end);
}

// Without an exponent.
inline std::string decimal(double value) {
  char text[400];
  return {text, std::to_chars(text, text + sizeof(text), value, std::chars_format::fixed).ptr};
}

}  // namespace dcrnn_fast::server
