// Columns that an encoder derives from those of a request: values of lists, crosses of columns, parts of a time.
#pragma once

#include <boost/json/object.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cells.h"

namespace dcrnn_fast::server {

struct Derived {
  enum Kind { cross, value, hour, weekday, day, constant };
  std::string name;
  Kind kind = cross;
  std::vector<std::string> sources;  // of one that is no cross, a single column; of a constant none
  std::string text;                  // of a constant
  std::string separator;             // empty where there is none
  std::size_t position = 0;
  std::string unit;           // empty where there is none
  std::optional<bool> zoned;  // whether the times have a zone, or are numbers, if it is known
};

// The columns that encoder.json's `derived` defines, each behind those that it reads. Throws std::exception for what it does not support.
std::vector<Derived> read_derived(const boost::json::object& definitions);

// The text of several columns' cells, for a cross.
Column crossed(const Derived& derived, std::span<const Column* const> columns, std::size_t rows);

// The same text in all rows, of a column that is known in training alone.
Column constant_column(const Derived& derived);

// Hour, weekday (Monday: 0) or day of the month, in UTC.
Column part_of_time(const Derived& derived, const Column& times);

}  // namespace dcrnn_fast::server
