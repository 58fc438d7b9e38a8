#pragma once

#include <stdexcept>

namespace dcrnn_fast::server {

// The client must correct its request. The message is one line of UTF-8: the column, the row from 1, what came, what was expected.
struct BadRequest : std::runtime_error {
  using runtime_error::runtime_error;
};

}  // namespace dcrnn_fast::server
