// Runs the product kernels on full tiles, and checks that their accesses to shared memory meet no conflict of memory banks: copies into the
// pipeline, loads of operands, and the sums that the backward stages. Prints the wavefronts of every line of the sources that makes such
// accesses. The exit code is 1 if a line takes more than it may.
#include <cstdio>
#include <string>
#include <vector>

#include "low_rank.h"
#include "machine.h"

namespace {

using namespace dcrnn_fast::cuda;

// The one limit: a warp's accesses to left operands that stay on the chip, at the end of a tile, of neighbouring columns from several rows,
// take twice the wavefronts. These are the states in the schedule of all steps, and all operands of the low-rank cell.
bool is_right(const std::string& line, const host::Wavefronts& w) {
  const bool operands = line.starts_with("cross_rnn_forward_kernels.h") || line.starts_with("low_rank_pipeline.h");
  return w.taken <= (operands ? 2 : 1) * w.least;
}

// Prints what the lines took, and returns whether all are right.
bool report(const char* math, const char* kernels, const std::map<std::string, host::Wavefronts>& lines) {
  bool right = !lines.empty();
  for (const auto& [line, w] : lines) {
    right = right && is_right(line, w);
    std::printf("%s %-9s %s %-32s %8lld accesses, %.2f times the least wavefronts\n", is_right(line, w) ? "right" : "WRONG", math, kernels,
                line.c_str(), static_cast<long long>(w.accesses), double(w.taken) / w.least);
  }
  return right;
}

template <typename T>
bool check(const char* math, bool tf32, Schedule schedule, Tiles tiles) {
  constexpr int steps = 2;
  const int size = tiles == Tiles::small ? 64 : 128;  // full tiles
  Problem<T> p{};
  const std::vector<T> rows(size * size * steps), weight(size * 2 * 2 * size), bias(size * 2);
  std::vector<int32_t> index(size);
  for (int i = 0; i < size; ++i) index[i] = i;
  p.x0 = p.context = rows.data(), p.shared_weight = p.private_weight = weight.data(), p.shared_bias = p.private_bias = bias.data();
  p.index = index.data();
  p.batch = p.dim = p.columns = p.rows = p.num_shared = size, p.tasks = 1, p.gates = 2, p.steps = steps;
  p.tf32 = tf32, p.device = {132, 232448}, p.schedule = schedule, p.tiles = tiles;
  std::vector<T> out(rows.size()), activations(2 * rows.size()), scratch(forward_scratch(p, false)), d(rows.size());
  std::vector<T> states(rows.size()), gradients(2 * rows.size()), dx0(rows.size()), dcontext(rows.size());
  std::vector<accumulator<T>> dx0_sums(rows.size()), sums(steps * backward_row_tiles(p) * 2 * size);

  std::map<std::string, host::Wavefronts> lines;
  host::counted = &lines;
  bool right = forward(p, out.data(), false, activations.data(), scratch.data(), nullptr) == cudaSuccess;
  if (schedule == Schedule::step) {
    const Workspace<T> workspace{states.data(), gradients.data(), d.data(), dx0_sums.data(), sums.data()};
    right = backward(p, rows.data(), false, activations.data(), workspace, dx0.data(), dcontext.data(), nullptr) == cudaSuccess && right;
  }
  host::counted = nullptr;
  const char* const kernels = schedule == Schedule::all_steps ? "all steps  " : tiles == Tiles::small ? "small tiles" : "large tiles";
  return report(math, kernels, lines) && right;
}

// Rank 64, or 32 so that z and y share a tile.
template <typename T>
bool check_low_rank(const char* math, bool tf32, Tiles tiles, int rank) {
  constexpr int steps = 2, size = 128;  // full tiles
  LowRankProblem<T> p{};
  const std::vector<T> rows(size * size * steps), weight(size * 2 * 2 * size), bias(size * 2);
  std::vector<int32_t> index(size);
  for (int i = 0; i < size; ++i) index[i] = i;
  p.x0 = p.context = rows.data(), p.shared_weight = p.private_weight = p.shared_projection = p.private_projection = weight.data();
  p.shared_bias = p.private_bias = bias.data(), p.index = p.projection_index = index.data();
  p.batch = p.dim = p.columns = p.rows = p.num_shared = size, p.rank = p.num_shared_projections = rank;
  p.tasks = 1, p.gates = 2, p.steps = steps, p.tf32 = tf32, p.device = {132, 1 << 20}, p.tiles = tiles;
  std::vector<T> out(rows.size()), activations(steps * size * 2 * rank), rank_gradients(activations.size()), states(rows.size());
  std::vector<T> gradients(2 * rows.size()), dx0(rows.size()), dcontext(rows.size());
  std::vector<accumulator<T>> dx0_sums(rows.size()), dcontext_sums(rows.size()), sums(steps * low_rank_row_tiles(p) * 2 * size);
  std::vector<double> scratch((low_rank_forward_bytes(p, true) + low_rank_backward_bytes(p, true)) / 8 + 1);

  std::map<std::string, host::Wavefronts> lines;
  host::counted = &lines;
  bool right = low_rank_forward(p, out.data(), false, activations.data(), scratch.data(), nullptr) == cudaSuccess;
  const LowRankWorkspace<T> workspace{states.data(),        gradients.data(), rank_gradients.data(), dx0_sums.data(),
                                      dcontext_sums.data(), sums.data(),      scratch.data()};
  right =
      low_rank_backward(p, rows.data(), false, activations.data(), true, workspace, dx0.data(), dcontext.data(), nullptr) == cudaSuccess &&
      right;
  host::counted = nullptr;
  const std::string kernels = "rank " + std::to_string(rank) + (tiles == Tiles::small ? " small" : " large");
  return report(math, kernels.c_str(), lines) && right;
}

template <typename T>
bool check_kernels(const char* math, bool tf32) {
  bool right = check<T>(math, tf32, Schedule::step, Tiles::small);
  right = check<T>(math, tf32, Schedule::step, Tiles::large) && right;
  right = check<T>(math, tf32, Schedule::all_steps, Tiles::small) && right;
  for (const Tiles tiles : {Tiles::small, Tiles::large})
    for (const int rank : {32, 64}) right = check_low_rank<T>(math, tf32, tiles, rank) && right;
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
