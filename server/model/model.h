// A package of `dcrnn-fast export --format aoti`: its description, its encoder and its engine.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../encoder/encoder.h"
#include "engine.h"
#include "unseen.h"

namespace dcrnn_fast::server {

// A package cannot be loaded. The message names it and says what to do.
struct ModelError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Model {
  std::string id;                 // 12 hexadecimal digits
  std::string written_by, torch;  // the versions that wrote it
  std::vector<std::string> names, tasks;
  Encoder encoder;
  std::unique_ptr<Unseen> unseen;
  std::unique_ptr<Engine> engine;
};

// Reads every byte of the package, checks that it fits this program and this machine, and scores a row with it. `threads` are those that
// will score at the same time. Throws ModelError.
std::shared_ptr<const Model> load_model(const std::string& path, std::size_t threads);

}  // namespace dcrnn_fast::server
