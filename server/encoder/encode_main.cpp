// dcrnn_fast_encode ENCODER_JSON DESCRIPTION_JSON < requests.jsonl
//
// Prints for each request a line of JSON: {"ids": [[...], ...], "dense": [[...], ...]}, dense values as the bits of their float32, or
// {"error": "..."}. With --repeat N as the third argument it encodes each request N times and prints to stderr what one took.
#include <bit>
#include <boost/json/array.hpp>
#include <boost/json/monotonic_resource.hpp>
#include <boost/json/serialize.hpp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>

#include "../json/json_text.h"
#include "encoder.h"

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

Encoded encoded(const Encoder& encoder, std::string_view line) {
  json::monotonic_resource memory;
  const json::value request = parse_json(line, &memory);
  if (!request.is_object() || big_integer(request))
    throw BadRequest("the request is " + shown(request) + ", expected an object with columns");
  return encoder.encode(request.get_object(), kMaxRows);
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

json::object answer(const Encoder& encoder, std::string_view line, long repeats) {
  try {
    const std::clock_t start = std::clock();
    for (long i = 1; i < repeats; ++i) encoded(encoder, line);
    const Encoded found = encoded(encoder, line);
    if (repeats > 1) {
      const double took = 1e6 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
      std::fprintf(stderr, "%lld rows: %.1f us of a CPU, parsing included\n", static_cast<long long>(found.rows), took / repeats);
    }
    return {{"ids", rows_of(found.ids, found.rows, [](std::int64_t id) { return id; })},
            {"dense", rows_of(found.dense, found.rows, [](float value) { return std::bit_cast<std::uint32_t>(value); })}};
  } catch (const BadRequest& error) {
    return {{"error", error.what()}};
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool repeated = argc == 5 && std::string_view(argv[3]) == "--repeat";
  if (argc != 3 && !repeated) {
    std::fprintf(stderr, "usage: %s ENCODER_JSON DESCRIPTION_JSON [--repeat N] < requests.jsonl\n", argv[0]);
    return 2;
  }
  try {
    const Encoder encoder(read_json(argv[1]), read_json(argv[2]));
    for (std::string line; std::getline(std::cin, line);)
      std::cout << json::serialize(answer(encoder, line, repeated ? std::atol(argv[4]) : 1)) << '\n';
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
