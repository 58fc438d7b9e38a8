// Checks of param_gather and its backward.
#pragma once

#include "param_gather.h"
#include "report.h"

namespace {

// Gathers rows of `values` values with a grid so small that it loops, and sums them back.
template <typename T>
void check_gather(Report& report, const char* dtype, double allowed, int values, int num_shared = 5, int num_private = 4, int rows = 70) {
  constexpr int tasks = 2;
  const int bank_rows = num_shared + num_private;
  const std::string name = std::string("gather ") + dtype + " rows of " + std::to_string(values * sizeof(T)) + " bytes from " +
                           std::to_string(num_shared) + " and " + std::to_string(num_private);
  if (!report.wanted(Level::tiny, name)) return;
  Verdict verdict{allowed};
  Random random;
  const Doubles bank = random.values((num_shared + tasks * num_private) * values, 1), grad = random.values(tasks * rows * values, 1);
  std::vector<int32_t> index(tasks * rows);
  for (int32_t& x : index) x = random.below(bank_rows + 2) - 1;  // and some out of range
  const RowIndex row_index{index.data(), rows, {tasks, 1, num_shared, num_private}};
  const auto part = [](const Doubles& all, int64_t first, int64_t end) { return typed<T>({all.begin() + first, all.begin() + end}); };
  const int64_t shared_values = int64_t(num_shared) * values;
  const std::vector<T> shared = part(bank, 0, shared_values), own = part(bank, shared_values, bank.size()), gradient = typed<T>(grad);
  std::vector<T> want = poisoned<T>(tasks * rows * values), out(want.size());
  Doubles sums(bank.size());
  for (int place = 0; place < tasks * rows; ++place) {
    if (index[place] < 0 || index[place] >= bank_rows) continue;
    const int row = index[place] < num_shared ? index[place] : index[place] + place / rows * num_private;
    for (int i = 0; i < values; ++i) {
      round_to(want[place * values + i], static_cast<accumulator<T>>(bank[row * values + i]));
      sums[row * values + i] += grad[place * values + i];
    }
  }
  const Gpu gpu = gpu_with<T>(1, 232448);
  gather(row_index, shared.data(), own.data(), out.data(), values * sizeof(T), gpu);
  verdict.same_bits("out's bits", want, out);
  auto dshared = poisoned<T>(shared.size()), dprivate = poisoned<T>(own.size());
  sum_rows(row_index, gradient.data(), dshared.data(), dprivate.data(), values, gpu);
  verdict.compare("the shared rows' sums", {sums.begin(), sums.begin() + shared_values}, dshared);
  verdict.compare("the private rows' sums", {sums.begin() + shared_values, sums.end()}, dprivate);
  report.add(name, verdict);
}

void check_param_gather(Report& report, double of_float, double of_double, double of_bfloat16, double of_float16) {
  check_gather<float>(report, "float32", of_float, 33);
  check_gather<float>(report, "float32", of_float, 8);
  check_gather<double>(report, "float64", of_double, 600, 3, 0, 9);
  check_gather<double>(report, "float64", of_double, 1, 30, 21, 100);
  check_gather<float>(report, "float32", of_float, 2, 0, 5);
  check_gather<BFloat16>(report, "bfloat16", of_bfloat16, 3);
  check_gather<Half>(report, "float16", of_float16, 2);
}

}  // namespace
