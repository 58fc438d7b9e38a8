// The kernels' instances: which tiles each kind of mathematics has, and which tiles a call gets.
#pragma once

#include <initializer_list>

#include "cross_rnn.h"
#include "multiply.h"

namespace dcrnn_fast::cuda {

// A tile has warps_m * blocks_m * 16 rows and warps_n * blocks_n * 8 columns. Tensor-core products are cheap, so their tiles are large to
// read fewer bytes. Exact products keep their operands in registers, and those of a large tile of doubles would not fit.
template <typename M>
struct StepTiles {
  using Small = Tiling<M, 2, 2, 1, 2>;
  using Large = std::conditional_t<M::tensor_cores, Tiling<M, 4, 2, 2, 4>,
                                   std::conditional_t<sizeof(typename M::Value) == 4, Tiling<M, 2, 4, 2, 2>, Small>>;
  using AllSteps = Tiling<M, 1, 4, 1, 2>;
};

template <typename M>
struct ProductTiles {
  using Small = Tiling<M, 2, 2, 1, 2>;
  using Large = std::conditional_t<M::tensor_cores, Tiling<M, 4, 2, 2, 8>, typename StepTiles<M>::Large>;
};

inline constexpr int small_stages = 4, large_stages = 3;

// Takes large tiles where every multiprocessor gets one.
template <typename Large, typename T>
bool takes_large(const Cell<T>& cell, int64_t width) {
  if (cell.tiles != Tiles::automatic) return cell.tiles == Tiles::large;
  return divide_up(cell.batch, Large::rows) * divide_up(width, Large::columns) * cell.tasks() >= cell.gpu.multiprocessors;
}

// Calls body with the kind of mathematics and the number of vectors a unit, G, as types.
template <typename T, typename Body>
auto with_kernels(const Cell<T>& cell, const Body& body) {
  const auto with_gates = [&](auto math) {
    return cell.gates == 2 ? body(math, std::integral_constant<int, 2>()) : body(math, std::integral_constant<int, 1>());
  };
  if constexpr (std::is_same_v<T, float>)
    return cell.tf32 ? with_gates(Math<float, true>()) : with_gates(Math<float, false>());
  else
    return with_gates(Math<T, !std::is_same_v<T, double>>());
}

// Whether rows of so many values are multiples of 16 bytes and start at multiples of 16 bytes.
template <typename T, typename... Pointers>
bool in_vectors(std::initializer_list<int> widths, Pointers... pointers) {
  uintptr_t all = (reinterpret_cast<uintptr_t>(pointers) | ...);
  for (const int width : widths) all |= width * sizeof(T);
  return all % 16 == 0;
}

}  // namespace dcrnn_fast::cuda
