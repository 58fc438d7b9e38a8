// cross_rnn's forward with a projection, on the CPU: a tile of rows goes through all steps of all tasks while it is in cache.
#include "low_rank_forward.h"

#include "low_rank.h"

namespace dcrnn_fast::cpu {
namespace {

template <typename T>
void narrow_rows(const Kernels<T>& convert, int64_t rows, int64_t count, Rows<const accumulator<T>> from, Rows<T> to) {
  for (int64_t r = 0; r < rows; ++r) convert.narrow(from[r], to[r], count);
}

}  // namespace

template <typename T>
void low_rank_forward(const Arguments& arguments, T* out, bool return_states, T* activations) {
  using A = accumulator<T>;
  const LowRankProblem<T> p(arguments, false);
  const Kernels<T>& convert = kernels<T>();
  const LowRankTiles tiles(p.batch, (2 * p.plane + 2 * p.z_width() + p.context_plane) * sizeof(A));
  torch::stable::parallel_for(0, tiles.count, 1, [&](int64_t begin, int64_t end) {
    LowRankTile<T> tile(p, tiles.most_rows());
    const Buffer<A> state_memory(tiles.most_rows() * p.plane), z_memory(tiles.most_rows() * p.z_width());
    const Rows<A> own{state_memory.get(), p.plane}, z{z_memory.get(), p.z_width()};
    for (int64_t i = begin; i < end && !p.interruption.came(); ++i) {
      const int64_t row = tiles.begin(i), rows = tiles.begin(i + 1) - row;
      tile.begin(row, rows);
      for (int64_t task = 0; task < p.tasks; ++task) {
        const auto write_state = [&](int64_t steps_done, Rows<const A> state) {
          if (!return_states && steps_done < p.steps) return;
          const int64_t block = return_states ? task * (p.steps + 1) + steps_done : task;
          narrow_rows<T>(convert, rows, p.dim, state, {out + (block * p.batch + row) * p.dim, p.dim});
        };
        Rows<const A> state = tile.x0();
        write_state(0, state);
        for (int64_t step = 0; step < p.steps && !p.interruption.came(); ++step) {
          const Rows<const A> found = tile.project(task, step, state, z);
          for (int64_t g = 0; activations && g < p.gates; ++g) {
            T* const kept = activations + (((task * p.steps + step) * p.batch + row) * p.gates + g) * p.rank;
            narrow_rows<T>(convert, rows, p.rank, found.at(0, g * p.rank_plane), {kept, p.gates * p.rank});
          }
          tile.advance(task, step, found, state, own, {});
          state = own;
          write_state(step + 1, state);
        }
      }
    }
  });
  p.interruption.raise();
}

template void low_rank_forward(const Arguments&, float*, bool, float*);
template void low_rank_forward(const Arguments&, double*, bool, double*);
template void low_rank_forward(const Arguments&, BFloat16*, bool, BFloat16*);
template void low_rank_forward(const Arguments&, Half*, bool, Half*);

}  // namespace dcrnn_fast::cpu
