// What the bindings to PyTorch share: an element type for a dtype, the device and its current stream.
#pragma once

#include <cuda_runtime_api.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>

#include "../arguments.h"
#include "cross_rnn.h"

namespace dcrnn_fast::cuda {

// Calls body with a value of the dtype's type; refuses dtypes that have no kernels.
template <typename Body>
auto with_type(const Tensor& tensor, const char* op, const Body& body) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return body(float{});
    case ScalarType::Double:
      return body(double{});
    case ScalarType::BFloat16:
      return body(BFloat16{});
    case ScalarType::Half:
      return body(Half{});
    default:
      fail(op, ": expected float32, float64, bfloat16 or float16");
  }
}

// The tensor's GPU as the current one, for as long as this lives.
struct Current {
  torch::stable::accelerator::DeviceGuard guard;
  Device device{};
  cudaStream_t stream = nullptr;

  explicit Current(const Tensor& tensor) : guard(tensor.get_device_index()) {
    const int index = tensor.get_device_index();
    STD_CUDA_CHECK(cudaDeviceGetAttribute(&device.multiprocessors, cudaDevAttrMultiProcessorCount, index));
    STD_CUDA_CHECK(cudaDeviceGetAttribute(&device.shared_memory, cudaDevAttrMaxSharedMemoryPerBlockOptin, index));
    void* current = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index, &current));
    stream = static_cast<cudaStream_t>(current);
  }
};

// Null for a tensor without values, as an absent one.
template <typename T>
T* data(const Tensor& tensor) {
  return tensor.numel() ? static_cast<T*>(tensor.mutable_data_ptr()) : nullptr;
}

inline void check_grid(int64_t count, const char* name) {
  check(count <= 65535, name, ": got ", count, ", expected at most 65535 on a GPU");
}

}  // namespace dcrnn_fast::cuda
