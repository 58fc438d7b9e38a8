// The command line.
#pragma once

#include <chrono>
#include <stdexcept>
#include <string>
#include <vector>

#include "http/batcher.h"
#include "http/connections.h"
#include "http/service.h"

namespace dcrnn_fast::server {

// parse_options has the defaults.
struct Options {
  std::string model;
  HttpOptions http{};
  Limits limits{};
  Batcher::Limits scoring{};
  std::size_t io_threads = 0;
  std::chrono::seconds grace{};
  bool help = false;
};

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throws UsageError that names the option, what came and what was expected.
Options parse_options(const std::vector<std::string>& arguments);

std::string usage();

}  // namespace dcrnn_fast::server
