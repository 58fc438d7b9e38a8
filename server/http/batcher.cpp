#include "batcher.h"

#include <cstdio>

namespace dcrnn_fast::server {
namespace {

// The rows of several jobs, one after the other.
Encoded joined(const std::vector<std::shared_ptr<Job>>& batch) {
  Encoded all;
  for (const auto& job : batch) {
    all.rows += job->rows.rows;
    all.ids.insert(all.ids.end(), job->rows.ids.begin(), job->rows.ids.end());
    all.dense.insert(all.dense.end(), job->rows.dense.begin(), job->rows.dense.end());
  }
  return all;
}

// `rows` of each name's scores, from row `start` on.
std::vector<float> part_of(const std::vector<float>& scores, std::int64_t all_rows, std::int64_t start, std::int64_t rows) {
  std::vector<float> part;
  for (auto name = scores.begin(); name != scores.end(); name += all_rows) part.insert(part.end(), name + start, name + start + rows);
  return part;
}

}  // namespace

Batcher::Batcher(std::int64_t threads, std::int64_t queue_rows, std::int64_t batch_rows, Metrics& metrics)
    : queue_rows_(queue_rows), batch_rows_(batch_rows), metrics_(metrics) {
  for (std::int64_t i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

Batcher::~Batcher() {
  drop();
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  arrived_.notify_all();
}

bool Batcher::submit(std::shared_ptr<Job> job) {
  {
    const std::lock_guard lock(mutex_);
    if (queued_rows_ + job->rows.rows > queue_rows_) return false;
    metrics_.queue_rows = queued_rows_ += job->rows.rows;
    queue_.push_back(std::move(job));
  }
  arrived_.notify_one();
  return true;
}

void Batcher::drop() {
  std::deque<std::shared_ptr<Job>> dropped;
  {
    const std::lock_guard lock(mutex_);
    dropped.swap(queue_);
    metrics_.queue_rows = queued_rows_ = 0;
  }
  for (const auto& job : dropped)
    if (job->leave(Job::dropped)) job->answer();
}

// The system keeps a model's code in memory until the threads that have called it end, for their thread-local variables. So each model has
// threads of its own.
void Batcher::work() {
  Batch batch = next();
  while (!batch.empty()) {
    std::thread([this, &batch] {
      const Model* const model = batch.front()->model.get();
      while (!batch.empty() && batch.front()->model.get() == model) {
        score(batch);
        batch.clear();  // it holds its model
        batch = next();
      }
    }).join();
  }
}

// What waits, up to the limit and of one model; nothing when the server ends. Whoever waits for a job that is late notices by itself.
Batcher::Batch Batcher::next() {
  Batch batch;
  std::int64_t rows = 0;
  std::unique_lock lock(mutex_);
  while (batch.empty()) {
    arrived_.wait(lock, [this] { return ending_ || !queue_.empty(); });
    if (queue_.empty()) break;
    const auto now = Clock::now();
    while (!queue_.empty()) {
      auto& job = queue_.front();
      const bool fits = batch.empty() || (job->model == batch.front()->model && rows + job->rows.rows <= batch_rows_);
      if (!fits) break;
      queued_rows_ -= job->rows.rows;
      if (job->deadline >= now && job->leave(Job::scoring)) {
        rows += job->rows.rows;
        batch.push_back(std::move(job));
      }
      queue_.pop_front();
    }
    metrics_.queue_rows = queued_rows_;
  }
  return batch;
}

void Batcher::score(const Batch& batch) {
  const Encoded* rows = &batch.front()->rows;
  Encoded all;
  Job::State end = Job::scored;
  try {
    if (batch.size() > 1) rows = &(all = joined(batch));
    metrics_.batch_rows.observe(static_cast<double>(rows->rows));
    const std::vector<float> scores = batch.front()->model->engine->run(rows->ids, rows->dense, rows->rows);
    metrics_.scored(rows->rows);
    std::int64_t start = 0;
    for (const auto& job : batch) {
      job->scores = part_of(scores, rows->rows, start, job->rows.rows);
      start += job->rows.rows;
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "scoring %lld rows failed: %s\n", static_cast<long long>(rows->rows), error.what());
    end = Job::failed;
  }
  for (const auto& job : batch) {
    job->state = end;
    job->answer();
  }
}

}  // namespace dcrnn_fast::server
