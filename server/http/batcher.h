// A queue of requests, and the threads that score them.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "../model/model.h"
#include "metrics.h"

namespace dcrnn_fast::server {

using Clock = std::chrono::steady_clock;

// A request's rows on their way. Whoever moves `state` away from `waiting` decides what becomes of it.
struct Job {
  enum State { waiting, scoring, scored, failed, late, dropped };

  std::shared_ptr<const Model> model;
  Encoded rows;
  Clock::time_point deadline;    // scoring begins before it, or not at all
  std::function<void()> answer;  // called once by a scoring thread, when the state is the last one; not if the caller gave up
  std::vector<float> scores;     // [names, rows], when scored
  std::atomic<State> state{waiting};

  bool leave(State next) {
    State expected = waiting;
    return state.compare_exchange_strong(expected, next);
  }
};

class Batcher {
 public:
  // Scores by so many threads. Of the requests that wait, it takes the rows of a whole batch at once.
  Batcher(std::int64_t threads, std::int64_t queue_rows, std::int64_t batch_rows, Metrics& metrics);
  ~Batcher();

  // Lets the job wait for a thread. False if the queue is full.
  bool submit(std::shared_ptr<Job> job);

  // Drops what waits. What is being scored will be answered.
  void drop();

 private:
  using Batch = std::vector<std::shared_ptr<Job>>;
  void work();
  Batch next();
  void score(const Batch& batch);

  const std::int64_t queue_rows_, batch_rows_;
  Metrics& metrics_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<std::shared_ptr<Job>> queue_;
  std::int64_t queued_rows_ = 0;
  bool ending_ = false;
  std::vector<std::jthread> threads_;
};

}  // namespace dcrnn_fast::server
