// Runs the product kernels on full tiles, and checks that their accesses to shared memory meet no conflict of memory banks: copies into the
// pipeline, loads of operands, and the sums that the backward stages. Prints the wavefronts of every line of the sources that makes such
// accesses. The exit code is 1 if a line takes more than it may.
#include <cstdio>
#include <string>
#include <vector>

#include "cross_rnn.h"
#include "machine.h"

namespace {

using namespace dcrnn_fast::cuda;

// The one limit: in the schedule of all steps, a warp's accesses to the states at the end of a tile, of neighbouring units from several
// rows, take twice the wavefronts.
bool is_right(const std::string& line, const host::Wavefronts& w) {
  const bool states = line.starts_with("cross_rnn_forward_kernels.h");
  return w.taken <= (states ? 2 : 1) * w.least;
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
  right = right && !lines.empty();
  for (const auto& [line, w] : lines) {
    right = right && is_right(line, w);
    std::printf("%s %-9s %s %-32s %8lld accesses, %.2f times the least wavefronts\n", is_right(line, w) ? "right" : "WRONG", math,
                schedule == Schedule::all_steps ? "all steps  "
                : tiles == Tiles::small         ? "small tiles"
                                                : "large tiles",
                line.c_str(), static_cast<long long>(w.accesses), double(w.taken) / w.least);
  }
  return right;
}

template <typename T>
bool check_kernels(const char* math, bool tf32) {
  bool right = check<T>(math, tf32, Schedule::step, Tiles::small);
  right = check<T>(math, tf32, Schedule::step, Tiles::large) && right;
  return check<T>(math, tf32, Schedule::all_steps, Tiles::small) && right;
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
