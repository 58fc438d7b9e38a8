#include "json_text.h"

#include <boost/json/array.hpp>
#include <boost/json/basic_parser_impl.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse_options.hpp>
#include <boost/json/serialize.hpp>
#include <cstdint>
#include <utility>
#include <vector>

namespace dcrnn_fast::server {
namespace {

namespace json = boost::json;
using Error = boost::system::error_code;

constexpr std::size_t kMaxDepth = 32, kMaxDigits = 4300;  // Python reads no more digits
// No text that was parsed holds this key, for it is no UTF-8.
constexpr std::string_view kBigInteger = "\xff integer";

// Makes values of what the parser meets. Boost's own handler takes the last of two equal keys, and rounds an integer beyond 64 bits.
class Builder {
 public:
  constexpr static std::size_t max_object_size = -1, max_array_size = -1, max_key_size = -1, max_string_size = -1;

  explicit Builder(json::storage_ptr storage) : storage_(std::move(storage)) {}

  bool on_document_begin(Error&) { return true; }
  bool on_document_end(Error&) { return true; }
  bool on_array_begin(Error&) { return true; }
  bool on_object_begin(Error&) { return true; }
  bool on_comment_part(json::string_view, Error&) { return true; }
  bool on_comment(json::string_view, Error&) { return true; }
  bool on_number_part(json::string_view, Error&) { return true; }

  bool on_array_end(std::size_t size, Error&) {
    json::array array(storage_);
    array.reserve(size);
    for (std::size_t i = values_.size() - size; i < values_.size(); ++i) array.push_back(std::move(values_[i]));
    values_.resize(values_.size() - size);
    return add(std::move(array));
  }
  bool on_object_end(std::size_t size, Error&) {
    json::object object(storage_);
    object.reserve(size);
    const std::size_t value = values_.size() - size, key = keys_.size() - size;
    for (std::size_t i = 0; i < size; ++i)
      if (!object.emplace(keys_[key + i], std::move(values_[value + i])).second)
        throw BadRequest("the JSON holds the key " + quoted(keys_[key + i]) + " twice in one object; name each key once");
    values_.resize(value);
    keys_.resize(key);
    return add(std::move(object));
  }
  bool on_string_part(json::string_view part, std::size_t, Error&) {
    parts_.append(part);
    return true;
  }
  bool on_string(json::string_view last, std::size_t, Error&) {
    if (parts_.empty()) return add(json::string(last, storage_));
    parts_.append(last);
    add(json::string(parts_, storage_));
    parts_.clear();
    return true;
  }
  bool on_key_part(json::string_view part, std::size_t, Error&) { return on_string_part(part, 0, none_); }
  bool on_key(json::string_view last, std::size_t, Error&) {
    parts_.append(last);
    keys_.push_back(std::exchange(parts_, {}));
    return true;
  }
  bool on_int64(std::int64_t value, json::string_view, Error&) { return add(value); }
  bool on_uint64(std::uint64_t, json::string_view digits, Error&) { return add_big(digits); }
  bool on_double(double value, json::string_view text, Error&) {
    return text.find_first_of(".eE") == text.npos ? add_big(text) : add(value);
  }
  bool on_bool(bool value, Error&) { return add(value); }
  bool on_null(Error&) { return add(nullptr); }

  json::value take() { return std::move(values_.front()); }

 private:
  template <typename Value>
  bool add(Value&& value) {
    values_.emplace_back(std::forward<Value>(value), storage_);
    return true;
  }
  bool add_big(json::string_view digits) {
    if (digits.size() - digits.starts_with('-') > kMaxDigits)
      throw BadRequest("the JSON holds an integer of more than 4,300 digits; write it as text");
    json::object marked(storage_);
    marked.emplace(kBigInteger, json::string(digits, storage_));
    return add(std::move(marked));
  }

  json::storage_ptr storage_;
  std::vector<json::value> values_;
  std::vector<std::string> keys_;
  std::string parts_;
  Error none_;
};

// At most `limit` bytes of UTF-8, without half a character at the end.
std::string cut(std::string_view text, std::size_t limit) {
  if (text.size() <= limit) return std::string(text);
  while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xC0) == 0x80) --limit;
  return std::string(text.substr(0, limit)) + "...";
}

constexpr std::size_t kShown = 60;

// Appends a value's JSON; of a long value the beginning alone.
void append(std::string& out, const json::value& value) {
  if (const json::string* const digits = big_integer(value)) {
    out += cut(*digits, kShown);
  } else if (const json::array* const list = value.if_array()) {
    out += '[';
    for (std::size_t at = 0; at < list->size() && out.size() <= kShown; ++at) {
      if (at > 0) out += ", ";
      append(out, (*list)[at]);
    }
    out += ']';
  } else if (const json::object* const object = value.if_object()) {
    out += '{';
    for (auto at = object->begin(); at != object->end() && out.size() <= kShown; ++at) {
      if (at != object->begin()) out += ", ";
      append(out, json::value(at->key()));
      out += ": ";
      append(out, at->value());
    }
    out += '}';
  } else if (const json::string* const text = value.if_string()) {
    out += json::serialize(json::string_view(*text).substr(0, 2 * kShown));
  } else {
    out += json::serialize(value);
  }
}

std::string json_of(const json::value& value) {
  std::string out;
  append(out, value);
  return out;
}

std::string escaped(std::string_view name) {
  const std::string text = json_of(json::value(name));
  return text.substr(1, text.size() - 2);
}

}  // namespace

json::value parse_json(std::string_view text, json::storage_ptr storage) {
  json::parse_options options;
  options.max_depth = kMaxDepth;
  options.numbers = json::number_precision::precise;
  json::basic_parser<Builder> parser(options, std::move(storage));
  Error error;
  const std::size_t read = parser.write_some(false, text.data(), text.size(), error);
  if (!error && read < text.size()) error = json::error::extra_data;
  if (error == json::error::too_deep) throw BadRequest("the JSON is nested more than " + std::to_string(kMaxDepth) + " levels deep");
  if (error) throw BadRequest("the text is no JSON in UTF-8: it ends or breaks at byte " + std::to_string(read + 1) + "; correct it there");
  return parser.handler().take();
}

const json::string* big_integer(const json::value& value) {
  const json::object* const object = value.if_object();
  return object && object->size() == 1 && object->begin()->key() == kBigInteger ? &object->begin()->value().get_string() : nullptr;
}

std::string shown(const json::value& value) { return cut(json_of(value), kShown); }

std::string shown(std::string_view text) { return shown(json::value(text)); }

std::string quoted(std::string_view name) { return "'" + cut(escaped(name), kShown) + "'"; }

}  // namespace dcrnn_fast::server
