// cross_rnn's forward on the CPU: a tile of rows goes through all steps of all tasks while it is in cache.
#include <torch/csrc/stable/library.h>

#include <cstdint>
#include <tuple>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "../text.h"
#include "cross_rnn.h"
#include "low_rank_forward.h"

namespace dcrnn_fast::cpu {
namespace {

using torch::stable::clone;
using torch::stable::contiguous;
using torch::stable::narrow;
using torch::stable::new_empty;

// malloc keeps no large blocks for reuse. The system hands them out page by page while the passes write to them: 12000 page faults for 50
// MB of activations. Pages of 2 MiB, where the system grants them on request, avoid most of these.
void ask_for_huge_pages([[maybe_unused]] const Tensor& tensor) {
#if defined(__linux__)
  constexpr uintptr_t page = 2 << 20, fresh = 32 << 20;
  const uintptr_t start = reinterpret_cast<uintptr_t>(tensor.mutable_data_ptr()), bytes = tensor.numel() * tensor.element_size();
  const uintptr_t begin = (start + page - 1) / page * page, end = (start + bytes) / page * page;
  if (bytes >= fresh && begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// For 4 to 12 rows in float32, the library's choice of kernel was seen to depend on the number of threads, and so would the bits. Up to 3
// rows go the same way on any number of threads: a small batch is divided into tiles of 3 rows, which also add in shorter chains than a
// batch padded to 16 rows. Products in half precision are padded.
constexpr int64_t steady_rows = 16, few_rows = 3;

bool is_small(int64_t batch) { return batch > few_rows && batch < steady_rows; }

template <typename T>
void forward(const Problem<T>& p, T* out, bool return_states, T* activations) {
  const Tiles tiles = is_small(p.batch) && !is_low<T> ? Tiles::of_rows(p.batch, few_rows) : Tiles(p);
  const int64_t width = p.dim * p.gates;
  // Never one tile alone: outside a parallel region the library would use several threads and might add in another order.
  torch::stable::parallel_for(0, std::max<int64_t>(2, tiles.count), 1, [&](int64_t begin, int64_t end) {
    ForwardTile<T> tile(p, tiles.most_rows());
    for (int64_t i = begin; i < std::min(end, tiles.count) && !p.interruption.came(); ++i) {
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
  p.interruption.raise();
}

std::tuple<Tensor, Tensor, Tensor> cross_rnn(Tensor x0, Tensor shared_weight, Tensor shared_bias, Tensor private_weight,
                                             Tensor private_bias, Tensor index, int64_t steps, Text cell, std::optional<Tensor> context,
                                             std::optional<Tensor> shared_projection, std::optional<Tensor> private_projection,
                                             std::optional<Tensor> projection_index, bool return_states, int64_t keep,
                                             bool /*allow_tf32*/) {
  Arguments arguments{x0,    shared_weight, shared_bias, private_weight,    private_bias,       index,
                      steps, cell,          context,     shared_projection, private_projection, projection_index};
  prepare(arguments);
  check_keep(keep);
  const int64_t batch = arguments.batch();
  const bool padded =
      !arguments.low_rank() && is_small(batch) && (x0.scalar_type() == ScalarType::BFloat16 || x0.scalar_type() == ScalarType::Half);
  if (padded) pad(arguments, steady_rows);
  Tensor out = allocated(x0, arguments.out_shape(return_states), "x0, steps: the states of all tasks");
  Tensor activations = allocated(x0, arguments.activations_shape(keep), "x0, steps: the activations of all tasks");
  ask_for_huge_pages(out);
  ask_for_huge_pages(activations);
  if (batch && arguments.tasks())
    with_type(x0, "x0", [&](auto zero) {
      using T = decltype(zero);
      T* const kept = keep ? static_cast<T*>(activations.mutable_data_ptr()) : nullptr;
      if (arguments.low_rank()) return low_rank_forward(arguments, static_cast<T*>(out.mutable_data_ptr()), return_states, kept);
      forward(Problem<T>(arguments), static_cast<T*>(out.mutable_data_ptr()), return_states, kept);
    });
  if (padded) {
    out = clone(narrow(out, return_states ? 2 : 1, 0, batch));
    if (keep) activations = clone(narrow(activations, 2, 0, batch));
    out = contiguous(out), activations = contiguous(activations);
  }
  return {out, new_empty(x0, {0}), activations};
}

}  // namespace
}  // namespace dcrnn_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(dcrnn_fast, CPU, m) { m.impl("cross_rnn", TORCH_BOX(&dcrnn_fast::cpu::cross_rnn)); }
