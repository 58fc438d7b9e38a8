#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/string.hpp>
#include <boost/json/value_to.hpp>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <utility>

#include "../json/json_text.h"
#include "cells.h"

namespace dcrnn_fast::server {
namespace {

namespace json = boost::json;

[[noreturn]] void refuse(std::string_view name, const std::string& problem) {
  throw std::runtime_error("encoder.json: derived column " + in_quotes(name) + " " + problem);
}

Derived read_one(std::string_view name, const json::object& definition) {
  Derived derived;
  derived.name = name;
  for (const auto& [key, value] : definition) {
    if (key == "constant") {
      derived.kind = Derived::constant, derived.text = value.as_string();
    } else if (key == "cross") {
      derived.sources = json::value_to<std::vector<std::string>>(value);
    } else if (key == "column") {
      derived.sources.emplace_back(value.as_string());
    } else if (key == "value") {
      derived.kind = Derived::value, derived.position = value.to_number<std::size_t>();
    } else if (key == "as" && (value == "hour" || value == "weekday" || value == "day")) {
      derived.kind = value == "hour" ? Derived::hour : value == "weekday" ? Derived::weekday : Derived::day;
    } else if (key == "separator") {
      derived.separator = value.as_string();
    } else if (key == "unit" && (value == "s" || value == "ms" || value == "us" || value == "ns")) {
      derived.unit = value.as_string();
    } else if (key == "zoned") {
      derived.zoned = value.as_bool();
    } else if (key == "timezone") {
      if (value != "UTC")
        refuse(name,
               "has the time zone " + shown(value) +
                   ", and this program knows UTC alone; serve with `dcrnn-fast serve`, or train on a column that holds the part itself");
    } else {
      refuse(name,
             "has the key " + in_quotes(key) + " with " + shown(value) + ", which this program does not know; build its newest version");
    }
  }
  if (derived.sources.empty() && derived.kind != Derived::constant) refuse(name, "reads no column; export the run again");
  return derived;
}

// The most characters of a shared cell, counted in every row.
constexpr std::size_t kMostShared = std::size_t{1} << 24;

void append_escaped(std::string& out, std::string_view text) {
  for (const char c : text) {
    if (c == '\\' || c == '|') out += '\\';
    out += c;
  }
}

// Parts of times that are numbers since 1970 or ISO 8601 text, as dcrnn_fast.data.read.derive computes them.
constexpr std::int64_t kMaxSeconds = 100'000'000'000;  // some 3,000 years
constexpr std::int64_t kEarly = 100'000'000;           // in 1973; seconds taken for milliseconds are earlier
constexpr std::int64_t kNanoSeconds = 9'223'372'036;   // as far from 1970 as 64 bits of nanoseconds reach

using Seconds = std::vector<std::optional<std::int64_t>>;

// Floored, as Python divides.
std::int64_t divided(std::int64_t value, std::int64_t by) { return value / by - (value % by < 0); }

std::int64_t per_second(const std::string& unit) {
  return unit == "ms" ? 1'000 : unit == "us" ? 1'000'000 : unit == "ns" ? 1'000'000'000 : 1;
}

std::int64_t floored(double value, std::int64_t per_second) {
  constexpr double limit = 2.0 * kMaxSeconds;
  return static_cast<std::int64_t>(std::clamp(std::floor(value / static_cast<double>(per_second)), -limit, limit));
}

// Takes digits from the front of a text.
std::optional<int> digits(std::string_view& text, std::size_t count, int limit) {
  int value = 0;
  if (text.size() < count) return std::nullopt;
  for (const char c : text.substr(0, count)) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + (c - '0');
  }
  if (value > limit) return std::nullopt;
  text.remove_prefix(count);
  return value;
}

bool took(std::string_view& text, char c) {
  if (!text.starts_with(c)) return false;
  text.remove_prefix(1);
  return true;
}

struct Moment {
  std::int64_t seconds = 0;
  bool zoned = false, nanoseconds = false;
};

// The offset of a zone in seconds, of all that is left of a text: Z, +hh, +hhmm or +hh:mm.
std::optional<std::int64_t> zone(std::string_view text) {
  if (text == "Z") return 0;
  const int sign = text.starts_with('-') ? -1 : 1;
  if (!took(text, '+') && !took(text, '-')) return std::nullopt;
  const auto hours = digits(text, 2, 23);
  if (hours && text.empty()) return sign * *hours * 3600;
  took(text, ':');
  const auto minutes = digits(text, 2, 59);
  if (!hours || !minutes || !text.empty()) return std::nullopt;
  return sign * (*hours * 3600 + *minutes * 60);
}

std::optional<Moment> moment(std::string_view text) {
  const auto year = digits(text, 4, 9999);
  const auto month = took(text, '-') ? digits(text, 2, 12) : std::nullopt;
  const auto day = took(text, '-') ? digits(text, 2, 31) : std::nullopt;
  if (!year || !month || !day) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(*year), std::chrono::month(*month), std::chrono::day(*day)};
  if (!date.ok()) return std::nullopt;
  Moment moment{std::chrono::sys_days(date).time_since_epoch().count() * std::int64_t{86'400}};
  if (text.empty()) return moment;
  if (!took(text, 'T') && !took(text, ' ')) return std::nullopt;
  for (const auto& [seconds, limit] : {std::pair{3600, 23}, {60, 59}, {1, 59}}) {
    if (seconds != 3600 && !took(text, ':')) break;
    const auto part = digits(text, 2, limit);
    if (!part) return std::nullopt;
    moment.seconds += *part * seconds;
    if (seconds == 1 && took(text, '.')) {
      const std::size_t count = std::min(text.find_first_not_of("0123456789"), text.size());
      if (count < 1 || count > 9) return std::nullopt;
      moment.nanoseconds = count > 6;
      text.remove_prefix(count);
    }
  }
  if (text.empty()) return moment;
  const auto offset = zone(text);
  if (!offset) return std::nullopt;
  moment.seconds -= *offset, moment.zoned = true;
  return moment;
}

bool is_date(std::int64_t number) {
  const std::int64_t year = number / 10'000, month = number / 100 % 100, day = number % 100;
  return year >= 1970 && year <= 2100 && month >= 1 && month <= 12 && day >= 1 && day <= 31;
}

class Times {
 public:
  Times(const Derived& derived, const Column& column)
      : derived_(derived), column_(column), per_second_(per_second(derived.unit)), seconds_(column.cells.size()) {}

  Seconds seconds() {
    const bool numbers = are_numbers() || are_whole_texts() || are_number_texts();
    if (!numbers) moments();
    bool dates = numbers && derived_.unit.empty(), early = numbers;
    std::optional<std::size_t> first;
    for (std::size_t row = 0; row < seconds_.size(); ++row) {
      if (!seconds_[row]) continue;
      if (!first) first = row;
      if (*seconds_[row] >= kMaxSeconds || *seconds_[row] <= -kMaxSeconds)
        refuse(row, "a time within 3,000 years of 1970; is derived column " + in_quotes(derived_.name) + " of the right `unit`?");
      dates &= is_date(*seconds_[row]);
      early &= *seconds_[row] > 0 && *seconds_[row] < kEarly && *seconds_[row] * per_second_ >= kEarly;
    }
    if (early && first)
      refuse(*first, "another time than of 1970 to 1973, as all others here are: give derived column " + in_quotes(derived_.name) +
                         " numbers in its unit, " + derived_.unit);
    if (dates && first)
      refuse(*first, "seconds since 1970, and it looks like a date: write dates as 2024-05-31, or give derived column " +
                         in_quotes(derived_.name) + " `unit: s`");
    if (first && derived_.zoned.value_or(zoned_) != zoned_)
      refuse(*first, *derived_.zoned ? "a time with a zone (Z, +02:00), or a number, as the train rows hold"
                                     : "a time without a zone, as the train rows hold");
    return std::move(seconds_);
  }

 private:
  [[noreturn]] void refuse(std::size_t row, const std::string& expected) const {
    throw BadRequest(column_.source.at(row) + " holds " + shown(column_.source.cells[row]) + ", expected " + expected);
  }

  // Applies `read` to each cell that is not missing, until it is false. The column is then of another kind.
  template <typename Read>
  bool each(Read read) {
    for (std::size_t row = 0; row < seconds_.size(); ++row)
      if (column_.cells[row].kind != Cell::missing && !read(row, column_.cells[row])) return false;
    return true;
  }

  bool are_numbers() {
    return each([&](std::size_t row, const Cell& cell) {
      if (cell.kind == Cell::truth) refuse(row, "a number, a time such as 2024-05-31T23:59:00, or null");
      if (cell.kind == Cell::integer) seconds_[row] = divided(cell.integer_, per_second_);
      if (cell.kind == Cell::number) seconds_[row] = floored(cell.number_, per_second_);
      return cell.kind != Cell::text;
    });
  }

  bool are_whole_texts() {
    return each([&](std::size_t row, const Cell& cell) {
      const char* const stop = cell.text_.data() + cell.text_.size();
      std::int64_t value = 0;
      const auto [end, error] = std::from_chars(cell.text_.data(), stop, value);
      seconds_[row] = divided(value, per_second_);
      return error == std::errc() && end == stop;
    });
  }

  bool are_number_texts() {
    return each([&](std::size_t row, const Cell& cell) {
      double value = 0;
      if (!parse_number(cell.text_, value)) return false;
      seconds_[row] = std::isnan(value) ? std::nullopt : std::optional(floored(value, per_second_));
      return true;
    });
  }

  void moments() {
    std::optional<bool> zoned;
    zoned_ = false;
    bool fine = false, far = false;
    each([&](std::size_t row, const Cell& cell) {
      const std::optional<Moment> found = moment(cell.text_);
      if (!found || found->zoned != zoned.value_or(found->zoned))
        refuse(row, "a number, or a time such as 2024-05-31 or 2024-05-31T23:59:00, in all rows with a zone (Z, +02:00) or without");
      zoned = zoned_ = found->zoned, seconds_[row] = found->seconds;
      fine |= found->nanoseconds, far |= std::abs(found->seconds) >= kNanoSeconds;
      if (fine && far) refuse(row, "a time between 1678 and 2262 where cells of the column have nanoseconds");
      return true;
    });
  }

  const Derived& derived_;
  const Column& column_;
  const std::int64_t per_second_;
  Seconds seconds_;
  bool zoned_ = true;  // as numbers are
};

}  // namespace

std::vector<Derived> read_derived(const json::object& definitions) {
  std::vector<Derived> waiting, ordered;
  for (const auto& [name, definition] : definitions) waiting.push_back(read_one(name, definition.as_object()));
  const auto reads_one = [](const Derived& one, const std::vector<Derived>& of) {
    return std::ranges::any_of(of, [&](auto& other) { return std::ranges::find(one.sources, other.name) != one.sources.end(); });
  };
  while (!waiting.empty()) {
    const auto next = std::ranges::find_if(waiting, [&](const Derived& one) { return !reads_one(one, waiting); });
    if (next == waiting.end()) refuse(waiting.front().name, "needs itself; export the run again");
    if (next->kind != Derived::cross && reads_one(*next, ordered))
      refuse(next->name, "reads a column that is derived, expected one of the request");
    ordered.push_back(std::move(*next));
    waiting.erase(next);
  }
  return ordered;
}

Column crossed(const Derived& derived, std::span<const Column* const> columns, std::size_t rows) {
  const bool shared = std::ranges::all_of(columns, [](const Column* column) { return column->source.shared; });
  Column out{{derived.name, {}, shared}, std::vector<Cell>(shared ? 1 : rows), {}};
  out.texts.resize(out.cells.size());
  std::string buffer;
  for (const Column* const column : columns) {
    check_digits(*column);
    const std::size_t size = column->source.shared && !shared ? spelled(column->cell(0), buffer).size() : 0;
    if (size > kMostShared / rows)
      throw BadRequest(column->source.at(0) + " holds " + std::to_string(size) + " characters for each of " + std::to_string(rows) +
                       " rows, which derived column " + in_quotes(derived.name) + " would repeat, expected at most " +
                       std::to_string(kMostShared) + " in all; shorten it, or send fewer rows at once");
  }
  for (std::size_t row = 0; row < out.cells.size(); ++row) {
    std::string& text = out.texts[row];
    bool any = false;
    for (const Column* const column : columns) {
      const Cell& cell = column->cell(row);
      any |= cell.kind != Cell::missing;
      if (column != columns.front()) text += '|';
      append_escaped(text, spelled(cell, buffer));
    }
    if (any) out.cells[row] = Cell(std::string_view(text));
  }
  return out;
}

Column part_of_time(const Derived& derived, const Column& times) {
  const Seconds seconds = Times(derived, times).seconds();
  Column out{times.source, std::vector<Cell>(seconds.size()), {}};
  for (std::size_t row = 0; row < seconds.size(); ++row) {
    if (!seconds[row]) continue;
    const std::int64_t days = divided(*seconds[row], 86'400), hour = divided(*seconds[row] - days * 86'400, 3600);
    const std::chrono::year_month_day date{std::chrono::sys_days(std::chrono::days(days))};
    const std::int64_t weekday = ((days + 3) % 7 + 7) % 7;  // 1970 began on a Thursday
    const std::int64_t day = static_cast<unsigned>(date.day());
    out.cells[row] = Cell(derived.kind == Derived::hour ? hour : derived.kind == Derived::weekday ? weekday : day);
  }
  return out;
}

}  // namespace dcrnn_fast::server
