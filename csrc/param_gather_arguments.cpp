// Checks of the operator's arguments, with the words of dcrnn_fast/ops/param_gather.py; see param_gather_arguments.h.
#include "param_gather_arguments.h"

namespace dcrnn_fast {
namespace {

void check_index(const Tensor& index, const Tensor& other, const char* name) {
  check_memory(index, "index");
  check_dtype(index, "index", ScalarType::Int);
  check_alike_device(index, "index", other, name);
  Sizes().check_shape(index, "index", "TR");
}

// The rows of both banks: few enough that the backward may keep a number for each, and one at least where an index reads them.
void check_rows(int64_t num_shared, int64_t num_private, const Tensor& index, const char* names) {
  check(num_shared >= 0 && num_shared <= most_rows && num_private >= 0 && num_private <= most_rows, names, ": got ", num_shared, " and ",
        num_private, " rows, expected 0 to ", most_rows, " each");
  if (num_shared + num_private == 0 && index.numel() > 0) fail_as("IndexError", "index: got values, expected none: the banks have no rows");
}

}  // namespace

void check_banks(const Tensor& shared, const Tensor& own, const Tensor& index) {
  check_memory(shared, "shared");
  check_memory(own, "private");
  check_floats(shared, "shared");
  check_alike(own, "private", shared, "shared");
  check_index(index, shared, "shared");
  bool fits = shared.dim() >= 1 && own.dim() == shared.dim() + 1;
  for (int64_t i = 1; fits && i < shared.dim(); ++i) fits = own.size(i + 1) == shared.size(i);
  check(fits, "private: got shape ", shape(own), ", expected [T, P, ...] with the trailing sizes of shared [S, ...], which is ",
        shape(shared));
  check(own.size(0) == index.size(0), "private: got ", own.size(0), " tasks, expected ", index.size(0), " as index ", shape(index), " has");
  check_rows(shared.size(0), own.size(1), index, "shared, private");
}

void check_bank_gradient(const Tensor& grad, const Tensor& index, int64_t num_shared, int64_t num_private) {
  check_memory(grad, "grad");
  check_floats(grad, "grad");
  check_index(index, grad, "grad");
  check(grad.dim() >= 2 && grad.size(0) == index.size(0) && grad.size(1) == index.size(1), "grad: got shape ", shape(grad),
        ", expected [T, R, ...] for index ", shape(index));
  check_rows(num_shared, num_private, index, "num_shared, num_private");
  const int64_t each = values_each(grad, 2);
  values_of({index.size(0), num_private, each}, "num_private: the gradient of the private rows");
  values_of({num_shared, each}, "num_shared: the gradient of the shared rows");
}

int64_t values_each(const Tensor& tensor, int64_t from) {
  return values_of(with_trailing({}, tensor, from), "grad, shared: the values of a row");
}

}  // namespace dcrnn_fast
