// What the server answers to a request, whatever carried it.
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "../model/model.h"
#include "batcher.h"
#include "metrics.h"
#include "options.h"

namespace dcrnn_fast::server {

struct Request {
  std::string_view method = {}, target = {}, content_type = {}, content_encoding = {}, body = {};
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
  Service(const Options& options, const Models& models, Batcher& batcher, Metrics& metrics)
      : options_(options), models_(models), batcher_(batcher), metrics_(metrics) {}

  // The answer to a request with its body.
  boost::asio::awaitable<Answer> answer(Request request);

  // The answer to whom the server has no room for.
  Answer overload(std::string_view what) { return refused(Refusal::overload, what); }

  // Counts an answer that is about to be sent.
  void count(const Request& request, const Answer& answer);

  void stop() { stopping_ = true; }
  bool stopping() const { return stopping_; }

 private:
  // Each of these two gives the job its rows and no answer if the request is to be scored.
  Answer without_scoring(const Request& request, Job& job);
  Answer prepared(const Request& request, Job& job);
  Answer answer_of(const Job& job, Job::State state);
  Answer refused(Refusal reason, std::string_view message);
  Answer failed();

  const Options& options_;
  const Models& models_;
  Batcher& batcher_;
  Metrics& metrics_;
  std::atomic<bool> stopping_{false};
};

}  // namespace dcrnn_fast::server
