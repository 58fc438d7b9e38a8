// param_gather on the CPU: copies of rows; and its backward: sums in a fixed order.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <vector>

#include "../param_gather_arguments.h"
#include "parallel.h"
#include "types.h"

namespace dcrnn_fast::cpu {
namespace {

void check_index_values(const BankIndex& bank) {
  const int64_t rows = bank.num_shared + bank.num_private;
  const int32_t* const end = bank.index + bank.tasks * bank.rows;
  const auto wrong = [&](int32_t value) { return static_cast<uint32_t>(value) >= static_cast<uint32_t>(rows); };
  bool found = false;
  for (const int32_t* value = bank.index; value < end; ++value) found |= wrong(*value);  // without a branch, several at once
  if (found)
    fail_as("IndexError", "index: got ", *std::find_if(bank.index, end, wrong), ", expected values in [0, S + P) = [0, ", rows, ")");
}

// The row of n values that a place of a task reads.
template <typename T>
const T* row_of(const BankIndex& bank, const T* shared, const T* own, int64_t task, int64_t place, int64_t n) {
  const int64_t row = bank.index[task * bank.rows + place];
  return row < bank.num_shared ? shared + row * n : own + (task * bank.num_private + row - bank.num_shared) * n;
}

// Writes out [T, R, n] as bytes: a copy needs no type.
void gather_rows(const BankIndex& bank, const char* shared, const char* own, char* out, int64_t row_bytes) {
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

// The number of the bank row that a place t * R + r reads: shared rows first, then each task's private rows.
int64_t bank_row(const BankIndex& bank, int64_t place) {
  const int64_t row = bank.index[place];
  return row < bank.num_shared ? row : row + place / bank.rows * bank.num_private;
}
int64_t bank_rows(const BankIndex& bank) { return bank.num_shared + bank.tasks * bank.num_private; }

// For every bank row, the places that read it, ascending: row i is read by places[offsets[i]] to places[offsets[i + 1] - 1].
struct Readers {
  std::vector<int64_t> offsets, places;

  explicit Readers(const BankIndex& bank) : offsets(bank_rows(bank) + 1, 0), places(bank.tasks * bank.rows) {
    for (size_t place = 0; place < places.size(); ++place) ++offsets[bank_row(bank, place) + 1];
    for (size_t row = 1; row < offsets.size(); ++row) offsets[row] += offsets[row - 1];
    std::vector<int64_t> next(offsets.begin(), offsets.end() - 1);
    for (size_t place = 0; place < places.size(); ++place) places[next[bank_row(bank, place)]++] = place;
  }
};

// Sums the gradient [tasks, R, n] into shared [S, n] and own [tasks, P, n], by task, then by row: every run gives the same bits.
template <typename T>
void reduce_rows(const BankIndex& bank, const Readers& readers, const T* gradient, T* shared, T* own, int64_t n) {
  using A = accumulator<T>;
  if (n == 0) return;
  parallel_for(0, static_cast<int64_t>(readers.offsets.size()) - 1, grain(n), [&](int64_t begin, int64_t end) {
    // Sums of a few rows are summed in turn: the rounding error of one long chain of additions would grow with its length.
    constexpr int64_t block = 512, few = 32;
    A sum[block], part[block];
    for (int64_t row = begin; row < end; ++row) {
      T* const out = row < bank.num_shared ? shared + row * n : own + (row - bank.num_shared) * n;
      const int64_t first = readers.offsets[row], last = readers.offsets[row + 1];
      if (last == first + 1) {
        std::memcpy(static_cast<void*>(out), gradient + readers.places[first] * n, n * sizeof(T));
        continue;
      }
      for (int64_t start = 0; start < n; start += block) {
        const int64_t width = std::min(block, n - start);
        const auto add = [&](A* to, int64_t reader, int64_t end_reader) {
          std::fill(to, to + width, A(0));
          for (; reader < end_reader; ++reader) {
            const T* const from = gradient + readers.places[reader] * n + start;
            for (int64_t i = 0; i < width; ++i) to[i] += A(from[i]);
          }
        };
        add(sum, first, std::min(first + few, last));
        for (int64_t reader = first + few; reader < last; reader += few) {
          add(part, reader, std::min(reader + few, last));
          for (int64_t i = 0; i < width; ++i) sum[i] += part[i];
        }
        for (int64_t i = 0; i < width; ++i) out[start + i] = T(sum[i]);
      }
    }
  });
}

// As reduce_rows, for few rows that many places read: goes through the gradient once, in its order, and adds into rows that stay in the
// cache. Each part of the places has sums of its own, in float64; how many parts there are depends on the sizes alone.
struct CachedSums {
  static constexpr int64_t most_values = 1 << 15, places_each = 8, most_parts = 64;

  const BankIndex& bank;
  const int64_t n, values = bank_rows(bank) * n, places = bank.tasks * bank.rows;
  const int64_t parts = std::min(most_parts, places / std::max<int64_t>(1, places_each* bank_rows(bank)));

  bool fit() const { return parts > 0 && values <= most_values; }

  template <typename T>
  void reduce(const T* gradient, T* shared, T* own) const {
    std::vector<double> sums(parts * values, 0.0);
    parallel_for(0, parts, grain(places * n / parts), [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        double* const to = sums.data() + part * values;
        const int64_t from = part * places / parts, last = (part + 1) * places / parts;
        if (n == 2) add<2>(gradient, from, last, to);
        if (n == 8) add<8>(gradient, from, last, to);
        if (n != 2 && n != 8) add<0>(gradient, from, last, to);
      }
    });
    parallel_for(0, values, grain(parts), [&](int64_t begin, int64_t end) {
      for (int64_t value = begin; value < end; ++value) {
        double sum = 0;
        for (int64_t part = 0; part < parts; ++part) sum += sums[part * values + value];
        (value < bank.num_shared * n ? shared[value] : own[value - bank.num_shared * n]) = T(static_cast<float>(sum));
      }
    });
  }

 private:
  // `fixed` is n where the compiler knows it: the usual widths of a table.
  template <int64_t fixed, typename T>
  void add(const T* gradient, int64_t place, int64_t last, double* sums) const {
    const int64_t width = fixed ? fixed : n;
    for (; place < last; ++place) {
      double* const to = sums + bank_row(bank, place) * width;
      for (int64_t i = 0; i < width; ++i) to[i] += static_cast<double>(float(gradient[place * width + i]));
    }
  }
};

Tensor param_gather(Tensor shared, Tensor own, Tensor index) {
  check_banks(shared, own, index);
  shared = dense(shared, "shared"), own = dense(own, "private"), index = dense(index, "index");
  const BankIndex bank{index.const_data_ptr<int32_t>(), index.size(0), index.size(1), shared.size(0), own.size(1)};
  check_index_values(bank);
  Tensor out = allocated(shared, with_trailing({bank.tasks, bank.rows}, shared, 1), "shared, index: the rows of all tasks");
  gather_rows(bank, static_cast<const char*>(shared.const_data_ptr()), static_cast<const char*>(own.const_data_ptr()),
              static_cast<char*>(out.mutable_data_ptr()), values_each(shared, 1) * static_cast<int64_t>(shared.element_size()));
  return out;
}

std::tuple<Tensor, Tensor> param_gather_backward(Tensor grad, Tensor index, int64_t num_shared, int64_t num_private) {
  check_bank_gradient(grad, index, num_shared, num_private);
  grad = dense(grad, "grad"), index = dense(index, "index");
  const BankIndex bank{index.const_data_ptr<int32_t>(), index.size(0), index.size(1), num_shared, num_private};
  check_index_values(bank);
  Tensor shared = allocated(grad, with_trailing({num_shared}, grad, 2), "num_shared: the gradient of the shared rows");
  Tensor own = allocated(grad, with_trailing({bank.tasks, num_private}, grad, 2), "num_private: the gradient of the private rows");
  with_type<BFloat16, Half>(grad, "grad", [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = values_each(grad, 2);
    if (n == 0) return;
    const T* const from = static_cast<const T*>(grad.const_data_ptr());
    T *const to = static_cast<T*>(shared.mutable_data_ptr()), *const to_own = static_cast<T*>(own.mutable_data_ptr());
    const CachedSums cached{bank, n};
    if (!std::is_same_v<T, double> && cached.fit()) return cached.reduce(from, to, to_own);
    const Readers readers = with_memory([&] { return Readers(bank); }, "num_shared, num_private: one number for each row");
    reduce_rows(bank, readers, from, to, to_own, n);
  });
  return {shared, own};
}

}  // namespace
}  // namespace dcrnn_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(dcrnn_fast, CPU, m) {
  m.impl("param_gather", TORCH_BOX(&dcrnn_fast::cpu::param_gather));
  m.impl("param_gather_backward", TORCH_BOX(&dcrnn_fast::cpu::param_gather_backward));
}
