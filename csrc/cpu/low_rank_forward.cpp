// cross_rnn's forward with a projection, on the CPU: a tile of rows goes through all steps of all tasks while it is in cache.
#include "low_rank_forward.h"

#include "low_rank.h"

namespace dcrnn_fast::cpu {
namespace {

template <typename T, typename O>
void forward(const LowRankProblem<T, O>& p, T* out, bool return_states, T* activations) {
  const Kernels<T>& convert = kernels<T>();
  const LowRankTiles tiles(p.batch, (2 * p.plane + 2 * p.z_width() + p.context_plane) * sizeof(accumulator<T>));
  torch::stable::parallel_for(0, tiles.count, 1, [&](int64_t begin, int64_t end) {
    LowRankTile<T, O> tile(p, tiles.most_rows());
    const BothBuffers<O> own(tiles.most_rows(), p.plane), z(tiles.most_rows(), p.z_width());
    for (int64_t i = begin; i < end && !p.interruption.came(); ++i) {
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
        for (int64_t step = 0; step < p.steps && !p.interruption.came(); ++step) {
          tile.project(task, step, state.low, z.wide());
          tile.narrow(z.wide(), z.low(), p.gates, p.rank, p.rank_plane);
          for (int64_t g = 0; activations && g < p.gates; ++g) {
            T* const kept = activations + (((task * p.steps + step) * p.batch + row) * p.gates + g) * p.rank;
            narrow_rows<T>(convert, rows, z.wide().at(0, g * p.rank_plane), p.rank, {kept, p.gates * p.rank});
          }
          tile.advance(task, step, z.low(), state.wide, own.wide(), own.low(), {});
          state = own.rows();
          write_state(step + 1, state);
        }
      }
    }
  });
  p.interruption.raise();
}

}  // namespace

template <typename T>
void low_rank_forward(const Arguments& arguments, T* out, bool return_states, T* activations) {
  with_operands<T>([&](auto zero) { forward(LowRankProblem<T, decltype(zero)>(arguments, false), out, return_states, activations); });
}

template void low_rank_forward(const Arguments&, float*, bool, float*);
template void low_rank_forward(const Arguments&, double*, bool, double*);
template void low_rank_forward(const Arguments&, BFloat16*, bool, BFloat16*);
template void low_rank_forward(const Arguments&, Half*, bool, Half*);

}  // namespace dcrnn_fast::cpu
