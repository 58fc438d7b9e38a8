// Counts the cells of scored rows that a model does not know, and finds fields that have lost what they had in the train rows, as
// dcrnn_fast/serving/unseen.py does.
#pragma once

#include <boost/json/array.hpp>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "../encoder/encoder.h"

namespace dcrnn_fast::server {

class Unseen {
 public:
  // The parts of a field's cells that are out of vocabulary and missing; none where it has no such cells.
  struct Rates {
    std::optional<double> oov, missing;
  };
  struct Field {
    std::string name;
    std::size_t column;
    std::int64_t missing_id;  // -1: a missing cell has none
    Rates trained, now;
    double rows = 0, unknown = 0, missing = 0;
    bool told = false;
  };

  // `cells` is the list of the package's description; `columns` is the number of its columns of ids. Throws std::exception.
  Unseen(const boost::json::array& cells, std::size_t columns);

  // Counts a request's rows. A field whose cells are one throughout counts once. Returns a line for each field that is now seen to be lost.
  std::vector<std::string> add(const Encoded& request);

  // The fields with their rates in about the last 2,000 rows.
  std::vector<Field> fields() const;

 private:
  mutable std::mutex mutex_;
  std::vector<Field> fields_;
};

}  // namespace dcrnn_fast::server
