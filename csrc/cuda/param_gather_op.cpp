// PyTorch's operators param_gather and param_gather_backward on a GPU.
#include <tuple>

#include "../param_gather_arguments.h"
#include "binding.h"
#include "param_gather.h"

namespace dcrnn_fast::cuda {
namespace {

RowIndex index_of(const Tensor& index, int64_t num_shared, int64_t num_private) {
  return {data<const int32_t>(index), index.size(1), {index.size(0), 1, num_shared, num_private}};
}

Tensor param_gather(Tensor shared, Tensor own, Tensor index) {
  check_banks(shared, own, index);
  shared = dense(shared, "shared"), own = dense(own, "private"), index = dense(index, "index");
  const CurrentDevice current(shared);
  Tensor out = allocated(shared, with_trailing({index.size(0), index.size(1)}, shared, 1), "shared, index: the rows of all tasks");
  gather(index_of(index, shared.size(0), own.size(1)), data<const void>(shared), data<const void>(own), data<void>(out),
         values_each(shared, 1) * static_cast<int64_t>(shared.element_size()), gpu_of(current, shared));
  return out;
}

std::tuple<Tensor, Tensor> param_gather_backward(Tensor grad, Tensor index, int64_t num_shared, int64_t num_private) {
  check_bank_gradient(grad, index, num_shared, num_private);
  check(index.numel() <= UINT32_MAX, "index: got ", index.numel(), " values, expected less than 2^32 on a GPU");
  grad = dense(grad, "grad"), index = dense(index, "index");
  const CurrentDevice current(grad);
  Tensor shared = allocated(grad, with_trailing({num_shared}, grad, 2), "num_shared: the gradient of the shared rows");
  Tensor own = allocated(grad, with_trailing({index.size(0), num_private}, grad, 2), "num_private: the gradient of the private rows");
  with_type<BFloat16, Half>(grad, "grad", [&](auto zero) {
    using T = decltype(zero);
    sum_rows(index_of(index, num_shared, num_private), data<const T>(grad), data<T>(shared), data<T>(own), values_each(grad, 2),
             gpu_of(current, grad));
  });
  return {shared, own};
}

}  // namespace
}  // namespace dcrnn_fast::cuda

STABLE_TORCH_LIBRARY_IMPL(DCRNN_FAST_LIBRARY, DCRNN_FAST_DEVICE, m) {
  m.impl("param_gather", TORCH_BOX(&dcrnn_fast::cuda::param_gather));
  m.impl("param_gather_backward", TORCH_BOX(&dcrnn_fast::cuda::param_gather_backward));
}
