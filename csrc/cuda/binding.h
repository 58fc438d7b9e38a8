// What both bindings to PyTorch share, and what they need of the GPU. Under DCRNN_CUDA_ON_HOST the latter comes from
// tests/cuda_on_host/binding_shim.h, and the bindings take CPU tensors.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>

#include "../low_rank_arguments.h"
#include "../param_gather_arguments.h"
#include "cross_rnn.h"
#include "param_gather.h"

namespace dcrnn_fast::cuda {

inline void check_blocks(cudaError_t error) {
  check(error != cudaErrorInvalidConfiguration, "sizes: a launch would need more blocks than a GPU starts, 2147483647 by 65535");
}

}  // namespace dcrnn_fast::cuda

#if defined(DCRNN_CUDA_ON_HOST)
#include "binding_shim.h"
#else

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h>

#define DCRNN_FAST_LIBRARY dcrnn_fast
#define DCRNN_FAST_DEVICE CUDA

namespace dcrnn_fast::cuda {

inline int32_t kernel_device() { return aoti_torch_device_type_cuda(); }

inline void check_cuda(cudaError_t error) {
  check_blocks(error);
  STD_CUDA_CHECK(error);
}

// Makes the tensor's GPU the current one for as long as this lives.
struct Current {
  torch::stable::accelerator::DeviceGuard guard;
  Device device{};
  cudaStream_t stream = nullptr;

  explicit Current(const Tensor& tensor) : guard(tensor.get_device_index()) {
    const int index = tensor.get_device_index();
    check_cuda(cudaDeviceGetAttribute(&device.multiprocessors, cudaDevAttrMultiProcessorCount, index));
    check_cuda(cudaDeviceGetAttribute(&device.shared_memory, cudaDevAttrMaxSharedMemoryPerBlockOptin, index));
    void* current = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index, &current));
    stream = static_cast<cudaStream_t>(current);
  }
};

// out = left right, for batches of matrices. The C shim calls the library's kernel directly: through the dispatcher, the caller's autocast
// would cast the operands.
inline void multiply(const Tensor& out, const Tensor& left, const Tensor& right) {
  TORCH_ERROR_CODE_CHECK(aoti_torch_cuda_bmm_out(out.get(), left.get(), right.get()));
}

}  // namespace dcrnn_fast::cuda

#endif

namespace dcrnn_fast::cuda {

// The tensor's data, or null if it has no values.
template <typename T>
T* data(const Tensor& tensor) {
  if (tensor.numel() == 0) return nullptr;
  if constexpr (std::is_const_v<T>)
    return static_cast<T*>(tensor.const_data_ptr());
  else
    return static_cast<T*>(tensor.mutable_data_ptr());
}

// Memory for the inverse of an index.
inline Tensor new_inverse(const Tensor& like, const BankIndex& bank) {
  check(bank.tasks * bank.rows <= UINT32_MAX, "index: got ", bank.tasks * bank.rows, " values, expected less than 2^32 on a GPU");
  return allocated(like, {inverse_values(bank)}, "index: its inverse", ScalarType::Int);
}

}  // namespace dcrnn_fast::cuda
