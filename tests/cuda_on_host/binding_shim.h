// What the bindings need of a GPU, provided by the CPU: the sizes of an H100, no stream, and the CPU library for matrix products.
#pragma once

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>

#define DCRNN_FAST_LIBRARY dcrnn_fast_on_host
#define DCRNN_FAST_DEVICE CPU

namespace dcrnn_fast::cuda {

struct CurrentDevice {
  int multiprocessors = 132, shared_memory = 232448;
  cudaStream_t stream = nullptr;

  explicit CurrentDevice(const Tensor&) {}
};

inline void multiply(const Tensor& out, const Tensor& left, const Tensor& right) {
  TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_bmm_out(out.get(), left.get(), right.get()));
}

}  // namespace dcrnn_fast::cuda
