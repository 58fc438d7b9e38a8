// towers on the CPU: a tile of rows goes through a task's whole tower while it is in cache. It has no derivative.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <vector>

#include "../checks.h"
#include "buffer.h"
#include "low_rank.h"

namespace dcrnn_fast::cpu {
namespace {

constexpr int64_t most_layers = 1024;

// The widths of a tower's hidden layers, below which the states have D values. A task's packed values are, layer by layer, its weights
// [in, out] and biases [out], and then the head's weights [in] and bias.
struct Layers {
  int64_t dim;
  std::vector<int64_t> widths;

  int64_t widest() const { return widths.empty() ? 0 : *std::max_element(widths.begin(), widths.end()); }
  int64_t values() const {
    int64_t count = 0, in = dim;
    for (const int64_t width : widths) {
      count += (in + 1) * width, in = width;
      check(count <= most_size, "widths: got layers of more than ", most_size, " values, expected no more");
    }
    return count + in + 1;
  }
};

// Several sums side by side, which fill vectors: one chain of additions would also round more.
template <typename A>
A dot(const A* a, const A* b, int64_t count) {
  constexpr int64_t lanes = 16;
  A sums[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes)
    for (int64_t lane = 0; lane < lanes; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  for (; i < count; ++i) sums[i % lanes] += a[i] * b[i];
  for (int64_t half = lanes / 2; half; half /= 2)
    for (int64_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  return sums[0];
}

// z of a tile's rows for one task. `one` and `other` have room for the rows of the widest layer each.
template <typename A>
void tower(const Layers& layers, Rows<const A> states, int64_t rows, const A* packed, A* one, A* other, A* z) {
  const auto& product = low_rank_kernels<A>().product;
  Rows<const A> from = states;
  int64_t in = layers.dim;
  for (const int64_t width : layers.widths) {
    const Rows<A> to{one, width};
    const A* const bias = packed + in * width;
    for (int64_t row = 0; row < rows; ++row) std::copy_n(bias, width, to[row]);
    product({rows, width, in, from.data, from.stride, 1, packed, width, to, true});
    for (int64_t i = 0; i < rows * width; ++i) one[i] = one[i] < 0 ? A(0) : one[i];  // NaN stays NaN
    packed = bias + width, in = width, from = to;
    std::swap(one, other);
  }
  for (int64_t row = 0; row < rows; ++row) z[row] = dot(from[row], packed, in) + packed[in];
}

template <typename T>
void compute(const Layers& layers, const Tensor& states, const accumulator<T>* packed, const double* term, T* z) {
  using A = accumulator<T>;
  const int64_t tasks = states.size(0), batch = states.size(1), values = layers.values();
  const T* const data = static_cast<const T*>(states.const_data_ptr());
  const LowRankTiles tiles(batch, (layers.dim + 2 * layers.widest()) * sizeof(A));
  parallel_for(0, tiles.count, 1, [&](int64_t begin, int64_t end) {
    const int64_t most = tiles.most_rows();
    const Buffer<A> one(most * layers.widest()), other(most * layers.widest()), wide(is_low<T> ? most * layers.dim : 0);
    const Buffer<A> found(most);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = tiles.begin(i), rows = tiles.begin(i + 1) - row;
      for (int64_t task = 0; task < tasks; ++task) {
        const Rows<const T> given{data + task * states.stride(0) + row * states.stride(1), states.stride(1)};
        Rows<const A> from;
        if constexpr (is_low<T>) {
          for (int64_t r = 0; r < rows; ++r) kernels<T>().widen(given[r], wide.get() + r * layers.dim, layers.dim);
          from = {wide.get(), layers.dim};
        } else {
          from = given;
        }
        tower(layers, from, rows, packed + task * values, one.get(), other.get(), found.get());
        for (int64_t r = 0; r < rows; ++r) {
          const int64_t at = (row + r) * tasks + task;
          z[at] = term ? T(static_cast<A>(found.get()[r] + term[at])) : T(found.get()[r]);
        }
      }
    }
  });
}

Tensor towers(Tensor states, Tensor packed, Tensor widths, std::optional<Tensor> term) {
  check_memory(states, "states"), check_floats(states, "states"), Sizes().check_shape(states, "states", "TBD");
  widths = taken(widths, "widths", ScalarType::Long, {-1});
  check(widths.size(0) <= most_layers, "widths: got ", widths.size(0), " layers, expected at most ", most_layers);
  Layers layers{states.size(2), {}};
  for (int64_t i = 0; i < widths.size(0); ++i) {
    const int64_t width = widths.const_data_ptr<int64_t>()[i];
    check(width > 0 && width <= most_size && width % padding == 0, "widths: got ", width, ", expected multiples of ", padding, " up to ",
          most_size);
    layers.widths.push_back(width);
  }
  const auto exact = states.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  packed = taken(packed, "packed", exact, {states.size(0), layers.values()});
  if (states.size(2) > 1 && states.stride(2) != 1) states = dense(states, "states");
  if (term) term = taken(*term, "term", ScalarType::Double, {states.size(1), states.size(0)});
  values_of({states.size(0), states.size(1)}, "states: the logits");
  Tensor z = allocated(states, {states.size(1), states.size(0)}, "states: the logits");
  if (z.numel())
    with_type<BFloat16, Half>(states, "states", [&](auto zero) {
      using T = decltype(zero);
      const double* const added = term ? term->const_data_ptr<double>() : nullptr;
      compute<T>(layers, states, static_cast<const accumulator<T>*>(packed.const_data_ptr()), added, static_cast<T*>(z.mutable_data_ptr()));
    });
  return z;
}

}  // namespace
}  // namespace dcrnn_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(dcrnn_fast, CPU, m) { m.impl("towers", TORCH_BOX(&dcrnn_fast::cpu::towers)); }
