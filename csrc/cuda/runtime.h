// CUDA's runtime for the headers that declare launches, and what a launch must know of the GPU.
#pragma once

#if defined(DCRNN_CUDA_ON_HOST)
#include "shim.h"
#else
#include <cuda_runtime_api.h>
#endif

namespace dcrnn_fast::cuda {

struct Device {
  int multiprocessors, shared_memory;  // bytes of shared memory a block may ask for
};

}  // namespace dcrnn_fast::cuda
