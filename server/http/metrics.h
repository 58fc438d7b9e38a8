// Counts what the server does, for Prometheus.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "../model/unseen.h"

namespace dcrnn_fast::server {

// Prometheus's histogram: how many values were at most each bound, and their sum.
class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds) : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}
  void observe(double value);
  void write(std::string& out, const std::string& name) const;

 private:
  std::vector<double> bounds_;
  mutable std::mutex mutex_;
  std::vector<std::uint64_t> counts_;
  double sum_ = 0;
};

enum class Refusal { overload, deadline, stopping, failed };

class Metrics {
 public:
  void request(unsigned status);
  void refused(Refusal reason) { ++rejected_[static_cast<std::size_t>(reason)]; }
  void scored(std::int64_t rows) { rows_ += static_cast<std::uint64_t>(rows); }
  void reloaded(bool ok) { ++reloads_[ok ? 0 : 1]; }

  Histogram seconds{{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}};
  Histogram batch_rows{{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384}};
  std::atomic<std::int64_t> queue_rows{0};

  // The text of GET /metrics, version 0.0.4.
  std::string text(const std::string& model_id, const std::vector<Unseen::Field>& fields) const;

 private:
  static constexpr std::array<unsigned, 7> kStatuses{200, 400, 404, 405, 413, 415, 503};
  std::array<std::atomic<std::uint64_t>, kStatuses.size()> requests_{};
  std::array<std::atomic<std::uint64_t>, 4> rejected_{};
  std::array<std::atomic<std::uint64_t>, 2> reloads_{};
  std::atomic<std::uint64_t> rows_{0};
};

}  // namespace dcrnn_fast::server
