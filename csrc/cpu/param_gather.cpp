// param_gather on the CPU: copies of rows; and its backward: sums in a fixed order.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "../param_gather_arguments.h"
#include "bank.h"

namespace dcrnn_fast::cpu {
namespace {

Tensor param_gather(Tensor shared, Tensor own, Tensor index) {
  check_banks(shared, own, index, aoti_torch_device_type_cpu());
  check_dtype(shared, "shared");
  shared = dense(shared, "shared"), own = dense(own, "private"), index = dense(index, "index");
  const BankIndex bank{index.const_data_ptr<int32_t>(), index.size(0), index.size(1), shared.size(0), own.size(1)};
  check_index_values(bank);
  Tensor out = allocated(shared, with_trailing({bank.tasks, bank.rows}, shared, 1), "shared, index: the rows of all tasks");
  gather_rows(bank, static_cast<const char*>(shared.const_data_ptr()), static_cast<const char*>(own.const_data_ptr()),
              static_cast<char*>(out.mutable_data_ptr()), values_each(shared, 1) * static_cast<int64_t>(shared.element_size()));
  return out;
}

std::tuple<Tensor, Tensor> param_gather_backward(Tensor grad, Tensor index, int64_t num_shared, int64_t num_private) {
  check_bank_gradient(grad, index, num_shared, num_private, aoti_torch_device_type_cpu());
  grad = dense(grad, "grad"), index = dense(index, "index");
  const BankIndex bank{index.const_data_ptr<int32_t>(), index.size(0), index.size(1), num_shared, num_private};
  check_index_values(bank);
  Tensor shared = allocated(grad, with_trailing({num_shared}, grad, 2), "num_shared: the gradient of the shared rows");
  Tensor own = allocated(grad, with_trailing({bank.tasks, num_private}, grad, 2), "num_private: the gradient of the private rows");
  with_type<BFloat16, Half>(grad, "grad", [&](auto zero) {
    using T = decltype(zero);
    if (values_each(grad, 2) == 0) return;
    const Readers readers = with_memory([&] { return Readers(bank); }, "num_shared, num_private: one number for each row");
    reduce_rows(bank, readers, static_cast<const T*>(grad.const_data_ptr()), static_cast<T*>(shared.mutable_data_ptr()),
                static_cast<T*>(own.mutable_data_ptr()), values_each(grad, 2));
  });
  return {shared, own};
}

}  // namespace
}  // namespace dcrnn_fast::cpu

STABLE_TORCH_LIBRARY_IMPL(dcrnn_fast, CPU, m) {
  m.impl("param_gather", TORCH_BOX(&dcrnn_fast::cpu::param_gather));
  m.impl("param_gather_backward", TORCH_BOX(&dcrnn_fast::cpu::param_gather_backward));
}
