// Counts the cells of scored rows that a model does not know, and says which fields and numbers are no longer as in the train rows, by the
// rules of dcrnn_fast/serving/unseen.py.
#pragma once

#include <boost/json/object.hpp>
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
    Rates trained, valid, now;
    double rows = 0, unknown = 0, missing = 0, runs = 0;  // runs of equal cells
    std::int64_t last = -1;
    bool told = false;
  };
  // A dense column, and the range of nearly all of its train values.
  struct Number {
    std::string name;
    std::size_t column;
    double low, high;
    double rows = 0, below = 0, above = 0, runs = 0;
    float last = 0;
    bool told = false;
  };

  // Reads the fields and the numbers of the package's description. Throws std::exception.
  explicit Unseen(const boost::json::object& about);

  // Counts a request's rows. Cells that are one throughout count once. Returns a line for each field and number that is now seen to be
  // other than in the train rows.
  std::vector<std::string> add(const Encoded& request);

  // The fields with their rates in about the last 2,000 rows.
  std::vector<Field> fields() const;

 private:
  mutable std::mutex mutex_;
  std::vector<Field> fields_;
  std::vector<Number> numbers_;
  std::size_t dense_ = 0;  // columns
  double requests_ = 0;
};

}  // namespace dcrnn_fast::server
