// param_gather on the CPU: copies of rows; and its backward: sums in a fixed order.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "../arguments.h"
#include "bank.h"
#include "dispatch.h"

namespace dcrnn_fast::cpu {
namespace {

using torch::stable::contiguous;
using torch::stable::new_empty;

Tensor param_gather(Tensor shared, Tensor own, Tensor index) {
  check_banks(shared, own, index);
  check_dtype(shared, "shared");
  shared = contiguous(shared), own = contiguous(own), index = contiguous(index);
  const BankIndex bank{index.const_data_ptr<int32_t>(), index.size(0), index.size(1), shared.size(0), own.size(1)};
  check_index_values(bank.index, index.numel(), bank.num_shared + bank.num_private);
  Tensor out = new_empty(shared, with_trailing({bank.tasks, bank.rows}, shared, 1));
  gather_rows(bank, static_cast<const char*>(shared.const_data_ptr()), static_cast<const char*>(own.const_data_ptr()),
              static_cast<char*>(out.mutable_data_ptr()), values_each(shared, 1) * static_cast<int64_t>(shared.element_size()));
  return out;
}

std::tuple<Tensor, Tensor> param_gather_backward(Tensor grad, Tensor index, int64_t num_shared, int64_t num_private) {
  check_bank_gradient(grad, index, num_shared, num_private);
  grad = contiguous(grad), index = contiguous(index);
  const BankIndex bank{index.const_data_ptr<int32_t>(), index.size(0), index.size(1), num_shared, num_private};
  check_index_values(bank.index, index.numel(), bank.num_shared + bank.num_private);
  Tensor shared = new_empty(grad, with_trailing({num_shared}, grad, 2));
  Tensor own = new_empty(grad, with_trailing({bank.tasks, num_private}, grad, 2));
  with_type(grad, "grad", [&](auto zero) {
    using T = decltype(zero);
    reduce_rows(bank, Readers(bank), static_cast<const T*>(grad.const_data_ptr()), static_cast<T*>(shared.mutable_data_ptr()),
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
