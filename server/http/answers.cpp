#include "answers.h"

#include <boost/json.hpp>
#include <charconv>
#include <cmath>

#include "../json/json_text.h"

namespace json = boost::json;

namespace dcrnn_fast::server {
namespace {

// The shortest decimal that reads back as the same float32.
void append_shortest(std::string& out, float value) {
  char text[32];
  out.append(text, std::to_chars(text, std::end(text), value).ptr);
}

}  // namespace

Answer error_answer(unsigned status, std::string_view message) {
  return {.status = status, .body = json::serialize(json::object{{"error", message}})};
}

Answer not_allowed(std::string_view method, std::string_view allowed) {
  Answer answer = error_answer(405, "the method is " + shown(method) + ", expected " + std::string(allowed));
  answer.allow = allowed;
  return answer;
}

Answer scores_answer(const Model& model, std::int64_t rows, const std::vector<float>& scores) {
  std::string body;
  body.reserve(128 + scores.size() * 14);
  body.append(R"({"model":)").append(json::serialize(model.id)).append(R"(,"rows":)").append(std::to_string(rows)).append(R"(,"scores":{)");
  const float* score = scores.data();
  for (std::size_t name = 0; name < model.names.size(); ++name) {
    body.append(name ? "," : "").append(json::serialize(model.names[name])).append(":[");
    for (std::int64_t row = 0; row < rows; ++row, ++score) {
      if (row) body.push_back(',');
      std::isfinite(*score) ? append_shortest(body, *score) : static_cast<void>(body.append("null"));
    }
    body.push_back(']');
  }
  body.append("}}");
  return {.body = std::move(body)};
}

Answer model_answer(const Model& model, const Limits& limits) {
  return {.body = json::serialize(json::object{
              {"model", model.id},
              {"names", json::value_from(model.names)},
              {"tasks", json::value_from(model.tasks)},
              {"columns", json::value_from(model.encoder.columns())},
              {"kind", model.kind},
              {"dcrnn_fast", model.written_by},
              {"torch", model.torch},
              {"limits", {{"body_bytes", limits.body_bytes}, {"rows", limits.rows}, {"queue_rows", limits.queue_rows}}},
          })};
}

}  // namespace dcrnn_fast::server
