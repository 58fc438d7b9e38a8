// Checks of the operator's arguments; see param_gather_arguments.h.
#include "param_gather_arguments.h"

namespace dcrnn_fast {

void check_banks(const Tensor& shared, const Tensor& own, const Tensor& index, int32_t device) {
  check_memory(shared, "shared", device);
  check_memory(own, "private", device);
  check_memory(index, "index", device);
  check_index(index);
  check_alike_device(index, "index", shared, "shared");
  check_alike(own, "private", shared, "shared");
  check(shared.dim() >= 1 && own.dim() == shared.dim() + 1, "private: got shape ", shape(own), ", expected [T, P, ...] beside shared ",
        shape(shared));
  for (int64_t i = 1; i < shared.dim(); ++i) check_size(own, "private", i + 1, shared.size(i));
  check_size(own, "private", 0, index.size(0));
  check_rows(shared.size(0), own.size(1), index, "shared, private");
}

void check_bank_gradient(const Tensor& grad, const Tensor& index, int64_t num_shared, int64_t num_private, int32_t device) {
  check_memory(grad, "grad", device);
  check_memory(index, "index", device);
  check_index(index);
  check_alike_device(index, "index", grad, "grad");
  check(grad.dim() >= 2, "grad: got shape ", shape(grad), ", expected [T, R, ...]");
  check_size(grad, "grad", 0, index.size(0));
  check_size(grad, "grad", 1, index.size(1));
  check_rows(num_shared, num_private, index, "num_shared, num_private");
  const int64_t each = values_each(grad, 2);
  values_of({index.size(0), num_private, each}, "num_private: the gradient of the private rows");
  values_of({num_shared, each}, "num_shared: the gradient of the shared rows");
}

int64_t values_each(const Tensor& tensor, int64_t from) {
  return values_of(with_trailing({}, tensor, from), "grad, shared: the values of a row");
}

}  // namespace dcrnn_fast
