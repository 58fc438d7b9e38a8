// What the checks share: a verdict for each case, the report of them all, arrays of a dtype, and what the launches ask of a program.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "gpu.h"
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
    std::printf("%d of %d cases wrong\n", wrong_, count_);
    return wrong_ || !count_;
  }

 private:
  const Level level_;
  const std::string words_;
  int count_ = 0, wrong_ = 0;
};

// A vector ends with its last value, so that a sanitizer sees accesses past it. Values are NaN until a kernel writes them.
template <typename T>
std::vector<T> poisoned(int64_t count) {
  std::vector<T> out(count);
  if (count) std::memset(static_cast<void*>(out.data()), 0xff, count * sizeof(T));
  return out;
}

template <typename T>
std::vector<T> typed(const Doubles& values) {
  std::vector<T> out(values.size());
  for (size_t i = 0; i < out.size(); ++i) round_to(out[i], static_cast<accumulator<T>>(values[i]));
  return out;
}

// The matrix product that a library computes on a GPU.
template <typename T>
void multiply(const Matrices& out, const Matrices& left, const Matrices& right) {
  const auto at = [](const Matrices& m, int64_t matrix, int64_t row, int64_t column) {
    return static_cast<const T*>(m.values) + matrix * m.strides[0] + row * m.strides[1] + column * m.strides[2];
  };
  for (int64_t matrix = 0; matrix < out.sizes[0]; ++matrix)
    for (int64_t row = 0; row < out.sizes[1]; ++row)
      for (int64_t column = 0; column < out.sizes[2]; ++column) {
        accumulator<T> sum = 0;
        for (int64_t k = 0; k < left.sizes[2]; ++k) sum += widen(*at(left, matrix, row, k)) * widen(*at(right, matrix, k, column));
        round_to(*const_cast<T*>(at(out, matrix, row, column)), sum);
      }
}

template <typename T>
Gpu gpu_with(int multiprocessors, int shared_memory) {
  const auto allocate = [](int64_t bytes) {
    const auto memory = std::make_shared<std::vector<unsigned char>>(poisoned<unsigned char>(bytes));
    return std::shared_ptr<void>(memory, memory->data());
  };
  return {multiprocessors, shared_memory, nullptr, allocate, multiply<T>};
}

}  // namespace
