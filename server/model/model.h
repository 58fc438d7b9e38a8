// A package of `dcrnn-fast export --format aoti`: its description, its encoder and its engine.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
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

// The model that scores new requests, until another one takes its place. Requests that have begun end with theirs.
class Models {
 public:
  explicit Models(std::shared_ptr<const Model> first) : current_(std::move(first)) {}

  std::shared_ptr<const Model> current() const {
    const std::lock_guard lock(mutex_);
    return current_;
  }

  void replace(std::shared_ptr<const Model> next) {
    const std::lock_guard lock(mutex_);
    current_.swap(next);
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const Model> current_;
};

}  // namespace dcrnn_fast::server
