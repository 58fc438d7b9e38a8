#include "unseen.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cstdio>
#include <initializer_list>
#include <stdexcept>

#include "../json/json_text.h"

namespace json = boost::json;

namespace dcrnn_fast::server {
namespace {

constexpr double kWindow = 2000;  // rates are those of about the last so many rows
constexpr double kFewest = 20;    // cells, and more, tell whether a field is lost
constexpr double kNearlyAll = 0.95, kDrop = 5, kRise = 0.25;
constexpr double kEnough = 100;  // users, items or numbers, in kFewest requests, say that they are others than before

std::optional<double> share(const json::value& value) {
  if (value.is_null()) return std::nullopt;
  const double number = value.to_number<double>();
  if (!(number >= 0 && number <= 1)) throw std::runtime_error("its cells have the rate " + shown(value));
  return number;
}

std::string percent(double share) {
  char text[16];
  std::snprintf(text, sizeof(text), "%.1f%%", 100 * share);
  return text;
}

double known(const Unseen::Rates& rates) { return 1 - rates.missing.value_or(0); }

// Of the cells that are not missing, those that are out of vocabulary.
std::optional<double> unknown_of_known(const Unseen::Rates& rates) {
  if (!rates.oov || known(rates) <= 0) return std::nullopt;
  return *rates.oov / known(rates);
}

// What part of a field's cells tells the model nothing, of the train, the validation and so many scored cells; none where it is not known.
struct Part {
  std::optional<double> trained, valid, now;
  double cells;
  const char *are, *remedy;
};

std::array<Part, 2> parts_of(const Unseen::Field& field) {
  return {
      {{unknown_of_known(field.trained), unknown_of_known(field.valid), unknown_of_known(field.now), known(field.now) * field.rows,
        field.now.missing ? "that are not missing are out of vocabulary" : "are out of vocabulary or missing",
        "compare its texts with those of the train rows, as 7 and 007, or Oslo and oslo, are two categories; if the categories are really "
        "new, train on newer rows, or use coarser categories"},
       {field.trained.missing, field.valid.missing, field.now.missing, field.rows, "are missing",
        "check that the caller fills the column, and how it writes missing values"}}};
}

// The rule of dcrnn_fast.data.inspect.oov.lost_fields.
bool is_lost(const Part& part) {
  return part.trained && part.now && part.cells >= kFewest && *part.now >= kNearlyAll && *part.trained < kNearlyAll &&
         1 - *part.trained >= kDrop * (1 - *part.now);
}

// The rule of dcrnn_fast.data.inspect.oov.risen_fields.
bool has_risen(const Part& part) {
  if (!part.trained || !part.valid || !part.now) return false;
  const double before = std::max(*part.trained, *part.valid);
  return *part.now >= std::max(before + kRise, 2 * before);
}

// How a field is other than in the train rows; empty if it is not. Only `enough` scored rows say that a part has risen.
std::string changed(const Unseen::Field& field, bool enough) {
  const auto line = [&](const Part& part, const std::string& before) {
    return "field " + in_quotes(field.name) + ": " + percent(*part.now) + " of the scored cells " + part.are + ", but " +
           percent(*part.trained) + before + part.remedy;
  };
  for (const Part& part : parts_of(field))
    if (is_lost(part)) return line(part, " of the train cells: there the field tells the model nothing; ");
  if (enough)
    for (const Part& part : parts_of(field))
      if (has_risen(part)) return line(part, " of the train and " + percent(*part.valid) + " of the validation cells; ");
  return {};
}

// The rule of dcrnn_fast/serving/unseen.py for numbers.
std::string changed(const Unseen::Number& number) {
  const double most = std::max(number.below, number.above) / number.rows;
  if (most <= 0.5) return {};
  return "number " + in_quotes(number.name) + ": " + percent(most) + " of the scored values are " +
         (number.below > number.above ? "below" : "above") +
         " 99% of the train values: compare their units, such as cents with euros; if the scored values are right, train on newer rows";
}

// Lets counts of the last rows make room for so many new ones. The first count is that of the rows.
void make_room(std::initializer_list<double*> counts, std::size_t added) {
  const double rows = **counts.begin(), room = std::max(kWindow - static_cast<double>(added), 0.0);
  if (rows > room)
    for (double* const count : counts) *count *= room / rows;
}

}  // namespace

Unseen::Unseen(const json::object& about) : dense_(about.at("dense").as_array().size()) {
  for (const json::value& one : about.at("cells").as_array()) {
    const json::array& row = one.as_array();
    fields_.push_back({.name = std::string(row.at(0).as_string()),
                       .column = row.at(1).to_number<std::size_t>(),
                       .missing_id = row.at(2).is_null() ? -1 : row.at(2).to_number<std::int64_t>(),
                       .trained = {share(row.at(3)), share(row.at(4))},
                       .valid = row.size() > 5 ? Rates{share(row.at(5)), share(row.at(6))} : Rates{},  // earlier versions did not write it
                       .now = {}});
    if (fields_.back().column >= about.at("fields").as_array().size())
      throw std::runtime_error("its cells name column " + std::to_string(fields_.back().column));
  }
  const json::value* const ranges = about.if_contains("ranges");  // earlier versions did not write them either
  for (std::size_t column = 0; ranges && column < dense_; ++column)
    if (const json::value* const range = ranges->as_object().if_contains(about.at("dense").at(column).as_string()))
      numbers_.push_back({.name = std::string(about.at("dense").at(column).as_string()),
                          .column = column,
                          .low = range->at(0).to_number<double>(),
                          .high = range->at(1).to_number<double>()});
}

std::vector<std::string> Unseen::add(const Encoded& request) {
  const std::size_t rows = static_cast<std::size_t>(request.rows), columns = request.ids.size() / rows;
  std::vector<std::string> lines;
  const auto tell = [&](auto& one, std::string line) {
    if (line.empty()) return;
    one.told = true;
    lines.push_back(std::move(line));
  };
  const std::lock_guard lock(mutex_);
  requests_ += 1;
  for (Field& field : fields_) {
    const std::size_t counted = request.alike[field.column] ? 1 : rows;
    make_room({&field.rows, &field.unknown, &field.missing, &field.runs}, counted);
    for (std::size_t row = 0; row < counted; ++row) {
      const std::int64_t id = request.ids[row * columns + field.column];
      field.unknown += field.trained.oov && id == 0;
      field.missing += id == field.missing_id;
      field.runs += id != field.last;
      field.last = id;
    }
    field.rows += static_cast<double>(counted);
    if (field.trained.oov) field.now.oov = field.unknown / field.rows;
    if (field.trained.missing) field.now.missing = field.missing / field.rows;
    if (field.told || field.unknown + field.missing < kRise * field.rows) continue;
    tell(field, changed(field, requests_ >= kFewest && field.runs >= kEnough));
  }
  for (Number& number : numbers_) {
    const auto value = [&](std::size_t row) { return request.dense[row * dense_ + number.column]; };
    std::size_t counted = 1;  // of values that are one throughout
    for (std::size_t row = 1; row < rows && counted == 1; ++row)
      if (value(row) != value(0)) counted = rows;
    make_room({&number.rows, &number.below, &number.above, &number.runs}, counted);
    for (std::size_t row = 0; row < counted; ++row) {
      const float now = value(row);
      if (now == 0) continue;  // missing
      number.rows += 1;
      number.below += now < number.low;
      number.above += now > number.high;
      number.runs += now != number.last;
      number.last = now;
    }
    if (!number.told && requests_ >= kFewest && number.runs >= kEnough) tell(number, changed(number));
  }
  return lines;
}

std::vector<Unseen::Field> Unseen::fields() const {
  const std::lock_guard lock(mutex_);
  return fields_;
}

}  // namespace dcrnn_fast::server
