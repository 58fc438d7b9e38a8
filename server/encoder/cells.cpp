#include "cells.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/string.hpp>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "../json/json_text.h"

namespace dcrnn_fast::server {
namespace {

namespace json = boost::json;

Cell cell_of(const json::value& value) {
  if (const json::string* const text = value.if_string()) return Cell(std::string_view(*text));
  if (const std::int64_t* const integer = value.if_int64()) return Cell(*integer);
  if (const double* const number = value.if_double()) return Cell(*number);
  if (const bool* const truth = value.if_bool()) return Cell(*truth);
  if (const json::string* const digits = big_integer(value)) return Cell(std::string_view(*digits), Cell::big_integer);
  return {};
}

bool is_single(const json::value& value) { return !value.is_array() && (!value.is_object() || big_integer(value)); }

bool is_whole(Cell::Kind kind) { return kind == Cell::integer || kind == Cell::big_integer; }

bool is_exact(const Cell& cell) { return cell.kind == Cell::integer && cell.integer_ <= kExact && cell.integer_ >= -kExact; }

std::string words(Cell::Kind kind) {
  return kind == Cell::text ? "text" : kind == Cell::truth ? "true or false" : kind == Cell::number ? "a number" : "an integer";
}

std::string as_shown(const Cell& cell) {
  if (cell.kind == Cell::text) return shown(cell.text_);
  std::string buffer, text(spelled(cell, buffer));
  return text.size() <= 40 ? text : text.substr(0, 40) + "...";
}

[[noreturn]] void refuse(const Source& source, std::size_t row, const Cell& cell, const std::string& expected) {
  throw BadRequest(source.at(row) + " holds " + as_shown(cell) + ", expected " + expected);
}

// The cell as one of a column of numbers. Truth values stand beside floating-point numbers as 0 and 1, as Arrow reads them.
Cell as_number(const Source& source, std::size_t row, const Cell& cell) {
  double value = cell.number_;
  if (cell.kind == Cell::missing) return cell;
  if (cell.kind == Cell::truth) value = cell.truth_;
  if (cell.kind == Cell::integer) value = static_cast<double>(cell.integer_);
  if (cell.kind == Cell::text) refuse(source, row, cell, "a number or null, like other cells of this column; give all cells one type");
  if (is_whole(cell.kind) && !is_exact(cell))
    refuse(source, row, cell,
           "an integer within 2^53 in a column of numbers, for float64 holds no more of them; write larger ones as text");
  return Cell(value);
}

void check_64_bits(const Source& source, std::size_t row, const Cell& cell) {
  if (cell.kind == Cell::big_integer) refuse(source, row, cell, "an integer of 64 bits; write it as text");
}

// A whole number has its digits. Another one is written as Arrow does: the shortest digits that read back, and an exponent below 1e-6 and
// from 1e10 on, without a zero before it.
std::string_view float_text(double value, std::string& out) {
  char buffer[40];
  const double size = std::abs(value);
  if (size < kExact && value == std::floor(value))
    return out.assign(buffer, std::to_chars(buffer, std::end(buffer), static_cast<std::int64_t>(value)).ptr);
  const auto format = size >= 1e-6 && size < 1e10 ? std::chars_format::fixed : std::chars_format::scientific;
  out.assign(buffer, std::to_chars(buffer, std::end(buffer), value, format).ptr);
  if (const std::size_t exponent = out.find("e-0"); exponent != out.npos) out.erase(exponent + 2, 1);
  return out;
}

// The digits of a text that is a whole number with a point, as a float is written, such as 12.0; empty for another text.
std::string_view whole_number(std::string_view text) {
  const std::size_t point = text.find('.');
  if (!text.ends_with('0') || point == text.npos || text.find_first_not_of('0', point + 1) != text.npos) return {};
  const std::string_view whole = text.substr(0, point);
  const std::string_view digits = whole.substr(whole.starts_with('-'));
  const bool is_whole = !digits.empty() && digits.find_first_not_of("0123456789") == digits.npos && (digits[0] != '0' || whole == "0");
  return is_whole ? whole : std::string_view();
}

// Whether a text reads as one of the two that a vocabulary reserves, whatever backslashes stand before it.
bool is_reserved(std::string_view text) {
  if (!text.ends_with('>')) return false;
  text.remove_prefix(std::min(text.find_first_not_of('\\'), text.size()));
  return text == kMissing || text == kOov;
}

// A text as a number of a CSV file is read: spaces around it, a + before its -, and a _ between two digits do not count.
std::string as_in_csv(std::string_view text) {
  constexpr std::string_view spaces = " \t\n\v\f\r";
  const auto is_digit = [&](std::size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
  text.remove_prefix(std::min(text.find_first_not_of(spaces), text.size()));
  text = text.substr(0, text.find_last_not_of(spaces) + 1);
  if (text.starts_with("+-")) text.remove_prefix(1);
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i)
    if (text[i] != '_' || !is_digit(i - 1) || !is_digit(i + 1)) plain += text[i];
  return plain;
}

}  // namespace

void check_digits(const Column& column) {
  for (std::size_t row = 0; row < column.cells.size(); ++row)
    if (const Cell& cell = column.cells[row]; cell.kind == Cell::number && std::abs(cell.number_) >= kExact)
      refuse(column.source, row, cell, "an integer or text, for from 2^53 on a float may have lost digits");
}

bool parse_number(std::string_view text, double& value) {
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end != text.data() + text.size()) return false;
  if (error == std::errc::result_out_of_range) value = std::strtod(std::string(text).c_str(), nullptr);
  return error != std::errc::invalid_argument;
}

std::string Source::at(std::size_t row) const {
  const std::string column = "column " + in_quotes(name);
  return shared ? "shared " + column : column + ", row " + std::to_string(row + 1) + ":";
}

Column single_values(const Source& source, bool within64) {
  Column column{source, std::vector<Cell>(source.cells.size()), {}};
  Cell::Kind kind = Cell::missing;
  for (std::size_t row = 0; row < source.cells.size(); ++row) {
    if (!is_single(source.cells[row]))
      throw BadRequest(source.at(row) + " holds " + shown(source.cells[row]) +
                       ", expected one value: text, an integer, a number, true, false or null");
    Cell cell = cell_of(source.cells[row]);
    if (within64) check_64_bits(source, row, cell);
    if (kind == Cell::missing || (is_whole(kind) && is_whole(cell.kind))) {
      kind = cell.kind;
    } else if (is_whole(kind) && cell.kind == Cell::number) {
      for (std::size_t before = 0; before < row; ++before) {
        if (is_whole(column.cells[before].kind) && !is_exact(column.cells[before]))
          refuse(source, row, cell,
                 "an integer or null, for " + as_shown(column.cells[before]) + " before it is not a float64; give all cells one type");
        column.cells[before] = as_number(source, before, column.cells[before]);
      }
      kind = Cell::number;
    } else if (kind == Cell::number) {
      cell = as_number(source, row, cell);
    } else if (cell.kind != kind && cell.kind != Cell::missing) {
      refuse(source, row, cell, words(kind) + " or null, like the cells before it; give all cells of a column one type");
    }
    column.cells[row] = cell.kind == Cell::text && cell.text_.empty() ? Cell() : cell;
  }
  return column;
}

Values::Values(const Source& source, std::string_view separator) : source_(source) {
  const json::value* first = nullptr;
  for (std::size_t row = 0; row < source.cells.size(); ++row) {
    const json::value& cell = source.cells[row];
    if (cell.is_null()) continue;
    if (first == nullptr) first = &cell;
    if (!(cell.is_array() || cell.is_string()) || cell.kind() != first->kind())
      throw BadRequest(source.at(row) + " holds " + shown(cell) + ", expected a list of texts or of numbers, or null" +
                       (separator.empty() ? "" : ", or in all rows text that " + in_quotes(separator) + " divides"));
    if (cell.is_string() && separator.empty())
      throw BadRequest(source.at(row) + " holds " + shown(cell) + ", expected a list or null; put single values in lists");
  }
  ends_.reserve(source.cells.size());
  if (first != nullptr && first->is_string())
    split(separator);
  else
    flatten();
}

void Values::split(std::string_view separator) {
  for (const json::value& cell : source_.cells) {
    std::string_view rest;
    if (const json::string* const text = cell.if_string()) rest = *text;
    for (std::size_t end = 0; end != rest.npos;) {
      end = rest.find(separator);
      if (const std::string_view value = rest.substr(0, end); !value.empty()) values_.push_back(Cell(value));
      if (end != rest.npos) rest.remove_prefix(end + separator.size());
    }
    ends_.push_back(values_.size());
  }
}

void Values::flatten() {
  const auto bit = [](Cell::Kind kind) { return 1u << kind; };
  unsigned held = 0, scanned = 0;  // the kinds of values, and of those that Arrow scans: of each list integers on, and one other value
  bool inexact = false;
  Cell::Kind kind = Cell::text;  // as Arrow infers it
  const std::size_t rows = source_.cells.size();
  std::size_t bad = rows;  // from this row on, Arrow does not make values of that kind of them all
  for (std::size_t row = 0; row < rows; ++row) {
    const json::array* const list = source_.cells[row].if_array();
    if (list == nullptr) continue;
    bool scans = true;
    for (const json::value& value : *list) {
      if (!is_single(value)) throw BadRequest(source_.at(row) + " holds " + shown(value) + " in a list, expected texts or numbers");
      const Cell cell = cell_of(value);
      check_64_bits(source_, row, cell);
      held |= bit(cell.kind);
      inexact |= cell.kind == Cell::integer && !is_exact(cell);
      if (scans) scanned |= bit(cell.kind);
      scans &= cell.kind == Cell::missing || cell.kind == Cell::integer;
    }
    for (const Cell::Kind other : {Cell::truth, Cell::integer, Cell::number})
      if (scanned & bit(other)) kind = other;
    const bool fits = kind == Cell::number ? !inexact && !(held & bit(Cell::text)) : !(held & ~(bit(kind) | bit(Cell::missing)));
    bad = fits ? rows : std::min(bad, row);
  }
  if (bad < rows)
    throw BadRequest(source_.at(bad) + " holds " + shown(source_.cells[bad]) +
                     ", and not all its values and those before it are of one type: texts, integers, numbers, or true and false");
  for (std::size_t row = 0; row < rows; ++row) {
    if (const json::array* const list = source_.cells[row].if_array())
      for (const json::value& value : *list) {
        const Cell cell = kind == Cell::number ? as_number(source_, row, cell_of(value)) : cell_of(value);
        if (cell.kind != Cell::missing && !(cell.kind == Cell::text && cell.text_.empty())) values_.push_back(cell);
      }
    ends_.push_back(values_.size());
  }
}

Column Values::at(std::size_t position) const {
  Column column{source_, std::vector<Cell>(ends_.size()), {}};
  for (std::size_t row = 0; row < ends_.size(); ++row) {
    const std::size_t start = row == 0 ? 0 : ends_[row - 1];
    if (position < ends_[row] - start) column.cells[row] = values_[start + position];
  }
  return column;
}

std::vector<double> numbers(const Column& column) {
  std::vector<double> values;
  values.reserve(column.cells.size());
  for (std::size_t row = 0; row < column.cells.size(); ++row) {
    const Cell& cell = column.cells[row];
    double value = std::numeric_limits<double>::quiet_NaN();
    if (cell.kind == Cell::text) {
      if (!parse_number(as_in_csv(cell.text_), value)) refuse(column.source, row, cell, "a number, or null if it is missing");
    } else if (cell.kind != Cell::missing) {
      value = as_number(column.source, row, cell).number_;
    }
    if (std::isinf(value)) refuse(column.source, row, cell, "a finite number, or null if it is missing");
    values.push_back(value);
  }
  return values;
}

std::string_view spelled(const Cell& cell, std::string& buffer) {
  switch (cell.kind) {
    case Cell::missing:
      return kMissing;
    case Cell::text:
      if (const std::string_view whole = whole_number(cell.text_); !whole.empty()) return whole;
      return is_reserved(cell.text_) ? std::string_view(buffer.assign("\\").append(cell.text_)) : cell.text_;
    case Cell::integer: {
      char digits[20];
      return buffer.assign(digits, std::to_chars(digits, std::end(digits), cell.integer_).ptr);
    }
    case Cell::big_integer:
      return cell.text_;
    case Cell::truth:
      return cell.truth_ ? "true" : "false";
    case Cell::number:
      return float_text(cell.number_, buffer);
  }
  std::abort();
}

}  // namespace dcrnn_fast::server
