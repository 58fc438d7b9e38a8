// cross_rnn's forward on the CPU: a tile of rows goes through all steps of all tasks while it is in cache.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cross_rnn.h"

namespace dcrnn_fast::cpu {
namespace {

using torch::stable::new_empty;

template <typename T>
void forward(const Problem<T>& p, T* out, bool return_states, T* gates) {
  const int64_t rows = tile_rows(p, sizeof(T)), tiles = (p.batch + rows - 1) / rows, width = p.dim * p.gates;
  // Never one tile alone: outside a parallel region the library would use several threads and might add in another order.
  torch::stable::parallel_for(0, std::max<int64_t>(2, tiles), 1, [&](int64_t begin, int64_t end) {
    ForwardTile<T> tile(p, rows);
    for (int64_t i = begin; i < std::min(end, tiles); ++i) {
      const int64_t row = i * rows, count = std::min(rows, p.batch - row);
      tile.begin(row, count);
      for (int64_t task = 0; task < p.tasks; ++task) {
        const auto state = [&](int64_t step) -> Rows<T> {
          if (return_states) return {out + ((task * (p.steps + 1) + step + 1) * p.batch + row) * p.dim, p.dim};
          if (step + 1 < p.steps) return {};
          return {out + (task * p.batch + row) * p.dim, p.dim};
        };
        if (return_states) {
          const Rows<T> start = state(-1);
          for (int64_t r = 0; r < count; ++r) std::memcpy(static_cast<void*>(start[r]), p.x0[row + r], p.dim * sizeof(T));
        }
        tile.run(task, state, [&](int64_t step) -> Rows<T> {
          if (!gates) return {};
          return {gates + ((task * p.steps + step) * p.batch + row) * width, width};
        });
      }
    }
  });
}

std::tuple<Tensor, Tensor> cross_rnn(Tensor x0, Tensor shared_weight, Tensor shared_bias, Tensor private_weight, Tensor private_bias, Tensor index,
                                     int64_t steps, std::string cell, std::optional<Tensor> context, bool return_states, bool save) {
  Arguments arguments{x0, shared_weight, shared_bias, private_weight, private_bias, index, steps, cell, context};
  arguments.prepare();
  const Sizes sizes(arguments);
  std::vector<int64_t> shape{sizes.tasks, sizes.batch, sizes.dim}, gates_shape{0};
  if (return_states) shape.insert(shape.begin() + 1, steps + 1);
  if (save) gates_shape = {sizes.tasks, steps, sizes.batch, sizes.dim, sizes.gates};
  Tensor out = new_empty(x0, shape), gates = new_empty(x0, gates_shape);
  if (sizes.batch && sizes.tasks)
    with_type(x0, "cross_rnn", [&](auto zero) {
      using T = decltype(zero);
      forward(Problem<T>(arguments), static_cast<T*>(out.mutable_data_ptr()), return_states,
              save ? static_cast<T*>(gates.mutable_data_ptr()) : nullptr);
    });
  return {out, gates};
}

}  // namespace
}  // namespace dcrnn_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(dcrnn_fast, CPU, m) { m.impl("cross_rnn", TORCH_BOX(&dcrnn_fast::cpu::cross_rnn)); }
