#include "json_text.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/basic_parser_impl.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse_options.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value_stack.hpp>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <span>
#include <utility>
#include <vector>

namespace dcrnn_fast::server {
namespace {

namespace json = boost::json;
using Error = boost::system::error_code;

constexpr std::size_t kMaxDepth = 32, kMaxDigits = 4300;  // Python reads no more digits
// No text that was parsed holds this key, as it is not UTF-8.
constexpr std::string_view kBigInteger = "\xff integer";

// At most `limit` bytes of UTF-8, without half a character at the end.
std::string cut(std::string_view text, std::size_t limit) {
  if (text.size() <= limit) return std::string(text);
  while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xC0) == 0x80) --limit;
  return std::string(text.substr(0, limit)) + "...";
}

// Makes values of what the parser meets. Boost's own handler takes the last of two equal keys, and rounds an integer beyond 64 bits.
class Builder {
 public:
  constexpr static std::size_t max_object_size = -1, max_array_size = -1, max_key_size = -1, max_string_size = -1;

  Builder() { stack_.reset(); }

  bool on_document_begin(Error&) { return true; }
  bool on_document_end(Error&) { return true; }
  bool on_array_begin(Error&) { return true; }
  bool on_object_begin(Error&) { return true; }
  bool on_comment_part(json::string_view, Error&) { return true; }
  bool on_comment(json::string_view, Error&) { return true; }
  bool on_number_part(json::string_view, Error&) { return true; }

  bool on_array_end(std::size_t size, Error&) { return stack_.push_array(size), true; }
  bool on_object_end(std::size_t size, Error&) {
    const auto own = std::span(keys_).last(size);
    std::ranges::sort(own);
    if (const auto twice = std::ranges::adjacent_find(own); twice != own.end())
      throw BadRequest("the JSON holds the key " + in_quotes(*twice) + " twice in one object; name each key once");
    keys_.resize(keys_.size() - size);
    return stack_.push_object(size), true;
  }
  bool on_string_part(json::string_view part, std::size_t, Error&) { return stack_.push_chars(part), true; }
  bool on_string(json::string_view last, std::size_t, Error&) { return stack_.push_string(last), true; }
  bool on_key_part(json::string_view part, std::size_t, Error&) {
    key_.append(part);
    return stack_.push_chars(part), true;
  }
  bool on_key(json::string_view last, std::size_t, Error&) {
    keys_.push_back(std::exchange(key_, {}).append(last));
    return stack_.push_key(last), true;
  }
  bool on_int64(std::int64_t value, json::string_view, Error&) { return stack_.push_int64(value), true; }
  bool on_uint64(std::uint64_t, json::string_view digits, Error&) { return push_big_integer(digits); }
  bool on_double(double value, json::string_view text, Error&) {
    if (text.find_first_of(".eE") == text.npos) return push_big_integer(text);
    if (!std::isfinite(value)) throw BadRequest("the JSON holds " + cut(text, kBeginning) + ", a number beyond float64");
    return stack_.push_double(value), true;
  }
  bool on_bool(bool value, Error&) { return stack_.push_bool(value), true; }
  bool on_null(Error&) { return stack_.push_null(), true; }

  json::value take() { return stack_.release(); }

 private:
  bool push_big_integer(json::string_view text) {
    const std::size_t digits = text.size() - text.starts_with('-');
    if (digits > kMaxDigits)
      throw BadRequest("the JSON holds " + cut(text, kBeginning) + ", an integer of " + std::to_string(digits) + " digits");
    stack_.push_key(kBigInteger);
    stack_.push_string(text);
    return stack_.push_object(1), true;
  }

  static constexpr std::size_t kBeginning = 20;  // of a number that is refused
  json::value_stack stack_;
  std::vector<std::string> keys_;  // of the objects that have not ended
  std::string key_;
};

constexpr std::size_t kShown = 60;

// A text's JSON, cut somewhere behind what is shown.
std::string quoted(std::string_view text) { return json::serialize(text.substr(0, 2 * kShown)); }

// Appends a value's JSON; of a long value the beginning alone.
void append(std::string& out, const json::value& value) {
  if (const json::string* const digits = big_integer(value)) {
    out += cut(*digits, kShown);
  } else if (const double* const number = value.if_double()) {
    char text[32];
    out.append(text, std::to_chars(text, std::end(text), *number).ptr);
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
      out += quoted(at->key()) + ": ";
      append(out, at->value());
    }
    out += '}';
  } else if (const json::string* const text = value.if_string()) {
    out += quoted(*text);
  } else {
    out += json::serialize(value);
  }
}

}  // namespace

json::value parse_json(std::string_view text) {
  json::parse_options options;
  options.max_depth = kMaxDepth;
  options.numbers = json::number_precision::precise;
  json::basic_parser<Builder> parser(options);
  Error error;
  const std::size_t read = parser.write_some(false, text.data(), text.size(), error);
  if (!error && read < text.size()) error = json::error::extra_data;
  if (error == json::error::too_deep) throw BadRequest("the JSON is nested more than " + std::to_string(kMaxDepth) + " levels deep");
  if (error) throw BadRequest("the text is not JSON in UTF-8: it ends or breaks at byte " + std::to_string(read + 1) + "; correct it");
  json::value value = parser.handler().take();
  if (big_integer(value)) throw BadRequest("the JSON is " + shown(value) + ", expected an object or a list");
  return value;
}

const json::string* big_integer(const json::value& value) {
  const json::object* const object = value.if_object();
  return object && object->size() == 1 && object->begin()->key() == kBigInteger ? &object->begin()->value().get_string() : nullptr;
}

std::string shown(const json::value& value) {
  std::string out;
  append(out, value);
  return cut(out, kShown);
}

std::string shown(std::string_view text) { return cut(quoted(text), kShown); }

std::string in_quotes(std::string_view name) {
  const std::string text = quoted(name);
  return "'" + cut(std::string_view(text).substr(1, text.size() - 2), kShown) + "'";
}

}  // namespace dcrnn_fast::server
