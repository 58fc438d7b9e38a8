// What the checks share: a verdict for each case, the report of them all, and arrays of a dtype.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "machine.h"
#include "reference.h"

namespace {

using namespace dcrnn_fast::cuda;

struct Verdict {
  double allowed, worst = 0;
  std::string where = "all exact";

  void add(const char* name, double error) {
    if (error <= worst) return;
    worst = error == error ? error : INFINITY;
    where = name;
  }

  // Errors are relative to the largest value; a NaN counts as infinite.
  template <typename T>
  void compare(const char* name, const Doubles& want, const std::vector<T>& got) {
    double scale = 1e-30, error = want.size() == got.size() ? 0 : INFINITY;
    for (const double x : want) scale = std::max(scale, std::abs(x));
    for (size_t i = 0; i < std::min(want.size(), got.size()); ++i) {
      const double off = std::abs(static_cast<double>(widen(got[i])) - want[i]);
      if (!(off <= error)) error = off == off ? off : INFINITY;
    }
    add(name, error / scale);
  }

  template <typename T>
  void same_bits(const char* name, const std::vector<T>& want, const std::vector<T>& got) {
    if (want.size() != got.size() || (!got.empty() && std::memcmp(want.data(), got.data(), got.size() * sizeof(T)))) add(name, INFINITY);
  }

  void check(cudaError_t error) {
    if (error != cudaSuccess) add("a launch failed", INFINITY);
  }
};

class Report {
 public:
  Report(Level level, std::string words) : level_(level), words_(std::move(words)) {}

  bool wanted(Level level, const std::string& name) const { return level <= level_ && name.find(words_) != std::string::npos; }

  void add(const std::string& name, const Verdict& verdict) {
    const bool right = verdict.worst <= verdict.allowed;
    std::printf("%s %-72s largest error %.1e (%s), allowed %.0e\n", right ? "right" : "WRONG", name.c_str(), verdict.worst,
                verdict.where.c_str(), verdict.allowed);
    std::fflush(stdout);
    ++count_, wrong_ += !right;
  }

  int finish() const {
    if (count_ == 0) std::printf("no case has these words in its name: %s\n", words_.c_str());
    std::printf("%d of %d cases wrong\n", wrong_, count_);
    return wrong_ || !count_;
  }

 private:
  const Level level_;
  const std::string words_;
  int count_ = 0, wrong_ = 0;
};

// An input and the gradient that a reference computes of it.
template <typename In, typename R>
struct Gradient {
  const char* input;
  Doubles In::* values;
  Doubles R::* gradient;
};

// Checks a reference's own gradients by differences of its loss along a random direction of each input. `make` gives what the inputs are
// made of.
template <typename In, typename R, typename Make>
void check_gradients(Report& report, const std::string& name, const Make& make, const std::vector<Gradient<In, R>>& gradients) {
  if (!report.wanted(Level::all, name)) return;
  Verdict verdict{1e-8};
  for (const bool every : {false, true}) {
    In in(make(Shape{Level::all, 3, 5, 4, 2, 3, every, every, every}));
    const R reference(in);
    Random random;
    for (const Gradient<In, R>& one : gradients) {
      Doubles& values = in.*one.values;
      const Doubles before = values, direction = random.values(values.size(), 1), &gradient = reference.*one.gradient;
      double expected = 0, losses[2];
      for (size_t i = 0; i < values.size(); ++i) expected += gradient[i] * direction[i];
      for (const int side : {0, 1}) {
        for (size_t i = 0; i < values.size(); ++i) values[i] = before[i] + (side ? 1e-5 : -1e-5) * direction[i];
        losses[side] = R(in).loss();
      }
      values = before;
      verdict.add(one.input, std::abs((losses[1] - losses[0]) / 2e-5 - expected) / std::abs(expected));
    }
  }
  report.add(name, verdict);
}

// A vector ends with its last value, so that a sanitizer sees accesses past it. Values are NaN until a kernel writes them.
template <typename T>
std::vector<T> poisoned(int64_t count) {
  std::vector<T> out(count);
  if (count) std::memset(static_cast<void*>(out.data()), 0xff, count * sizeof(T));
  return out;
}

template <typename T>
std::vector<T> typed(const Doubles& values, int64_t first = 0, int64_t last = -1) {
  std::vector<T> out((last < 0 ? int64_t(values.size()) : last) - first);
  for (size_t i = 0; i < out.size(); ++i) round_to(out[i], static_cast<accumulator<T>>(values[first + i]));
  return out;
}

template <typename T>
std::vector<T> joined(std::vector<T> first, const std::vector<T>& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

}  // namespace
