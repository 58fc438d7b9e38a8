// JSON, read strictly, so that any bytes end in plain values or in a BadRequest of one line.
#pragma once

#include <boost/json/value.hpp>
#include <stdexcept>
#include <string>
#include <string_view>

namespace dcrnn_fast::server {

// The client must correct its request. The message is one line of UTF-8: the column, the row from 1, what came, what was expected.
struct BadRequest : std::runtime_error {
  using runtime_error::runtime_error;
};

// The value of a JSON text in UTF-8. Numbers are rounded to the nearest double. An object that no text can hold stands for an integer
// beyond 64 bits. Throws BadRequest for what is not JSON or no UTF-8, for a key that an object holds twice, for more than 32 levels of
// nesting, for an integer of more than 4,300 digits, for a number beyond float64, and for a text that is only an integer beyond 64 bits.
boost::json::value parse_json(std::string_view text);

// The digits of an integer beyond 64 bits, which parse_json keeps; nullptr for any other value.
const boost::json::string* big_integer(const boost::json::value& value);

// A value as a message shows it: JSON, at most some 60 bytes of it, on one line, in UTF-8.
std::string shown(const boost::json::value& value);
std::string shown(std::string_view text);

// A name in single quotes, so shortened and escaped.
std::string in_quotes(std::string_view name);

}  // namespace dcrnn_fast::server
