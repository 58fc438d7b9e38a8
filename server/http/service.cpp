#include "service.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/json.hpp>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "../json/json_text.h"

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace json = boost::json;

namespace dcrnn_fast::server {
namespace {

constexpr std::string_view kScore = "/v1/score", kModel = "/v1/model", kLive = "/health/live", kReady = "/health/ready",
                           kMetrics = "/metrics";
constexpr std::string_view kFailed = "the server could not score the request; try again";
constexpr int kLongestDeadline = 600'000;

// Bytes that HTTP allows and UTF-8 may not.
std::string shown_bytes(std::string_view bytes) {
  std::string text;
  for (const unsigned char byte : bytes.substr(0, 1000)) {
    char escaped[5] = {static_cast<char>(byte)};
    if (byte >= 0x80) std::snprintf(escaped, sizeof(escaped), "\\x%02x", byte);
    text += escaped;
  }
  return shown(text);
}

std::string_view trimmed(std::string_view text) {
  const auto begin = text.find_first_not_of(" \t"), end = text.find_last_not_of(" \t");
  return begin == std::string_view::npos ? std::string_view{} : text.substr(begin, end - begin + 1);
}

// "application/json", whatever follows but for another charset than UTF-8.
bool is_json(std::string_view content_type) {
  constexpr std::string_view charset = "charset=";
  auto semicolon = content_type.find(';');
  if (!beast::iequals(trimmed(content_type.substr(0, semicolon)), "application/json")) return false;
  while (semicolon != std::string_view::npos) {
    content_type.remove_prefix(semicolon + 1);
    semicolon = content_type.find(';');
    const std::string_view more = trimmed(content_type.substr(0, semicolon)), name = more.substr(std::min(charset.size(), more.size()));
    if (!beast::iequals(more.substr(0, charset.size()), charset)) continue;
    if (!beast::iequals(name, "utf-8") && !beast::iequals(name, "\"utf-8\"")) return false;
  }
  return true;
}

// Throws BadRequest.
Clock::time_point deadline_of(const Request& request) {
  if (!request.deadline) return Clock::time_point::max();
  const std::string_view text = *request.deadline;
  int milliseconds = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), milliseconds);
  if (error != std::errc() || stop != text.data() + text.size() || milliseconds > kLongestDeadline || text[0] == '0' || text[0] == '-')
    throw BadRequest("header X-Deadline-Ms: got " + shown_bytes(text) + ", expected a whole number of milliseconds from 1 to 600000");
  return request.arrived + std::chrono::milliseconds(milliseconds);
}

// The rows that the request says it has, so that one with too many is not encoded.
std::size_t rows_of(const json::object& request) {
  std::size_t rows = 0;
  const json::value* const columns = request.if_contains("columns");
  if (columns != nullptr && columns->is_object())
    for (const auto& [name, cells] : columns->get_object())
      if (cells.is_array()) rows = std::max(rows, cells.get_array().size());
  return rows;
}

// The scores [names, rows] of a request: the shortest decimals that read back as the same float32.
Answer scores_answer(const Model& model, std::int64_t rows, const std::vector<float>& scores) {
  std::string body;
  body.reserve(128 + scores.size() * 14);
  body.append(R"({"model":)").append(json::serialize(model.id)).append(R"(,"rows":)").append(std::to_string(rows)).append(R"(,"scores":{)");
  const float* score = scores.data();
  for (std::size_t name = 0; name < model.names.size(); ++name) {
    body.append(name ? "," : "").append(json::serialize(model.names[name])).append(":[");
    for (std::int64_t row = 0; row < rows; ++row, ++score) {
      if (row) body.push_back(',');
      if (std::isfinite(*score)) {
        char text[32];
        body.append(text, std::to_chars(text, std::end(text), *score).ptr);
      } else {
        body.append("null");
      }
    }
    body.push_back(']');
  }
  body.append("}}");
  return {.body = std::move(body)};
}

Answer model_answer(const Model& model, const Options& options) {
  return {.body = json::serialize(json::object{
              {"model", model.id},
              {"names", json::value_from(model.names)},
              {"tasks", json::value_from(model.tasks)},
              {"columns", json::value_from(model.encoder.columns())},
              {"kind", "aoti"},
              {"dcrnn_fast", model.written_by},
              {"torch", model.torch},
              {"limits", {{"body_bytes", options.max_body_bytes}, {"rows", options.max_rows}, {"queue_rows", options.max_queue_rows}}},
          })};
}

// Waits until the job is answered or its deadline passes. `answered` is the job's own timer, which its answer cancels.
asio::awaitable<Job::State> outcome_of(Job& job, asio::steady_timer& answered) {
  for (;;) {
    answered.expires_at(job.state == Job::waiting ? job.deadline : Clock::time_point::max());
    if (job.state != Job::waiting && job.state != Job::scoring) co_return job.state;
    co_await answered.async_wait(asio::as_tuple(asio::use_awaitable));
    if (Clock::now() >= job.deadline) job.leave(Job::late);
  }
}

}  // namespace

Answer error_answer(unsigned status, std::string_view message) {
  return {.status = status, .body = json::serialize(json::object{{"error", message}})};
}

void Service::reload() {
  try {
    std::shared_ptr<const Model> other = load_model(options_.model, options_.threads);
    const std::lock_guard lock(mutex_);
    model_.swap(other);
    metrics_.reloaded(true);
  } catch (const std::exception& error) {
    metrics_.reloaded(false);
    std::fprintf(stderr, "the earlier model stays: %s\n", error.what());
  }
}

std::shared_ptr<const Model> Service::current() {
  const std::lock_guard lock(mutex_);
  return model_;
}

asio::awaitable<Answer> Service::answer(Request request) {
  const auto job = std::make_shared<Job>();
  Answer answer = without_scoring(request, *job);
  if (job->rows.rows == 0) co_return answer;

  const auto executor = co_await asio::this_coro::executor;
  const auto answered = std::make_shared<asio::steady_timer>(executor);
  job->answer = [answered, executor] { asio::post(executor, [answered] { answered->cancel(); }); };
  if (!batcher_.submit(job)) {
    answer = refused(Refusal::overload, "the queue is full; try again");
    co_return answer;
  }
  const Job::State state = co_await outcome_of(*job, *answered);
  answer = answer_of(*job, state);
  co_return answer;
}

bool asks_for_scores(const Request& request) { return request.method == "POST" && request.path == kScore; }

Answer Service::without_scoring(const Request& request, Job& job) {
  const std::string_view path = request.path;
  if (path != kScore && path != kModel && path != kLive && path != kReady && path != kMetrics)
    return error_answer(404,
                        "nothing is at " + shown_bytes(path) + "; expected /v1/score, /v1/model, /health/live, /health/ready or /metrics");
  if (path == kScore ? request.method != "POST" : request.method != "GET" && request.method != "HEAD") {
    const std::string_view allowed = path == kScore ? "POST" : "GET, HEAD";
    Answer answer = error_answer(405, "the method is " + shown(request.method) + ", expected " + std::string(allowed));
    answer.allow = allowed;
    return answer;
  }
  if (path == kScore) return prepared(request, job);
  if (path == kLive) return {.body = R"({"status":"live"})"};
  if (path == kReady && stopping()) return error_answer(503, "the server is stopping");
  if (path == kReady) return {.body = R"({"status":"ready"})"};
  const std::shared_ptr<const Model> model = current();
  if (path == kModel) return model_answer(*model, options_);
  return {.body = metrics_.text(model->id, model->unseen->fields()), .content_type = "text/plain; version=0.0.4"};
}

Answer Service::prepared(const Request& request, Job& job) {
  if (!is_json(request.content_type))
    return error_answer(415, "Content-Type is " + shown_bytes(request.content_type) + ", expected application/json in UTF-8");
  if (!request.content_encoding.empty() && !beast::iequals(request.content_encoding, "identity"))
    return error_answer(415, "Content-Encoding is " + shown_bytes(request.content_encoding) + "; send the body as it is");
  try {
    job.deadline = deadline_of(request);
    job.model = current();
    const json::value body = parse_json(request.body);
    if (!body.is_object()) throw BadRequest("the body is " + shown(body) + R"(, expected an object such as {"columns": {"item": ["i1"]}})");
    if (const auto rows = rows_of(body.get_object()); rows > static_cast<std::size_t>(options_.max_rows))
      return error_answer(413, "the request has " + std::to_string(rows) + " rows, and at most " + std::to_string(options_.max_rows) +
                                   " are allowed; divide it, or start the server with a larger --max-rows");
    Encoded rows = job.model->encoder.encode(body.get_object(), options_.max_rows);
    for (const std::string& line : job.model->unseen->add(rows)) std::fprintf(stderr, "warning: %s\n", line.c_str());
    job.rows = std::move(rows);
    return {};
  } catch (const BadRequest& error) {
    return error_answer(400, error.what());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "a request failed: %s\n", error.what());
    return refused(Refusal::failed, kFailed);
  }
}

Answer Service::answer_of(const Job& job, Job::State state) {
  switch (state) {
    case Job::scored:
      return scores_answer(*job.model, job.rows.rows, job.scores);
    case Job::late:
      return refused(Refusal::deadline, "the deadline passed before scoring began");
    case Job::dropped:
      return refused(Refusal::stopping, "the server is stopping");
    default:
      return refused(Refusal::failed, kFailed);
  }
}

Answer Service::refused(Refusal reason, std::string_view message) {
  metrics_.refused(reason);
  return error_answer(503, message);
}

void Service::count(const Request& request, const Answer& answer) {
  metrics_.request(answer.status);
  if (request.path == kScore) metrics_.seconds.observe(std::chrono::duration<double>(Clock::now() - request.arrived).count());
}

}  // namespace dcrnn_fast::server
