// The model that scores new requests, and how another one takes its place.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "model.h"

namespace dcrnn_fast::server {

class Models {
 public:
  // Loads the package. Throws ModelError.
  Models(std::string path, std::size_t threads) : path_(std::move(path)), threads_(threads), current_(load_model(path_, threads_)) {}

  std::shared_ptr<const Model> current() const {
    const std::lock_guard lock(mutex_);
    return current_;
  }

  // Loads the package at the same path again. Throws ModelError, and then the earlier model stays. Requests that have begun end with
  // theirs.
  void reload() {
    std::shared_ptr<const Model> next = load_model(path_, threads_);
    const std::lock_guard lock(mutex_);
    current_.swap(next);
  }

 private:
  const std::string path_;
  const std::size_t threads_;
  mutable std::mutex mutex_;
  std::shared_ptr<const Model> current_;
};

}  // namespace dcrnn_fast::server
