// dcrnn_fast_encode ENCODER_JSON DESCRIPTION_JSON < requests.jsonl
//
// Prints for each request a line of JSON: {"ids": [[...], ...], "dense": [[...], ...]}, dense values as the bits of their float32, or
// {"error": "..."}.
#include <bit>
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>

#include "encoder.h"
#include "json_text.h"

namespace {

namespace json = boost::json;
using namespace dcrnn_fast::server;

constexpr std::int64_t kMaxRows = 10'000;

json::value read_json(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(std::string(path) + " cannot be read; name a file");
  try {
    return parse_json(std::string(std::istreambuf_iterator<char>(file), {}));
  } catch (const BadRequest& error) {
    throw std::runtime_error(std::string(path) + ": " + error.what());
  }
}

template <typename T, typename Shown>
json::array rows_of(const std::vector<T>& values, std::int64_t rows, Shown&& shown) {
  json::array out;
  const std::size_t width = values.size() / rows;
  for (std::int64_t row = 0; row < rows; ++row) {
    json::array& one = out.emplace_back(json::array()).get_array();
    for (std::size_t at = 0; at < width; ++at) one.emplace_back(shown(values[row * width + at]));
  }
  return out;
}

json::object answer(const Encoder& encoder, std::string_view line) {
  try {
    const json::value request = parse_json(line);
    if (!request.is_object()) throw BadRequest("the request is " + shown(request) + ", expected an object with columns");
    const Encoded found = encoder.encode(request.get_object(), kMaxRows);
    return {{"ids", rows_of(found.ids, found.rows, [](std::int64_t id) { return id; })},
            {"dense", rows_of(found.dense, found.rows, [](float value) { return std::bit_cast<std::uint32_t>(value); })}};
  } catch (const BadRequest& error) {
    return {{"error", error.what()}};
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s ENCODER_JSON DESCRIPTION_JSON < requests.jsonl\n", argv[0]);
    return 2;
  }
  try {
    const Encoder encoder(read_json(argv[1]).as_object(), read_json(argv[2]).as_object());
    for (std::string line; std::getline(std::cin, line);) std::cout << json::serialize(answer(encoder, line)) << '\n';
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
