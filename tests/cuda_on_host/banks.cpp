// Runs the product kernels on full tiles, and checks that their accesses to shared memory meet no conflict of memory banks: copies into the
// pipeline, loads of operands, and the sums that the backward stages. Prints the wavefronts of every line of the sources that makes such
// accesses. The exit code is 1 if a line takes more than it may.
#include <cstdio>
#include <string>
#include <vector>

#include "cross_rnn.h"
#include "report.h"

namespace {

// The one limit: a warp's accesses to left operands that stay on the chip, at the end of a tile, of neighbouring columns from several rows,
// take twice the wavefronts. These are the states in the schedule of all steps, and all operands of the low-rank cell.
bool is_right(const std::string& line, const host::Wavefronts& w) { return w.taken <= (line.starts_with("pipeline.h") ? 2 : 1) * w.least; }

// Prints what the lines took, and returns whether all are right.
bool report(const char* math, const char* kernels, const std::map<std::string, host::Wavefronts>& lines) {
  bool right = !lines.empty();
  for (const auto& [line, w] : lines) {
    right = right && is_right(line, w);
    std::printf("%s %-9s %-20s %-32s %8lld accesses, %.2f times the least wavefronts\n", is_right(line, w) ? "right" : "WRONG", math,
                kernels, line.c_str(), static_cast<long long>(w.accesses), double(w.taken) / w.least);
  }
  return right;
}

// The full cell, or of rank 64, or 32 so that z and y share a tile: two steps of full tiles.
template <typename T>
bool check(const char* math, bool tf32, Schedule schedule, Tiles tiles, int rank) {
  constexpr int steps = 2;
  const int size = rank || tiles == Tiles::large ? 128 : 64;
  const std::vector<T> rows(size * size * steps), weight(size * 2 * 2 * size);
  const auto bank = [&](int count) { return BankRows<T>{{1, 1, count, 0}, weight.data(), nullptr}; };
  LowRankCell<T> cell{};
  cell.x0 = cell.context = rows.data(), cell.weight = cell.bias = bank(size), cell.projection = bank(rank);
  cell.batch = cell.dim = cell.columns = size, cell.gates = 2, cell.steps = steps, cell.tf32 = tf32;
  cell.schedule = schedule, cell.tiles = tiles, cell.gpu = gpu_with<T>(132, rank ? 1 << 20 : 232448);
  std::vector<T> out(rows.size()), activations(2 * rows.size()), dx0(rows.size()), dcontext(rows.size());
  LowRankGradientPointers<T> gradients{};
  gradients.x0 = dx0.data(), gradients.context = dcontext.data();

  std::map<std::string, host::Wavefronts> lines;
  host::counted = &lines;
  const auto run = [&](const auto& some, const auto& some_gradients) {
    forward<T>(some, out.data(), false, activations.data());
    if (schedule == Schedule::step) backward<T>(some, rows.data(), false, activations.data(), some_gradients);
  };
  if (rank)
    run(cell, gradients);
  else
    run(static_cast<const Cell<T>&>(cell), static_cast<const GradientPointers<T>&>(gradients));
  host::counted = nullptr;
  const std::string kernels = (rank ? "rank " + std::to_string(rank) + " " : "") + (schedule == Schedule::all_steps ? "all steps"
                                                                                    : tiles == Tiles::small         ? "small tiles"
                                                                                                                    : "large tiles");
  return report(math, kernels.c_str(), lines);
}

template <typename T>
bool check_kernels(const char* math, bool tf32) {
  bool right = check<T>(math, tf32, Schedule::all_steps, Tiles::small, 0);
  for (const Tiles tiles : {Tiles::small, Tiles::large})
    for (const int rank : {0, 32, 64}) right = check<T>(math, tf32, Schedule::step, tiles, rank) && right;
  return right;
}

}  // namespace

// banks [level [kind of mathematics]]: the level is main.cpp's, and does not matter here.
int main(int count, char** arguments) {
  const std::string wanted = count > 2 ? arguments[2] : "";
  bool right = true;
  const auto run = [&](const std::string& math, auto zero, bool tf32 = false) {
    if (wanted.empty() || wanted == math) right = check_kernels<decltype(zero)>(math.c_str(), tf32) && right;
  };
  run("float32", float{});
  run("tf32", float{}, true);
  run("float64", double{});
  run("bfloat16", BFloat16{});
  run("float16", Half{});
  return !right;
}
