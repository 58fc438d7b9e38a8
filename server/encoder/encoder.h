// Encodes raw columns as dcrnn_fast.data.Encoder does, to the bit, without Python. Needs the headers of Boost alone.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../json/json_text.h"
#include "cells.h"

namespace dcrnn_fast::server {

// What the model reads of some rows, row by row: `ids` [rows, F], `dense` [rows, Nd]; and of each column of ids whether all its cells are
// one, `alike` [F].
struct Encoded {
  std::int64_t rows = 0;
  std::vector<std::int64_t> ids;
  std::vector<float> dense;
  std::vector<bool> alike;
};

class TextIds;

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
  const std::vector<std::string>& columns() const { return wanted_; }

 private:
  struct TextField {
    std::size_t position;
    std::shared_ptr<const TextIds> ids;
  };
  struct Buckets {
    std::size_t position;
    std::vector<double> edges;
  };
  struct Scale {
    std::size_t position;
    bool log1p;
    double mean, std;
  };
  // What is made of a column.
  struct Uses {
    std::vector<TextField> texts;
    std::vector<Buckets> buckets;
    std::vector<Scale> scales;
  };

  void add_fields(const boost::json::object& encoding, const boost::json::array& fields);
  void add_dense(const boost::json::object& scaling, const boost::json::array& dense);
  std::size_t column(std::string_view name) const { return column_of_.find(name)->second; }
  std::vector<Source> sources_of(const boost::json::object& request, std::int64_t max_rows, std::size_t& rows) const;
  std::vector<Column> derive(const std::vector<Source>& sources, std::size_t rows) const;

  std::size_t num_fields_, num_dense_;
  std::vector<Derived> derived_;
  std::vector<std::string> wanted_;  // of the request; `column_of_` and `uses_` have the derived columns behind them
  std::vector<bool> wanted_by_derived_, wanted_as_cells_;
  std::map<std::string, std::size_t, std::less<>> column_of_;
  std::vector<Uses> uses_;
};

}  // namespace dcrnn_fast::server
