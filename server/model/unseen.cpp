#include "unseen.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <string_view>

#include "../json/json_text.h"

namespace json = boost::json;

namespace dcrnn_fast::server {
namespace {

constexpr double kWindow = 2000;  // rates are those of about the last so many rows
constexpr double kFewest = 20;    // cells, and more, tell whether a field is lost
constexpr double kNearlyAll = 0.95, kDrop = 5;

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

// The rule of dcrnn_fast.data.inspect.oov.lost_fields.
bool is_lost(std::optional<double> before, std::optional<double> now, double cells) {
  return before && now && cells >= kFewest && *now >= kNearlyAll && *before < kNearlyAll && 1 - *before >= kDrop * (1 - *now);
}

std::string line(const Unseen::Field& field, double now, const char* are, double before, const char* remedy) {
  return "field " + in_quotes(field.name) + ": " + percent(now) + " of the scored cells " + are + ", but " + percent(before) +
         " of the train cells: there the field tells the model nothing; " + remedy;
}

std::string lost(const Unseen::Field& field) {
  const auto before = unknown_of_known(field.trained), now = unknown_of_known(field.now);
  if (is_lost(before, now, known(field.now) * field.rows))
    return line(
        field, *now, field.now.missing ? "that are not missing are out of vocabulary" : "are out of vocabulary or missing", *before,
        "compare its texts with those of the train rows, as 7 and 007, or Oslo and oslo, are two categories; if the categories are really new, train "
        "on newer rows, or use coarser categories");
  if (is_lost(field.trained.missing, field.now.missing, field.rows))
    return line(field, *field.now.missing, "are missing", *field.trained.missing,
                "check that the caller fills the column, and how it writes missing values");
  return {};
}

}  // namespace

Unseen::Unseen(const json::array& cells, std::size_t columns) {
  for (const json::value& one : cells) {
    const json::array& row = one.as_array();
    Field field{.name = std::string(row.at(0).as_string()),
                .column = row.at(1).to_number<std::size_t>(),
                .missing_id = row.at(2).is_null() ? -1 : row.at(2).to_number<std::int64_t>(),
                .trained = {share(row.at(3)), share(row.at(4))},
                .now = {}};
    if (field.column >= columns) throw std::runtime_error("its cells name column " + std::to_string(field.column));
    fields_.push_back(std::move(field));
  }
}

std::vector<std::string> Unseen::add(const Encoded& request) {
  const std::size_t rows = static_cast<std::size_t>(request.rows), columns = rows == 0 ? 0 : request.ids.size() / rows;
  std::vector<std::string> lines;
  const std::lock_guard lock(mutex_);
  for (Field& field : fields_) {
    const std::size_t counted = request.alike[field.column] ? 1 : rows;
    const double room = std::max(kWindow - static_cast<double>(counted), 0.0);
    if (field.rows > room)
      for (double* const count : {&field.unknown, &field.missing, &field.rows}) *count *= room / field.rows;
    for (std::size_t row = 0; row < counted; ++row) {
      const std::int64_t id = request.ids[row * columns + field.column];
      field.unknown += field.trained.oov && id == 0;
      field.missing += id == field.missing_id;
    }
    field.rows += static_cast<double>(counted);
    if (field.trained.oov) field.now.oov = field.unknown / field.rows;
    if (field.trained.missing) field.now.missing = field.missing / field.rows;
    if (field.told || field.unknown + field.missing < 0.9 * field.rows) continue;
    if (std::string found = lost(field); !found.empty()) {
      field.told = true;
      lines.push_back(std::move(found));
    }
  }
  return lines;
}

std::vector<Unseen::Field> Unseen::fields() const {
  const std::lock_guard lock(mutex_);
  return fields_;
}

}  // namespace dcrnn_fast::server
