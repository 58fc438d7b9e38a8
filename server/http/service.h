// What the server answers to a request, whatever carried it.
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "../model/model.h"
#include "batcher.h"
#include "metrics.h"

namespace dcrnn_fast::server {

// What the user chooses, with the defaults; see main.cpp.
struct Options {
  std::string model, host = "127.0.0.1";
  std::int64_t port = 8000;               // 0: a free one
  std::int64_t threads = 1;               // that score
  std::int64_t io_threads = 1;            // that read, encode and write
  std::int64_t max_body_bytes = 1 << 20;  // of a request
  std::int64_t max_rows = 10'000;         // of a request
  std::int64_t max_queue_rows = 100'000;  // that wait
  std::int64_t max_batch_rows = 512;      // of requests that are scored at once
  std::int64_t max_connections = 1000;
  std::int64_t transfer_seconds = 30;  // for a request to arrive whole, and for an answer to be taken
  std::int64_t idle_seconds = 75;      // between requests
  std::int64_t grace = 10;             // seconds for what is accepted, when the server stops
};

struct Request {
  std::string_view method = {}, path = {}, content_type = {}, content_encoding = {}, body = {};
  std::optional<std::string_view> deadline = std::nullopt;  // X-Deadline-Ms
  Clock::time_point arrived = {};
};

bool asks_for_scores(const Request& request);  // POST /v1/score

struct Answer {
  unsigned status = 200;
  std::string body;
  std::string_view content_type = "application/json", allow = {};
};

// An error's answer, {"error": "one line"}.
Answer error_answer(unsigned status, std::string_view message);

class Service {
 public:
  // Loads the model. Throws ModelError.
  explicit Service(const Options& options)
      : options_(options),
        model_(load_model(options.model, options.threads)),
        batcher_(options.threads, options.max_queue_rows, options.max_batch_rows, metrics_) {}

  // Loads the model anew. Requests that have begun end with theirs. If loading fails, the earlier model stays, and stderr says why.
  void reload();

  // The answer to a request with its body.
  boost::asio::awaitable<Answer> answer(Request request);

  // A 503, which is counted.
  Answer refused(Refusal reason, std::string_view message);

  // Counts an answer that is about to be sent.
  void count(const Request& request, const Answer& answer);

  // It is no longer ready. What is asked is answered until it drops what waits.
  void stop() { stopping_ = true; }
  void drop() { batcher_.drop(); }
  bool stopping() const { return stopping_; }

 private:
  std::shared_ptr<const Model> current();
  // Each of these two gives the job its rows and no answer if the request is to be scored.
  Answer without_scoring(const Request& request, Job& job);
  Answer prepared(const Request& request, Job& job);
  Answer answer_of(const Job& job, Job::State state);

  const Options& options_;
  Metrics metrics_;
  std::mutex mutex_;  // of the model
  std::shared_ptr<const Model> model_;
  std::atomic<bool> stopping_{false};
  Batcher batcher_;
};

}  // namespace dcrnn_fast::server
