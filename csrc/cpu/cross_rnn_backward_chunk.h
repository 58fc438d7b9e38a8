// The backward's plan and memory for a chunk, some neighbouring tiles of rows: cross_rnn_backward_walk.h fills the memory, and
// cross_rnn_backward_weights.h multiplies it to dW. da|dq are the gradients of a and of the gate's argument q, side by side.
#pragma once

#include "cross_rnn.h"

namespace dcrnn_fast::cpu {

// Where the gradients go. A pointer is null where that gradient is not wanted.
template <typename A>
struct Gradients {
  A* x0;                              // [B, D], written
  A* context;                         // [steps, B, C], written
  A *shared_weight, *private_weight;  // [W, S, G, K] and [tasks, W, P, G, K], written; in half precision instead of both:
  A* weight;                          // [tasks, W, D, G, K], since the library's products of few units take longer
  double* bias;                       // [tasks, W, D, G], added to: the rounding error of one long chain would grow with the batch
};

template <typename T>
class BackwardChunk {
 public:
  using A = accumulator<T>;

  BackwardChunk(const Recurrence<T>& recurrence, const Gradients<accumulator<T>>& wanted)
      : p(recurrence),
        out(wanted),
        width(p.dim * p.gates),
        common_width(p.common().count() * p.gates),
        sums_size(p.weight_steps * width),
        tiles(p, torch::stable::get_num_threads()),
        tile(tiles.most_rows()),
        tiles_each(tiles_in_chunk()),
        rows_each(tiles_each * tile),
        products_(p.tasks * p.steps * rows_each * spread<T>(width)),
        states_(out.bias ? p.tasks * (p.steps - 1) * rows_each * spread<T>(p.dim) : 0),
        common_(rows_each * common_width),
        sums_(tiles_each * p.tasks * sums_size) {}

  const Recurrence<T>& p;
  const Gradients<A> out;
  const int64_t width, common_width, sums_size;
  const Tiles tiles;
  const int64_t tile, tiles_each, rows_each;
  int64_t row = 0, rows = 0;  // the chunk's place in the batch

  // da|dq [D, G] of a step, from row `local` of the chunk on.
  Rows<T> products(int64_t task, int64_t step, int64_t local) const {
    return {products_.get() + ((task * p.steps + step) * rows_each + local) * spread<T>(width), spread<T>(width)};
  }
  // The state before `step` >= 1.
  Rows<T> states(int64_t task, int64_t step, int64_t local) const {
    return {states_.get() + ((task * (p.steps - 1) + step - 1) * rows_each + local) * spread<T>(p.dim), spread<T>(p.dim)};
  }
  // da|dq of the common units at the first step, summed over the tasks.
  Rows<T> common(int64_t local) const { return {common_.get() + local * common_width, common_width}; }
  // Column sums of da|dq over a tile, [tasks, W, G, D].
  A* sums(int64_t tile_in_chunk) const { return sums_.get() + tile_in_chunk * p.tasks * sums_size; }

 private:
  // Enough tiles for all threads, and enough rows for efficient products of dW.
  int64_t tiles_in_chunk() const {
    constexpr int64_t enough = 512;
    const int64_t threads = torch::stable::get_num_threads(), wanted = std::max(threads, (enough + tile - 1) / tile);
    return std::min(tiles.count, (wanted + threads - 1) / threads * threads);
  }

  Buffer<T> products_, states_, common_;
  Buffer<A> sums_;
};

}  // namespace dcrnn_fast::cpu
