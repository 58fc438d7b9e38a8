// Checks of param_gather, and of the inverse of its index.
#pragma once

#include <utility>

#include "param_gather.h"
#include "report.h"

namespace {

// Gathers rows of `values` values with a grid so small that it loops, and sums them back.
template <typename T>
void check_gather(Report& report, const char* dtype, int values, double allowed) {
  constexpr int tasks = 2, rows = 70, num_shared = 5, num_private = 4, bank_rows = num_shared + num_private;
  const std::string name = std::string("gather ") + dtype + " rows of " + std::to_string(values * sizeof(T)) + " bytes";
  if (!report.wanted(Level::tiny, name)) return;
  Verdict verdict{allowed};
  Random random;
  const Doubles bank = random.values((num_shared + tasks * num_private) * values, 1), grad = random.values(tasks * rows * values, 1);
  std::vector<int32_t> index = random.indices(tasks * rows, bank_rows);
  index[0] = -1, index[rows] = bank_rows;
  const dcrnn_fast::BankIndex bank_index{index.data(), tasks, rows, num_shared, num_private};
  const std::vector<T> shared = typed<T>(bank, 0, num_shared * values), own = typed<T>(bank, num_shared * values);
  const std::vector<T> gradient = typed<T>(grad);
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
  verdict.check(gather(bank_index, shared.data(), own.data(), out.data(), values * sizeof(T), sizeof(T), {1, 232448}, nullptr));
  verdict.same_bits("out's bits", want, out);
  auto dshared = poisoned<T>(shared.size()), dprivate = poisoned<T>(own.size());
  std::vector<uint32_t> inverse(inverse_values(bank_index));
  verdict.check(sum_rows(bank_index, gradient.data(), inverse.data(), dshared.data(), dprivate.data(), values, nullptr));
  verdict.compare("sums", sums, joined(dshared, dprivate));
  report.add(name, verdict);
}

// Compares the lists of every bank row with those that a loop over the places makes.
void check_inverse(Report& report, Level level, int tasks, int rows, int num_shared, int num_private, int below) {
  const auto size = [](const char* letter, int value) { return " " + std::string(letter) + std::to_string(value); };
  const std::string name = "inverse" + size("T", tasks) + size("R", rows) + size("S", num_shared) + size("P", num_private);
  if (!report.wanted(level, name)) return;
  std::vector<int32_t> index = Random().indices(int64_t(tasks) * rows, below);
  for (size_t i = 0; i < index.size(); i += 7) index[i] = i % 2 ? -1 - int32_t(i) : num_shared + num_private + int32_t(i);
  std::vector<std::vector<uint32_t>> want(num_shared + tasks * num_private);
  for (int task = 0; task < tasks; ++task)
    for (int row = 0; row < rows; ++row) {
      const int found = index[task * rows + row];
      if (found < 0 || found >= num_shared + num_private) continue;
      const bool is_shared = found < num_shared;
      want[is_shared ? found : found + task * num_private].push_back(is_shared ? task * rows + row : row);
    }
  const dcrnn_fast::BankIndex bank{index.data(), tasks, rows, num_shared, num_private};
  auto memory = poisoned<uint32_t>(inverse_values(bank));
  Verdict verdict{0};
  verdict.check(invert(bank, memory.data(), nullptr));
  const InverseIndex inverse = inverse_in(memory.data(), bank);
  for (size_t row = 0; row < want.size(); ++row) {
    const int64_t own = int64_t(row) - num_shared;
    const uint32_t* const places = inverse.places + (own < 0 ? 0 : (tasks + own / num_private) * rows);
    const PlaceRange range = inverse.ranges[row];
    const bool sane = range.last >= range.first && range.last <= uint32_t(tasks) * rows;
    if (!sane || !std::equal(want[row].begin(), want[row].end(), places + range.first, places + range.last))
      verdict.add("a list", INFINITY);
  }
  report.add(name, verdict);
}

void check_param_gather(Report& report, double of_float, double of_double, double of_bfloat16, double of_float16) {
  check_gather<float>(report, "float32", 33, of_float);
  check_gather<float>(report, "float32", 8, of_float);
  check_gather<double>(report, "float64", 135, of_double);
  check_gather<BFloat16>(report, "bfloat16", 3, of_bfloat16);
  check_gather<Half>(report, "float16", 2, of_float16);
  check_inverse(report, Level::tiny, 2, 700, 1100, 1030, 2130);
  check_inverse(report, Level::tiny, 3, 40, 5, 0, 5);
  check_inverse(report, Level::tiny, 3, 40, 0, 5, 2);
  check_inverse(report, Level::tiny, 2, 0, 3, 2, 1);
  check_inverse(report, Level::tiny, 2, 5, 0, 0, 1);
  check_inverse(report, Level::brief, 1, 2000, 3, 2, 1);
  check_inverse(report, Level::all, 5, 3000, 1 << 16, 4097, (1 << 16) + 4097);
}

}  // namespace
