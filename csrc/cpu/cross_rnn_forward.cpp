// cross_rnn's forward on the CPU: a tile of rows goes through all steps of all tasks while it is in cache.
#include <torch/csrc/stable/library.h>

#include "cross_rnn.h"
#include "results.h"

namespace dcrnn_fast::cpu {
namespace {

template <typename T>
void forward(const Recurrence<T>& p, T* out, bool return_states, T* activations) {
  const Tiles tiles(p);
  const int64_t width = p.dim * p.gates;
  // Outside a parallel region, as for one tile alone, the library would use several threads and might add in another order.
  parallel_for(0, p.packed() ? tiles.count : std::max<int64_t>(2, tiles.count), 1, [&](int64_t begin, int64_t end) {
    ForwardTile<T> tile(p, tiles.most_rows());
    for (int64_t i = begin; i < std::min(end, tiles.count); ++i) {
      const int64_t row = tiles.begin(i), count = tiles.begin(i + 1) - row;
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
          if (!activations) return {};
          return {activations + ((task * p.steps + step) * p.batch + row) * width, width};
        });
      }
    }
  });
}

Forward run(CellArguments& arguments, bool saved) {
  arguments.prepare();
  const ScalarType dtype = arguments.x0.scalar_type();
  if (computes_in_float(arguments, Passes::forward)) widen(arguments);
  align_few_rows(arguments);
  const Tensor& x0 = arguments.x0;
  const Tensor out = new_result(x0, arguments.out_shape(), "x0, steps: the states of all tasks");
  const Tensor activations = new_result(x0, arguments.activations_shape(saved), "x0, steps: the activations of all tasks");
  if (arguments.batch() && arguments.tasks())
    with_type<BFloat16, Half>(x0, "x0", [&](auto zero) {
      using T = decltype(zero);
      T* const kept = saved ? static_cast<T*>(activations.mutable_data_ptr()) : nullptr;
      forward(Recurrence<T>(arguments, Passes::forward), static_cast<T*>(out.mutable_data_ptr()), arguments.return_states, kept);
    });
  return {converted(out, dtype), converted(activations, dtype)};
}

}  // namespace
}  // namespace dcrnn_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(dcrnn_fast, CPU, m) { m.impl("cross_rnn", TORCH_BOX(&dcrnn_fast::cross_rnn<&dcrnn_fast::cpu::run>)); }
