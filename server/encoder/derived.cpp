#include "derived.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/string.hpp>
#include <stdexcept>
#include <utility>

#include "../json/json_text.h"

namespace dcrnn_fast::server {
namespace {

namespace json = boost::json;

[[noreturn]] void refuse(std::string_view name, const std::string& problem) {
  throw std::runtime_error("encoder.json: derived column " + in_quotes(name) + " " + problem);
}

std::string text_of(std::string_view name, std::string_view key, const json::value& value) {
  if (!value.is_string() || value.get_string().empty())
    refuse(name, "has the " + std::string(key) + " " + shown(value) + ", expected text");
  return std::string(value.get_string());
}

Derived read_one(std::string_view name, const json::value& definition) {
  const json::object* const object = definition.if_object();
  const json::value* const cross = object ? object->if_contains("cross") : nullptr;
  if (!object || (cross ? object->size() != 1 || !cross->is_array() || cross->get_array().size() < 2 : !object->contains("column")))
    refuse(name, "is defined by " + shown(definition) + ", expected a column with a value or a part of its time, or a cross of columns");
  Derived derived;
  derived.name = name;
  if (cross) {
    for (const json::value& source : cross->get_array()) derived.sources.push_back(text_of(name, "cross of", source));
    return derived;
  }
  bool told = false;
  for (const auto& [key, value] : *object) {
    if (key == "column") {
      derived.sources.push_back(text_of(name, key, value));
    } else if (key == "value" && value.is_int64() && value.get_int64() >= 0) {
      derived.kind = Derived::value, derived.position = static_cast<std::size_t>(value.get_int64()), told = true;
    } else if (key == "as" && (value == "hour" || value == "weekday" || value == "day")) {
      derived.kind = value == "hour" ? Derived::hour : value == "weekday" ? Derived::weekday : Derived::day, told = true;
    } else if (key == "separator") {
      derived.separator = text_of(name, key, value);
    } else if (key == "unit" && (value == "s" || value == "ms" || value == "us" || value == "ns")) {
      derived.unit = text_of(name, key, value);
    } else if (key == "timezone") {
      if (value != "UTC")
        refuse(name, "has the time zone " + shown(value) +
                         ", and this program knows UTC alone; serve with `dcrnn-fast serve`, or train on "
                         "a column that holds the " +
                         shown(object->if_contains("as") ? object->at("as") : value) + " itself");
    } else {
      refuse(name,
             "has the key " + in_quotes(key) + " with " + shown(value) + ", which this program does not know; build its newest version");
    }
  }
  if (!told) refuse(name, "is defined by " + shown(definition) + ", expected a value or a part of a time");
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

}  // namespace

std::vector<Derived> read_derived(const json::value& definitions) {
  if (!definitions.is_object())
    throw std::runtime_error("encoder.json: derived is " + shown(definitions) + ", expected a definition by column");
  std::vector<Derived> waiting, ordered;
  for (const auto& [name, definition] : definitions.get_object()) waiting.push_back(read_one(name, definition));
  const auto made_later = [&](const std::string& name) {
    return std::ranges::any_of(waiting, [&](auto& one) { return one.name == name; });
  };
  while (!waiting.empty()) {
    const auto next = std::ranges::find_if(waiting, [&](const Derived& one) { return std::ranges::none_of(one.sources, made_later); });
    if (next == waiting.end()) refuse(waiting.front().name, "needs itself; export the run again");
    const bool of_derived = std::ranges::any_of(ordered, [&](const Derived& one) { return one.name == next->sources[0]; });
    if (next->kind != Derived::cross && of_derived) refuse(next->name, "reads a column that is derived, expected one of the request");
    ordered.push_back(std::move(*next));
    waiting.erase(next);
  }
  return ordered;
}

Column crossed(const Derived& derived, std::span<const Column* const> columns, std::size_t rows) {
  const bool shared = std::ranges::all_of(columns, [](const Column* column) { return column->source.shared; });
  Column out{{derived.name, {}, shared}, std::vector<Cell>(shared ? 1 : rows), {}};
  out.texts.resize(out.cells.size());
  Speller speller;
  for (const Column* const column : columns) {
    check_digits(*column);
    const std::size_t size = column->source.shared && !shared ? speller(column->cell(0)).size() : 0;
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
      append_escaped(text, speller(cell));
    }
    if (any) out.cells[row] = Cell(std::string_view(text));
  }
  return out;
}

}  // namespace dcrnn_fast::server
