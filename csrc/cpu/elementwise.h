// The element-wise passes of the recurrence over a block of rows, compiled once for each instruction set from elementwise.inl. Strides are
// in elements. T is the type of the tensors, A the type of sums; where both are the same, the `low` copies are not written. Inputs and
// outputs of matrix products hold the G values of a unit side by side. All other arrays hold a row of a's values and, `dim` elements
// later, a row of g's; in the forward, which may take a part of the units, `plane` elements later.
#pragma once

#include <cstdint>

#include "isa.h"
#include "types.h"

namespace dcrnn_fast::cpu {

template <typename P>
struct Rows {
  P* data = nullptr;
  int64_t stride = 0;

  P* operator[](int64_t row) const { return data + row * stride; }
  explicit operator bool() const { return data != nullptr; }
  Rows at(int64_t row, int64_t column = 0) const { return {data + row * stride + column, stride}; }
  operator Rows<const P>() const { return {data, stride}; }
};

// h' = h + g x0 (product + bias). Writes a and g to `activations` where it is not null.
template <typename T>
struct ForwardStep {
  using A = accumulator<T>;
  int64_t rows, dim, plane;
  Rows<const T> product;  // [D, G] a row
  const A* bias;
  Rows<const T> x0;
  Rows<const A> state;
  Rows<A> next;
  Rows<T> low;
  Rows<T> activations;
};

// h' from kept activations.
template <typename T>
struct StateStep {
  using A = accumulator<T>;
  int64_t rows, dim;
  Rows<const T> activations, x0;
  Rows<const A> state;
  Rows<A> next;
  Rows<T> low;
};

// d = d + added, of which one may be absent; then one step of the backward: da|dq, x0's gradient, and the column sums of da|dq.
template <typename T>
struct BackwardStep {
  using A = accumulator<T>;
  int64_t rows, dim;
  Rows<const T> activations, x0, added;
  Rows<const A> d;
  Rows<A> d_out;
  Rows<A> dx0;
  Rows<T> products;  // da|dq, [D, G] a row
  A* sums;
};

template <typename T>
struct Kernels {
  using A = accumulator<T>;
  void (*forward_gated)(const ForwardStep<T>&);
  void (*forward_cross)(const ForwardStep<T>&);
  void (*states_gated)(const StateStep<T>&);
  void (*states_cross)(const StateStep<T>&);
  void (*backward_gated)(const BackwardStep<T>&);
  void (*backward_cross)(const BackwardStep<T>&);
  void (*widen)(const T* from, A* to, int64_t count);      // to = from
  void (*widen_add)(const T* from, A* to, int64_t count);  // to += from
  void (*add)(const A* from, A* to, int64_t count);        // to += from
  void (*narrow)(const A* from, T* to, int64_t count);     // to = from
};

template <typename T>
const Kernels<T>& kernels() {
  return table<Kernels<T>>();
}

}  // namespace dcrnn_fast::cpu
