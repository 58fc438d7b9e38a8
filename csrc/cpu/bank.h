// Gathers rows of the two parameter banks through an index, and adds gradients back to them in a fixed order. A row has n values.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "../bank_index.h"
#include "../checks.h"
#include "parallel.h"
#include "types.h"

namespace dcrnn_fast::cpu {

inline void check_index_values(const BankIndex& bank, const char* name = "index", const char* letters = "S + P") {
  const int64_t rows = bank.num_shared + bank.num_private;
  for (int64_t place = 0; place < bank.tasks * bank.rows; ++place)
    check(bank.index[place] >= 0 && bank.index[place] < rows, name, ": got ", bank.index[place], ", expected values in [0, ", letters,
          ") = [0, ", rows, ")");
}

// Whether the tasks read one bank row by row and the other bank is empty: gradients then need no sums.
inline bool reads_in_order(const BankIndex& bank) {
  if (bank.num_shared ? bank.num_private || bank.tasks != 1 || bank.num_shared != bank.rows : bank.num_private != bank.rows) return false;
  for (int64_t place = 0; place < bank.tasks * bank.rows; ++place)
    if (bank.index[place] != place % bank.rows) return false;
  return true;
}

// The row of n values that a place of a task reads.
template <typename T>
const T* row_of(const BankIndex& bank, const T* shared, const T* own, int64_t task, int64_t place, int64_t n) {
  const int64_t row = bank.index[task * bank.rows + place];
  return row < bank.num_shared ? shared + row * n : own + (task * bank.num_private + row - bank.num_shared) * n;
}

// Writes out [T, R, n] as bytes: a copy needs no type.
inline void gather_rows(const BankIndex& bank, const char* shared, const char* own, char* out, int64_t row_bytes) {
  if (row_bytes == 0) return;
  parallel_for(0, bank.tasks * bank.rows, grain(row_bytes), [&](int64_t begin, int64_t end) {
    for (int64_t place = begin; place < end;) {
      const int64_t row = bank.index[place], task = place / bank.rows;
      const int64_t limit = std::min(end, (task + 1) * bank.rows);
      // neighbouring rows of a bank go in one copy
      int64_t run = 1;
      while (place + run < limit && bank.index[place + run] == row + run && row + run != bank.num_shared) ++run;
      std::memcpy(out + place * row_bytes, row_of(bank, shared, own, task, place - task * bank.rows, row_bytes), run * row_bytes);
      place += run;
    }
  });
}

// For every bank row (shared rows first, then each task's private rows), the places t * R + r that read it, ascending. Row i is read by
// places[offsets[i]] to places[offsets[i + 1] - 1].
struct Readers {
  std::vector<int64_t> offsets, places;

  explicit Readers(const BankIndex& bank)
      : offsets(bank.num_shared + bank.tasks * bank.num_private + 1, 0), places(bank.tasks * bank.rows) {
    const auto bank_row = [&](int64_t place) {
      const int64_t row = bank.index[place];
      return row < bank.num_shared ? row : row + place / bank.rows * bank.num_private;
    };
    for (size_t place = 0; place < places.size(); ++place) ++offsets[bank_row(place) + 1];
    for (size_t row = 1; row < offsets.size(); ++row) offsets[row] += offsets[row - 1];
    std::vector<int64_t> next(offsets.begin(), offsets.end() - 1);
    for (size_t place = 0; place < places.size(); ++place) places[next[bank_row(place)]++] = place;
  }
};

// Sums the gradient [tasks, R, n] into shared [S, n] and own [tasks, P, n], by task, then by row: every run gives the same bits.
template <typename From, typename To>
void reduce_rows(const BankIndex& bank, const Readers& readers, const From* gradient, To* shared, To* own, int64_t n) {
  using A = accumulator<To>;
  if (n == 0) return;
  parallel_for(0, static_cast<int64_t>(readers.offsets.size()) - 1, grain(n), [&](int64_t begin, int64_t end) {
    // Sums of a few rows are summed in turn: the rounding error of one long chain of additions would grow with its length.
    constexpr int64_t block = 512, few = 32;
    A sum[block], part[block];
    for (int64_t row = begin; row < end; ++row) {
      To* const out = row < bank.num_shared ? shared + row * n : own + (row - bank.num_shared) * n;
      const int64_t first = readers.offsets[row], last = readers.offsets[row + 1];
      if (std::is_same_v<From, To> && last == first + 1) {
        std::memcpy(static_cast<void*>(out), gradient + readers.places[first] * n, n * sizeof(To));
        continue;
      }
      for (int64_t start = 0; start < n; start += block) {
        const int64_t width = std::min(block, n - start);
        const auto add = [&](A* to, int64_t reader, int64_t end_reader) {
          std::fill(to, to + width, A(0));
          for (; reader < end_reader; ++reader) {
            const From* const from = gradient + readers.places[reader] * n + start;
            for (int64_t i = 0; i < width; ++i) to[i] += A(from[i]);
          }
        };
        add(sum, first, std::min(first + few, last));
        for (int64_t reader = first + few; reader < last; reader += few) {
          add(part, reader, std::min(reader + few, last));
          for (int64_t i = 0; i < width; ++i) sum[i] += part[i];
        }
        for (int64_t i = 0; i < width; ++i) out[start + i] = To(sum[i]);
      }
    }
  });
}

}  // namespace dcrnn_fast::cpu
