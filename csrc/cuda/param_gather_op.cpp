// PyTorch's operators param_gather and param_gather_backward on a GPU.
#include <tuple>

#include "binding.h"
#include "param_gather.h"

namespace dcrnn_fast::cuda {
namespace {

BankIndex bank_of(const Tensor& index, int64_t num_shared, int64_t num_private) {
  return {data<const int32_t>(index), index.size(0), index.size(1), num_shared, num_private};
}

Tensor param_gather(Tensor shared, Tensor own, Tensor index) {
  check_banks(shared, own, index, kernel_device());
  check_dtype(shared, "shared");
  shared = dense(shared, "shared"), own = dense(own, "private"), index = dense(index, "index");
  const Current current(shared);
  Tensor out = allocated(shared, with_trailing({index.size(0), index.size(1)}, shared, 1), "shared, index: the rows of all tasks");
  const int bytes = static_cast<int>(shared.element_size());
  check_cuda(gather(bank_of(index, shared.size(0), own.size(1)), data<const void>(shared), data<const void>(own), data<void>(out),
                    values_each(shared, 1) * bytes, bytes, current.device, current.stream));
  return out;
}

std::tuple<Tensor, Tensor> param_gather_backward(Tensor grad, Tensor index, int64_t num_shared, int64_t num_private) {
  check_bank_gradient(grad, index, num_shared, num_private, kernel_device());
  grad = dense(grad, "grad"), index = dense(index, "index");
  const Current current(grad);
  Tensor shared = allocated(grad, with_trailing({num_shared}, grad, 2), "num_shared: the gradient of the shared rows");
  Tensor own = allocated(grad, with_trailing({index.size(0), num_private}, grad, 2), "num_private: the gradient of the private rows");
  const BankIndex bank = bank_of(index, num_shared, num_private);
  const Tensor inverse = new_inverse(grad, bank);
  with_type<BFloat16, Half>(grad, "grad", [&](auto zero) {
    using T = decltype(zero);
    check_cuda(
        sum_rows(bank, data<const T>(grad), data<void>(inverse), data<T>(shared), data<T>(own), values_each(grad, 2), current.stream));
  });
  return {shared, own};
}

}  // namespace
}  // namespace dcrnn_fast::cuda

STABLE_TORCH_LIBRARY_IMPL(DCRNN_FAST_LIBRARY, DCRNN_FAST_DEVICE, m) {
  m.impl("param_gather", TORCH_BOX(&dcrnn_fast::cuda::param_gather));
  m.impl("param_gather_backward", TORCH_BOX(&dcrnn_fast::cuda::param_gather_backward));
}
