// What the bindings to PyTorch share, and what they need of the GPU. Under DCRNN_CUDA_ON_HOST the latter comes from
// tests/cuda_on_host/binding_shim.h, and the bindings take CPU tensors.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>

#include "../checks.h"
#include "gpu.h"
#include "types.h"

#if defined(DCRNN_CUDA_ON_HOST)
#include "binding_shim.h"
#else

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h>

#define DCRNN_FAST_LIBRARY dcrnn_fast
#define DCRNN_FAST_DEVICE CUDA

namespace dcrnn_fast::cuda {

// Makes the tensor's GPU the current one for as long as this lives.
struct CurrentDevice {
  torch::stable::accelerator::DeviceGuard guard;
  int multiprocessors = 0, shared_memory = 0;
  cudaStream_t stream = nullptr;

  explicit CurrentDevice(const Tensor& tensor) : guard(tensor.get_device_index()) {
    const int index = tensor.get_device_index();
    STD_CUDA_CHECK(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, index));
    STD_CUDA_CHECK(cudaDeviceGetAttribute(&shared_memory, cudaDevAttrMaxSharedMemoryPerBlockOptin, index));
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

// What launches need of PyTorch, for a call whose tensors are like this one.
inline Gpu gpu_of(const CurrentDevice& current, const Tensor& like) {
  const auto allocate = [like](int64_t bytes) {
    const auto memory = std::make_shared<Tensor>(allocated(like, {bytes}, "the call's own memory", ScalarType::Byte));
    return std::shared_ptr<void>(memory, memory->mutable_data_ptr());
  };
  const auto multiply_matrices = [like](const Matrices& out, const Matrices& left, const Matrices& right) {
    const auto tensor_of = [&](const Matrices& m) {
      return torch::stable::from_blob(const_cast<void*>(m.values), m.sizes, m.strides, like.device(), like.scalar_type());
    };
    multiply(tensor_of(out), tensor_of(left), tensor_of(right));
  };
  return {current.multiprocessors, current.shared_memory, current.stream, allocate, multiply_matrices};
}

}  // namespace dcrnn_fast::cuda
