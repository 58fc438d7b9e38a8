// The two parameter banks: rows collected through an index, and gradients added back in a fixed order. Rows are [n] values of any trailing
// shape; index[t, r] below S names a shared row, S + p the task's private row p.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "gemm.h"

namespace dcrnn_fast::cpu {

struct Bank {
  int64_t tasks, rows, shared, own;
  const int32_t* index;  // [T, R]

  // Whether one of the two banks is empty and the other, as it lies, is what the tasks read: a gradient then needs no sums.
  bool is_what_tasks_read() const {
    if (shared ? own || tasks != 1 || shared != rows : own != rows) return false;
    for (int64_t place = 0; place < tasks * rows; ++place)
      if (index[place] != place % rows) return false;
    return true;
  }
};

// Values a parallel chunk should at least touch, to be worth waking a thread.
inline constexpr int64_t grain_values = 16384;

inline int64_t grain(int64_t values_each) { return std::max<int64_t>(1, grain_values / std::max<int64_t>(1, values_each)); }

// out [T, R, n], as bytes: no type is needed to copy.
inline void gather_rows(const Bank& bank, const char* shared, const char* own, char* out, int64_t row_bytes) {
  if (row_bytes == 0) return;
  torch::stable::parallel_for(0, bank.tasks * bank.rows, grain(row_bytes), [&](int64_t begin, int64_t end) {
    for (int64_t place = begin; place < end;) {
      const int64_t row = bank.index[place], task = place / bank.rows;
      const int64_t limit = std::min(end, (task + 1) * bank.rows);
      // rows that follow each other in index and bank go in one copy
      int64_t run = 1;
      while (place + run < limit && bank.index[place + run] == row + run && row + run != bank.shared) ++run;
      const char* const from = row < bank.shared ? shared + row * row_bytes : own + (task * bank.own + row - bank.shared) * row_bytes;
      std::memcpy(out + place * row_bytes, from, run * row_bytes);
      place += run;
    }
  });
}

// For every bank row (shared rows first, then task after task) the places t * R + r that read it, ascending: row i is read by
// places[offsets[i]] up to places[offsets[i + 1]].
struct Readers {
  std::vector<int64_t> offsets, places;

  explicit Readers(const Bank& bank) : offsets(bank.shared + bank.tasks * bank.own + 1, 0), places(bank.tasks * bank.rows) {
    const auto bank_row = [&](int64_t place) {
      const int64_t row = bank.index[place];
      return row < bank.shared ? row : row + place / bank.rows * bank.own;
    };
    for (size_t place = 0; place < places.size(); ++place) ++offsets[bank_row(place) + 1];
    for (size_t row = 1; row < offsets.size(); ++row) offsets[row] += offsets[row - 1];
    std::vector<int64_t> next(offsets.begin(), offsets.end() - 1);
    for (size_t place = 0; place < places.size(); ++place) places[next[bank_row(place)]++] = place;
  }
};

// The gradient [T, R, n] added into shared [S, n] and own [T, P, n]: by task, then by row, so that every run has the same bits.
template <typename From, typename To>
void reduce_rows(const Bank& bank, const Readers& readers, const From* gradient, To* shared, To* own, int64_t n) {
  using A = accumulator<To>;
  if (n == 0) return;
  torch::stable::parallel_for(0, static_cast<int64_t>(readers.offsets.size()) - 1, grain(n), [&](int64_t begin, int64_t end) {
    constexpr int64_t block = 512;
    A sum[block];
    for (int64_t row = begin; row < end; ++row) {
      To* const out = row < bank.shared ? shared + row * n : own + (row - bank.shared) * n;
      const int64_t first = readers.offsets[row], last = readers.offsets[row + 1];
      if (std::is_same_v<From, To> && last == first + 1) {
        std::memcpy(static_cast<void*>(out), gradient + readers.places[first] * n, n * sizeof(To));
        continue;
      }
      for (int64_t start = 0; start < n; start += block) {
        const int64_t width = std::min(block, n - start);
        std::fill(sum, sum + width, A(0));
        for (int64_t reader = first; reader < last; ++reader) {
          const From* const from = gradient + readers.places[reader] * n + start;
          for (int64_t i = 0; i < width; ++i) sum[i] += A(from[i]);
        }
        for (int64_t i = 0; i < width; ++i) out[start + i] = To(sum[i]);
      }
    }
  });
}

}  // namespace dcrnn_fast::cpu
