// Encodes raw columns as dcrnn_fast.data.Encoder does, to the bit, without Python. Needs the headers of Boost alone.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../json/json_text.h"

namespace dcrnn_fast::server {

// What the model reads of some rows, row by row: `ids` [rows, F], `dense` [rows, Nd]; and of each column of ids whether all its cells are
// one, `alike` [F].
struct Encoded {
  std::int64_t rows = 0;
  std::vector<std::int64_t> ids;
  std::vector<float> dense;
  std::vector<bool> alike;
};

// Immutable once made, so that threads may share it.
class Encoder {
 public:
  // `encoding` is encoder.json, `about` dcrnn_fast.json, both read by parse_json. Throws std::exception for what does not fit each other,
  // and for what this encoder does not support.
  Encoder(const boost::json::object& encoding, const boost::json::object& about);

  // The rows of {"columns": {column: [cell, ...]}, "shared": {column: cell}}, 1 to `max_rows`. A shared cell is looked up once. Throws
  // BadRequest. The request must come from parse_json, which keeps integers beyond 64 bits.
  Encoded encode(const boost::json::object& request, std::int64_t max_rows) const;

  // The columns that a request must hold.
  const std::vector<std::string>& columns() const;

 private:
  struct Plan;
  std::shared_ptr<const Plan> plan_;
};

}  // namespace dcrnn_fast::server
