// param_gather on the CPU: copies, and their deterministic reversal.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>
#include <vector>

#include "bank.h"
#include "dispatch.h"

namespace dcrnn_fast::cpu {
namespace {

using torch::stable::contiguous;
using torch::stable::new_empty;

std::vector<int64_t> with_trailing(std::vector<int64_t> leading, const Tensor& tensor, int64_t from) {
  for (int64_t i = from; i < tensor.dim(); ++i) leading.push_back(tensor.size(i));
  return leading;
}

int64_t values_each(const Tensor& tensor, int64_t from) {
  int64_t count = 1;
  for (int64_t i = from; i < tensor.dim(); ++i) count *= tensor.size(i);
  return count;
}

Tensor param_gather(Tensor shared, Tensor own, Tensor index) {
  check_index(index);
  with_type(shared, "param_gather", [](auto) {});
  check_alike(own, "private", shared, "shared");
  check(shared.dim() >= 1 && own.dim() == shared.dim() + 1, "private: got shape ", shape(own), ", expected [T, P, ...] beside shared ", shape(shared));
  for (int64_t i = 1; i < shared.dim(); ++i) check_size(own, "private", i + 1, shared.size(i));
  check_size(own, "private", 0, index.size(0));
  shared = contiguous(shared), own = contiguous(own), index = contiguous(index);
  const Bank bank{index.size(0), index.size(1), shared.size(0), own.size(1), index.const_data_ptr<int32_t>()};
  check_index_values(bank.index, index.numel(), bank.shared + bank.own);
  Tensor out = new_empty(shared, with_trailing({bank.tasks, bank.rows}, shared, 1));
  gather_rows(bank, static_cast<const char*>(shared.const_data_ptr()), static_cast<const char*>(own.const_data_ptr()),
              static_cast<char*>(out.mutable_data_ptr()), values_each(shared, 1) * static_cast<int64_t>(shared.element_size()));
  return out;
}

std::tuple<Tensor, Tensor> param_gather_backward(Tensor grad, Tensor index, int64_t num_shared, int64_t num_private) {
  check_index(index);
  check(grad.dim() >= 2, "grad: got shape ", shape(grad), ", expected [T, R, ...]");
  check_size(grad, "grad", 0, index.size(0));
  check_size(grad, "grad", 1, index.size(1));
  check(num_shared >= 0 && num_private >= 0, "num_shared, num_private: got ", num_shared, " and ", num_private, ", expected at least 0");
  grad = contiguous(grad), index = contiguous(index);
  const Bank bank{index.size(0), index.size(1), num_shared, num_private, index.const_data_ptr<int32_t>()};
  check_index_values(bank.index, index.numel(), bank.shared + bank.own);
  Tensor shared = new_empty(grad, with_trailing({num_shared}, grad, 2));
  Tensor own = new_empty(grad, with_trailing({bank.tasks, num_private}, grad, 2));
  with_type(grad, "param_gather_backward", [&](auto zero) {
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
