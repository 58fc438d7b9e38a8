#include "encoder.h"

#include <algorithm>
#include <array>
#include <boost/endian/conversion.hpp>
#include <boost/hash2/md5.hpp>
#include <boost/json/array.hpp>
#include <boost/json/string.hpp>
#include <boost/json/value_to.hpp>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cmath>
#include <map>
#include <set>
#include <stdexcept>
#include <utility>

#include "../json/json_text.h"
#include "cells.h"

namespace dcrnn_fast::server {
namespace {

namespace json = boost::json;

[[noreturn]] void misfit(const std::string& problem) { throw std::runtime_error(problem + "; export the run again"); }

// The log1p of the absolute value, with the value's sign, and 0 for both zeros, as NumPy's sign has it. NumPy's own log1p may differ in the
// last bit; rounded to float32 after scaling, none of 16 million values did.
double signed_log1p(double value) { return value == 0 ? 0.0 : std::copysign(std::log1p(std::abs(value)), value); }

// How a column's truth values are spelled, as in dcrnn_fast/data/codes/texts.py.
constexpr std::array<std::string_view, 4> kTruths[] = {{"true", "True", "TRUE", "1"}, {"false", "False", "FALSE", "0"}};

// An object of encoder.json, empty if it is not there.
const json::object& part_of(const json::object& encoding, std::string_view key) {
  static const json::object none;
  const json::value* const found = encoding.if_contains(key);
  return found ? found->as_object() : none;
}

bool has_one_text(const Column& column) {
  std::string buffer;
  const std::string first(spelled(column.cells.front(), buffer));
  return std::ranges::all_of(column.cells, [&](const Cell& cell) { return spelled(cell, buffer) == first; });
}

}  // namespace

// The ids of texts in a field: positions in its vocabulary, or hashes. A vocabulary of truth values alone knows their other spellings too.
class TextIds {
 public:
  // Without `entries`, texts are hashed to 1 + one of `size` - 1 buckets. A missing cell has id 0 in a hashed field, and where `several`
  // says that a cell of the field holds several values.
  TextIds(const boost::json::array& entries, std::int64_t size, bool several) : size_(size) {
    std::size_t bytes = 0;
    for (const boost::json::value& entry : entries) bytes += entry.as_string().size();
    letters_.reserve(bytes);
    ids_.reserve(entries.size());
    for (std::size_t id = 0; id < entries.size(); ++id) {
      const std::string_view text = entries[id].get_string();
      if (several && text == kMissing) continue;
      const std::size_t start = letters_.size();
      letters_.insert(letters_.end(), text.begin(), text.end());
      ids_.emplace(std::string_view(letters_.data() + start, text.size()), static_cast<std::int64_t>(id));
    }
    const auto is_truth = [](const auto& one) {
      return one.first == kOov || one.first == kMissing ||
             std::ranges::any_of(kTruths, [&](const auto& texts) { return std::ranges::find(texts, one.first) != texts.end(); });
    };
    if (std::ranges::all_of(ids_, is_truth))
      for (const auto& texts : kTruths) {
        const auto first = std::ranges::find_if(texts, [&](std::string_view text) { return ids_.contains(text); });
        if (first == texts.end()) continue;
        const std::int64_t id = ids_.find(*first)->second;
        for (const std::string_view text : texts) ids_.emplace(text, id);
      }
  }
  TextIds(const TextIds&) = delete;  // the keys point into `letters_`
  TextIds& operator=(const TextIds&) = delete;

  std::int64_t size() const { return size_; }

  // The id of a text as a vocabulary spells it.
  std::int64_t operator()(std::string_view text) const {
    if (ids_.empty()) return text == kMissing ? 0 : 1 + bucket(text);
    const auto found = ids_.find(text);
    return found == ids_.end() ? 0 : found->second;
  }

 private:
  std::int64_t bucket(std::string_view text) const {
    boost::hash2::md5_128 hash;
    hash.update(text.data(), text.size());
    const std::uint64_t upper = boost::endian::load_little_u64(hash.result().data() + 8);
    return static_cast<std::int64_t>(upper % static_cast<std::uint64_t>(size_ - 1));
  }

  std::int64_t size_;
  std::vector<char> letters_;
  boost::unordered_flat_map<std::string_view, std::int64_t> ids_;
};

Encoder::Encoder(const json::object& encoding, const json::object& about) : derived_(read_derived(part_of(encoding, "derived"))) {
  const json::array &fields = about.at("fields").as_array(), &dense = about.at("dense").as_array();
  for (const auto& [key, value] : encoding)
    if (key != "vocabulary" && key != "scaling" && key != "shared" && key != "derived" && key != "pooled")
      throw std::runtime_error("encoder.json has the key " + in_quotes(key) +
                               ", which this program does not know; build its newest version");
  const auto want = [&](std::string_view name, bool by_derived, bool as_cells) {
    if (std::ranges::find(derived_, name, &Derived::name) != derived_.end()) return;
    const std::size_t at = column_of_.emplace(name, wanted_.size()).first->second;
    if (at == wanted_.size()) {
      wanted_.emplace_back(name);
      wanted_by_derived_.push_back(false);
      wanted_as_cells_.push_back(false);
    }
    if (by_derived) wanted_by_derived_[at] = true;
    if (as_cells) wanted_as_cells_[at] = true;
  };
  for (const json::value& field : fields) want(field.at(0).as_string(), false, true);
  for (const json::value& name : dense) want(name.as_string(), false, true);
  for (const Derived& one : derived_)
    for (const std::string& source : one.sources) want(source, true, one.kind != Derived::value);
  for (const Derived& one : derived_) column_of_.emplace(one.name, column_of_.size());
  num_fields_ = fields.size(), num_dense_ = dense.size();
  uses_.resize(column_of_.size());
  add_fields(encoding, fields);
  add_dense(encoding.at("scaling").as_object(), dense);
}

void Encoder::add_fields(const json::object& encoding, const json::array& fields) {
  const json::object& vocabulary = encoding.at("vocabulary").as_object();
  const json::object& shared = part_of(encoding, "shared");
  std::set<std::string_view> several;
  for (const auto& [name, field] : part_of(encoding, "pooled"))
    for (const json::value& column : field.at("columns").as_array()) several.emplace(column.as_string());

  std::map<std::pair<std::string_view, bool>, std::shared_ptr<const TextIds>> known;
  for (std::size_t position = 0; position < fields.size(); ++position) {
    const std::string_view name = fields[position].at(0).as_string();
    const std::int64_t size = fields[position].at(1).as_int64();
    const bool has_several = several.contains(name);
    const std::string_view owner = shared.contains(name) ? std::string_view(shared.at(name).as_string()) : name;
    const json::value& entries = vocabulary.at(has_several && !vocabulary.contains(name) ? owner : name);
    const json::array& list = entries.as_array();
    const std::int64_t count = static_cast<std::int64_t>(list.size());
    const auto fits = [&](std::int64_t expected) {
      if (size != expected)
        misfit("field " + in_quotes(name) + " has " + std::to_string(size) + " ids, and its vocabulary has " + std::to_string(count));
    };
    if (count > 0 ? list.front() == json::value(kOov) : size > 2) {
      if (count > 0) fits(count);
      std::shared_ptr<const TextIds>& ids = known[{owner, has_several}];
      if (!ids) ids = std::make_shared<const TextIds>(list, size, has_several);
      fits(ids->size());
      uses_[column(name)].texts.push_back({position, ids});
    } else {
      fits(count + 2);
      Buckets one{position, json::value_to<std::vector<double>>(entries)};
      if (!std::ranges::is_sorted(one.edges, std::less_equal())) misfit("encoder.json: the edges of " + in_quotes(name) + " do not rise");
      uses_[column(name)].buckets.push_back(std::move(one));
    }
  }
}

void Encoder::add_dense(const json::object& scaling, const json::array& dense) {
  for (std::size_t position = 0; position < dense.size(); ++position) {
    const std::string name(dense[position].as_string());
    const json::object& scale = scaling.at(name).as_object();
    const json::string& treatment = scale.at("treatment").as_string();
    const double std = scale.at("std").to_number<double>();
    if ((treatment != "standardise" && treatment != "log1p") || !(std > 0))
      misfit("dense column " + in_quotes(name) + " has no known scaling");
    uses_[column(name)].scales.push_back({position, treatment == "log1p", scale.at("mean").to_number<double>(), std});
  }
}

// Where each wanted_ column is in the request, and how many rows it has.
std::vector<Source> Encoder::sources_of(const json::object& request, std::int64_t max_rows, std::size_t& rows) const {
  static const json::object none;
  const json::object *columns = &none, *shared = &none;
  for (const auto& [key, value] : request) {
    if (key != "columns" && key != "shared")
      throw BadRequest("the request has the key " + in_quotes(key) + ", expected columns, and shared for cells that all rows have");
    if (!value.is_object() || big_integer(value))
      throw BadRequest(std::string(key) + " is " + shown(value) + ", expected an object that names columns");
    (key == "columns" ? columns : shared) = &value.get_object();
  }
  rows = 1;
  for (const auto& [name, cells] : *columns) {
    const json::array* const list = cells.if_array();
    if (!list) throw BadRequest("column " + in_quotes(name) + " is " + shown(cells) + ", expected a list with a cell for each row");
    if (name == columns->begin()->key()) rows = list->size();
    if (list->size() != rows)
      throw BadRequest("column " + in_quotes(name) + " has " + std::to_string(list->size()) + " rows, and column " +
                       in_quotes(columns->begin()->key()) + " has " + std::to_string(rows) +
                       "; give each row a cell in every column (null: missing)");
    if (shared->contains(name)) throw BadRequest("column " + in_quotes(name) + " is in columns and in shared; give it once");
  }
  if (rows < 1 || static_cast<std::int64_t>(rows) > max_rows)
    throw BadRequest("the request has " + std::to_string(rows) + " rows, expected 1 to " + std::to_string(max_rows) +
                     "; send more requests");
  std::vector<Source> found;
  found.reserve(wanted_.size());
  for (const std::string& name : wanted_) {
    if (const json::value* const cells = columns->if_contains(name))
      found.push_back({name, {cells->get_array().data(), rows}, false});
    else if (const json::value* const cell = shared->if_contains(name))
      found.push_back({name, {cell, 1}, true});
    else
      throw BadRequest("column " + in_quotes(name) +
                       " is neither in columns nor in shared, and the model reads it; send it (null: missing)");
  }
  return found;
}

// The derived columns, and those of the request that they read.
std::vector<Column> Encoder::derive(const std::vector<Source>& sources, std::size_t rows) const {
  std::vector<Column> columns(column_of_.size());
  for (std::size_t at = 0; at < wanted_.size(); ++at)
    if (wanted_by_derived_[at] && wanted_as_cells_[at]) columns[at] = single_values(sources[at], true);
  std::map<std::pair<std::size_t, std::string_view>, Values> values;
  for (const Derived& one : derived_) {
    std::vector<const Column*> read;
    for (const std::string& name : one.sources) read.push_back(&columns[column(name)]);
    Column& made = columns[column(one.name)];
    if (one.kind == Derived::constant) {
      made = {{one.name, {}, true}, {Cell(std::string_view(one.text))}, {}};
    } else if (one.kind == Derived::cross) {
      made = crossed(one, read, rows);
    } else if (one.kind == Derived::value) {
      const std::size_t source = column(one.sources[0]);
      made = values.try_emplace({source, one.separator}, sources[source], one.separator).first->second.at(one.position);
    } else {
      made = part_of_time(one, *read[0]);
    }
  }
  return columns;
}

Encoded Encoder::encode(const json::object& request, std::int64_t max_rows) const {
  std::size_t rows = 0;
  const std::vector<Source> sources = sources_of(request, max_rows, rows);
  const std::vector<Column> derived = derive(sources, rows);
  Encoded out{static_cast<std::int64_t>(rows), std::vector<std::int64_t>(rows * num_fields_), std::vector<float>(rows * num_dense_),
              std::vector<bool>(num_fields_)};
  std::string buffer;
  for (std::size_t at = 0; at < uses_.size(); ++at) {
    Column own;
    const bool alone = at < wanted_.size() && !wanted_by_derived_[at];
    if (alone) own = single_values(sources[at], false);
    const Column& column = alone ? own : derived[at];
    // Writes a column of the result; a shared cell is computed once.
    const auto fill = [&](auto& to, std::size_t position, std::size_t width, auto&& value) {
      for (std::size_t row = 0; row < column.cells.size(); ++row) to[row * width + position] = value(row);
      for (std::size_t row = column.cells.size(); row < rows; ++row) to[row * width + position] = to[position];
    };
    const auto has_one_id = [&](std::size_t position) {
      std::size_t row = 1;
      while (row < rows && out.ids[row * num_fields_ + position] == out.ids[position]) ++row;
      return row == rows;
    };
    const auto& [texts, buckets, scales] = uses_[at];
    if (!texts.empty()) check_digits(column);
    for (const TextField& field : texts) {
      fill(out.ids, field.position, num_fields_, [&](std::size_t row) { return (*field.ids)(spelled(column.cells[row], buffer)); });
      out.alike[field.position] = has_one_id(field.position) && (out.ids[field.position] != 0 || has_one_text(column));
    }
    if (buckets.empty() && scales.empty()) continue;
    const std::vector<double> values = numbers(column);
    for (const Buckets& bucketed : buckets) {
      fill(out.ids, bucketed.position, num_fields_, [&](std::size_t row) -> std::int64_t {
        return std::isnan(values[row]) ? 0 : std::ranges::upper_bound(bucketed.edges, values[row]) - bucketed.edges.begin() + 1;
      });
      out.alike[bucketed.position] = has_one_id(bucketed.position);
    }
    for (const Scale& scale : scales)
      fill(out.dense, scale.position, num_dense_, [&](std::size_t row) {
        const double scaled = ((scale.log1p ? signed_log1p(values[row]) : values[row]) - scale.mean) / scale.std;
        const float rounded = static_cast<float>(std::isnan(scaled) ? 0.0 : scaled);
        if (std::isinf(rounded))
          throw BadRequest(column.source.at(row) + " holds " + std::string(spelled(column.cells[row], buffer)) +
                           ", which is too far from the train rows' mean for float32; correct it");
        return rounded;
      });
  }
  return out;
}

}  // namespace dcrnn_fast::server
