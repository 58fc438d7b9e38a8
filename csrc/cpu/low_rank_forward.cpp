// low_rank_cross_rnn on the CPU: a tile of rows goes through all steps of all tasks while it is in cache.
#include <torch/csrc/stable/library.h>

#include "low_rank.h"
#include "results.h"

namespace dcrnn_fast::cpu {
namespace {

template <typename T, typename O>
void forward(const LowRankRecurrence<T, O>& p, T* out, bool return_states, T* activations) {
  const Kernels<T>& convert = kernels<T>();
  const LowRankTiles tiles(p.batch, (3 * p.plane + 2 * p.z_width() + p.context_plane) * sizeof(accumulator<T>), whole_rows<O>());
  parallel_for(0, tiles.count, 1, [&](int64_t begin, int64_t end) {
    LowRankTile<T, O> tile(p, tiles.most_rows());
    const BothBuffers<O> first(tiles.most_rows(), p.plane), others(tiles.most_rows(), p.plane), z(tiles.most_rows(), p.z_width());
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = tiles.begin(i), rows = tiles.begin(i + 1) - row;
      tile.begin(row, rows);
      for (int64_t task = 0; task < p.tasks; ++task) {
        const auto write_state = [&](int64_t steps_done, BothRows<O> state) {
          if (!return_states && steps_done < p.steps) return;
          const int64_t block = return_states ? task * (p.steps + 1) + steps_done : task;
          narrow_rows<T>(convert, rows, state.wide, p.dim, {out + (block * p.batch + row) * p.dim, p.dim});
        };
        BothRows<O> state = tile.x0();
        write_state(0, state);
        for (int64_t step = 0; step < p.steps; ++step) {
          tile.project(task, step, state.low, z.wide());
          tile.narrow(z.wide(), z.low(), p.gates, p.rank, p.rank_plane);
          for (int64_t g = 0; activations && g < p.gates; ++g) {
            T* const kept = activations + (((task * p.steps + step) * p.batch + row) * p.gates + g) * p.rank;
            narrow_rows<T>(convert, rows, z.wide().at(0, g * p.rank_plane), p.rank, {kept, p.gates * p.rank});
          }
          const BothBuffers<O>& next = step ? others : first;
          tile.advance(task, step, z.low(), state.wide, next.wide(), next.low(), {});
          state = next.rows();
          write_state(step + 1, state);
        }
      }
    }
  });
}

Forward run(LowRankArguments& arguments, bool saved) {
  arguments.prepare();
  const Tensor out = new_result(arguments.x0, arguments.out_shape(), "x0, steps: the states of all tasks");
  const Tensor activations = new_result(arguments.x0, arguments.activations_shape(saved), "x0, steps: the activations of all tasks");
  if (arguments.batch() && arguments.tasks())
    with_type<BFloat16, Half>(arguments.x0, "x0", [&](auto zero) {
      using T = decltype(zero);
      with_operands<T>([&](auto operand) {
        forward(LowRankRecurrence<T, decltype(operand)>(arguments, false), static_cast<T*>(out.mutable_data_ptr()), arguments.return_states,
                saved ? static_cast<T*>(activations.mutable_data_ptr()) : nullptr);
      });
    });
  return {out, activations};
}

}  // namespace
}  // namespace dcrnn_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(dcrnn_fast, CPU, m) {
  m.impl("low_rank_cross_rnn", TORCH_BOX(&dcrnn_fast::low_rank_cross_rnn<&dcrnn_fast::cpu::run>));
}
