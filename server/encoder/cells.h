// Columns of cells of one kind: those of a request, as dcrnn_fast.data reads lists, and those that an encoder derives from them. They read
// texts where the request holds them.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "../json/json_text.h"

namespace dcrnn_fast::server {

inline constexpr std::string_view kMissing = "<missing>", kOov = "<oov>";
inline constexpr std::int64_t kExact = std::int64_t{1} << 53;  // float64 does not hold every integer beyond

// What a request says of a column: a cell for each row, or one shared cell that all rows have.
struct Source {
  std::string_view name;
  std::span<const boost::json::value> cells;
  bool shared = false;

  // The start of a message: the column, and its row, which counts from 1.
  std::string at(std::size_t row) const;
};

struct Cell {
  enum Kind : std::uint8_t { missing, text, integer, big_integer, truth, number };
  Kind kind = missing;
  union {
    std::int64_t integer_ = 0;
    double number_;
    bool truth_;
  };
  std::string_view text_;  // also the digits of a big integer

  Cell() = default;
  explicit Cell(std::string_view value, Kind kind = text) : kind(kind), text_(value) {}
  explicit Cell(std::int64_t value) : kind(integer), integer_(value) {}
  explicit Cell(double value) : kind(number), number_(value) {}
  explicit Cell(bool value) : kind(truth), truth_(value) {}
};

// The cells of a source, or one for each place of its lists. Of a shared column it has one.
struct Column {
  Source source;
  std::vector<Cell> cells;         // but for missing ones, of one kind; integers may be of both
  std::vector<std::string> texts;  // those that the request does not hold

  const Cell& cell(std::size_t row) const { return cells[source.shared ? 0 : row]; }
};

// The column of cells that hold one value each; an empty text is missing. Integers next to other numbers become numbers. `within64` refuses
// integers beyond 64 bits.
Column single_values(const Source& source, bool within64);

// The values of cells that are lists or, if there is a `separator`, text that it divides. Null and the empty text are not values.
class Values {
 public:
  // `separator` is empty where there is none.
  Values(const Source& source, std::string_view separator);

  // For each row the value that has so many before it.
  Column at(std::size_t position) const;

 private:
  void split(std::string_view separator);
  void flatten();

  Source source_;
  std::vector<Cell> values_;
  std::vector<std::size_t> ends_;  // of each row's values
};

// Throws BadRequest for a whole number among a column's texts that is a float which may have lost digits.
void check_digits(const Column& column);

// float64, NaN where missing. Throws BadRequest for text that is not a number, for integers beyond 2^53 and for infinite numbers.
std::vector<double> numbers(const Column& column);

// Reads text as Arrow does; false for what is not a number. The number may be NaN or infinite.
bool parse_number(std::string_view text, double& value);

// A cell as a vocabulary spells it; what neither the cell nor the program holds is written into `buffer`.
std::string_view spelled(const Cell& cell, std::string& buffer);

// A column that is derived from others: a value of a list, a cross of columns, a part of a time, or one text in all rows.
struct Derived {
  enum Kind { cross, value, hour, weekday, day, constant };
  std::string name;
  Kind kind = cross;
  std::vector<std::string> sources;  // of one that is not a cross, a single column; of a constant none
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

// Hour, weekday (Monday: 0) or day of the month, in UTC.
Column part_of_time(const Derived& derived, const Column& times);

}  // namespace dcrnn_fast::server
