// The ids of texts in a field: positions in its vocabulary, or hashes.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/string.hpp>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "cells.h"
#include "md5.h"

namespace dcrnn_fast::server {

class TextIds {
 public:
  // Without `entries`, texts are hashed to 1 + one of `size` - 1 buckets. A missing cell has id 0 in a hashed field, and where `several`
  // says that a cell of the field holds several values. `what` names the entries in messages.
  TextIds(const boost::json::array& entries, std::int64_t size, bool several, const std::string& what)
      : size_(size), hashed_(entries.empty()) {
    std::size_t bytes = 0;
    for (const boost::json::value& entry : entries) {
      if (!entry.is_string())
        throw std::runtime_error(what + " holds " + boost::json::to_string(entry.kind()).data() + ", expected texts; export the run again");
      bytes += entry.get_string().size();
    }
    letters_.reserve(bytes);
    ids_.reserve(entries.size());
    for (std::size_t id = 0; id < entries.size(); ++id) {
      const std::string_view text = entries[id].get_string();
      if (several && text == kMissing) continue;
      const std::size_t start = letters_.size();
      letters_.insert(letters_.end(), text.begin(), text.end());
      ids_.emplace(std::string_view(letters_.data() + start, text.size()), static_cast<std::int64_t>(id));
    }
  }
  TextIds(const TextIds&) = delete;  // the keys point into `letters_`
  TextIds& operator=(const TextIds&) = delete;

  std::int64_t size() const { return size_; }

  // The id of a text as a vocabulary spells it.
  std::int64_t operator()(std::string_view text) const {
    if (hashed_) return text == kMissing ? 0 : 1 + bucket(text);
    const auto found = ids_.find(text);
    return found == ids_.end() ? 0 : found->second;
  }

 private:
  std::int64_t bucket(std::string_view text) const {
    const auto digest = md5(text);
    const std::uint64_t upper = digest[2] | static_cast<std::uint64_t>(digest[3]) << 32;
    return static_cast<std::int64_t>(upper % static_cast<std::uint64_t>(size_ - 1));
  }

  std::int64_t size_;
  bool hashed_;
  std::vector<char> letters_;
  boost::unordered_flat_map<std::string_view, std::int64_t> ids_;
};

}  // namespace dcrnn_fast::server
