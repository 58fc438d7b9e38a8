// What the forward and the backward of cross_rnn share: the sizes, the weights in the layouts of the products, and the forward of one tile
// of rows. Letters as in ops.cpp; W = weight_steps is 1 if all steps share their weights, else steps.
#pragma once

#include <cstring>
#include <vector>

#include "../cell_arguments.h"
#include "buffer.h"
#include "elementwise.h"
#include "gemm.h"
#include "parallel.h"

namespace dcrnn_fast::cpu {

// For up to so many rows, a forward multiplies by the library, which reads the weights as they are: packing them would take longer than the
// products. So few rows go the same way on any number of threads.
constexpr int64_t few_rows = 3;

enum class Passes { forward, backward, both };

// Whether half precision is computed in float: a call that is too small to repay what the library does for a call; the gradients of few
// rows, whose products the library computes in one chain of additions each, with twice the error of plain PyTorch; and more rows on an x86
// CPU without units for it, where the library's products take many times as long as our own in float.
bool computes_in_float(const CellArguments& arguments, Passes passes);
// The tensor itself, or a copy of another dtype.
Tensor converted(const Tensor& tensor, ScalarType dtype);
// Converts x0, the weights and biases, and the context to float.
void widen(CellArguments& arguments);

// Copies what does not begin at a cache line, for a batch of few rows: the library multiplies these, with other bits on some CPUs.
void align_few_rows(CellArguments& arguments);

// A range of units [begin, end).
struct Units {
  int64_t begin = 0, end = 0;
  int64_t count() const { return end - begin; }
};

template <typename T>
struct Recurrence {
  using A = accumulator<T>;

  // Packs the weights that the products of these passes read.
  Recurrence(const CellArguments& arguments, Passes passes);

  int64_t tasks, batch, dim, context, columns, gates, steps, weight_steps;
  Rows<const T> x0;
  const T* context_states;
  Banks banks;
  const T *shared_weight, *private_weight;
  bool starts_alike;  // the first step of the shared units is the same for all tasks: it is computed once

  Units shared_units() const { return {0, banks.shared}; }
  Units private_units() const { return {banks.shared, dim}; }
  // The shared units whose first step is computed once.
  Units common() const { return starts_alike ? shared_units() : Units{}; }

  // Calls body with each range of units that a step computes for every task: the shared ones, unless all tasks start alike, and the private
  // ones. The units of a range have their weights side by side.
  template <typename Body>
  void own_units(int64_t step, const Body& body) const {
    if (joins_ && !(step == 0 && starts_alike)) return body(Units{0, dim});
    if (banks.shared && !(step == 0 && starts_alike)) body(shared_units());
    if (banks.own) body(private_units());
  }

  int64_t multiplications() const { return tasks * steps * dim * gates * columns; }  // of a row

  // The weights of a range's units at a step, [units, G, K].
  const T* weight(int64_t task, int64_t step, Units units) const {
    if (joins_) return joined_.get() + ((task * weight_steps + step % weight_steps) * dim + units.begin) * gates * columns;
    return row_of(banks, shared_weight, private_weight, task, step % weight_steps, units.begin, gates * columns);
  }
  // Whether a backward multiplies by the library: in half precision, and where a row of weights takes half a page or more.
  bool by_library() const { return is_low<T> || dim * sizeof(T) >= 2048; }
  // Whether a forward reads packed weights, by our own products.
  bool packed() const { return packs_; }
  const A* step_bias(int64_t task, int64_t step) const { return biases_.get() + (task * weight_steps + step % weight_steps) * dim * gates; }

  // product [rows, units * G] = [context, state] times the units' rows of the step's weights. Two products would round their sum twice in
  // half precision: there, context and state are first copied side by side to `operand` [rows, K].
  void multiply(int64_t task, int64_t step, int64_t row, int64_t rows, Units units, Rows<const T> state, Rows<T> product, T* operand) const;

 private:
  // The packed weights of the shared or the private units at a step of the weights, transposed in slices: [K, units * G].
  T* packed(int64_t task, int64_t weight_step, Units units) const {
    const int64_t shared = sliced_values<T>(columns, banks.shared * gates), own = sliced_values<T>(columns, banks.own * gates);
    if (units.begin < banks.shared) return packed_.get() + weight_step * shared;
    return packed_.get() + weight_steps * shared + (task * weight_steps + weight_step) * own;
  }
  void pack(int64_t tasks_of_units, Units units);

  bool packs_, joins_;
  Buffer<T> joined_;  // each task's weights [W, D, G, K], in half precision: two products take longer there than one
  Buffer<T> packed_;  // in float32 and float64
  Buffer<A> biases_;  // of each task [W, G, D]
};

// Divides the batch into tiles of about equal size. A tile has enough rows to repay what a product does once, packing the weights in the
// library's, and few enough that it stays in the second-level cache and that there are `parts` tiles. A forward has a part for each half a
// million multiplications: of few, a thread does not pay. The number of threads must not change its bits, so that of parts must not depend
// on it where the library multiplies.
struct Tiles {
  int64_t batch, count;

  template <typename T>
  explicit Tiles(const Recurrence<T>& p)
      : Tiles(p, std::clamp<int64_t>(p.batch * p.multiplications() >> 19, 1, p.packed() ? torch::stable::get_num_threads() : 4)) {}
  template <typename T>
  Tiles(const Recurrence<T>& p, int64_t parts)
      : Tiles(p.batch, is_low<T> ? 32 : 12, std::max<int64_t>(256, p.dim / 2), (2 + p.gates) * p.dim * sizeof(T), parts) {}
  int64_t begin(int64_t tile) const { return batch * tile / count; }
  int64_t most_rows() const { return (batch + count - 1) / count; }

 private:
  Tiles(int64_t batch, int64_t fewest, int64_t enough, int64_t row_bytes, int64_t parts);
};

// Runs all steps of a tile of rows for one task. Step l writes a and g to activations(l) [rows, G, D] and the next state to states(l).
// activations(l) may be null, and so may states(l) of all steps but the last.
template <typename T>
class ForwardTile {
 public:
  using A = accumulator<T>;

  ForwardTile(const Recurrence<T>& recurrence, int64_t rows);

  // Computes the first step's products of the common units, for `rows` rows from `row` on.
  void begin(int64_t row, int64_t rows);

  template <typename States, typename Activations>
  void run(int64_t task, const States& states, const Activations& activations);

 private:
  const Recurrence<T>& p_;
  const Kernels<T>& kernels_;
  Buffer<T> product_, low_, operand_, common_;
  Buffer<A> state_;
  int64_t row_ = 0, rows_ = 0;
};

template <typename T>
template <typename States, typename Activations>
void ForwardTile<T>::run(int64_t task, const States& states, const Activations& activations) {
  const Recurrence<T>& p = p_;
  const int64_t width = p.dim * p.gates;
  const Rows<const T> x0 = p.x0.at(row_);
  Rows<const T> operand = x0;
  Rows<const A> state;
  const Rows<A> own{state_.get(), p.dim};
  if constexpr (is_low<T>) {
    for (int64_t i = 0; i < rows_; ++i) kernels_.widen(x0[i], own[i], p.dim);
    state = own;
  } else {
    state = x0;
  }
  for (int64_t step = 0; step < p.steps; ++step) {
    const Rows<T> kept = activations(step), target = states(step);
    const Rows<T> product{product_.get(), width};
    const auto units = [&](Units range, Rows<const T> from, Rows<A> next, Rows<T> low) {
      const int64_t first = range.begin;
      const ForwardStep<T> pass{rows_,
                                range.count(),
                                p.dim,
                                from,
                                p.step_bias(task, step) + first,
                                x0.at(0, first),
                                state.at(0, first),
                                next.at(0, first),
                                low ? low.at(0, first) : low,
                                kept ? kept.at(0, first) : kept};
      (p.gates == 2 ? kernels_.forward_gated : kernels_.forward_cross)(pass);
    };
    Rows<A> next = own;
    Rows<T> low;
    if constexpr (is_low<T>)
      low = target ? target : Rows<T>{low_.get(), p.dim};
    else if (target)
      next = target;
    // all products come before the passes: these overwrite the state
    p.own_units(step, [&](Units range) {
      p.multiply(task, step, row_, rows_, range, operand, product.at(0, range.begin * p.gates), operand_.get());
    });
    const int64_t known = step == 0 ? p.common().end : 0;
    if (known) units({0, known}, {common_.get(), known * p.gates}, next, low);
    if (known < p.dim) units({known, p.dim}, product.at(0, known * p.gates), next, low);
    state = next;
    if constexpr (is_low<T>)
      operand = low;
    else
      operand = next;
  }
}

}  // namespace dcrnn_fast::cpu
