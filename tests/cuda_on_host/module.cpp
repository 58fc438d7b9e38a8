// The CUDA kernels and their bindings on the CPU, as operators of dcrnn_fast_on_host. on_host.py defines their schemas before it loads
// this.
#include <pybind11/pybind11.h>

#include "kernel_override.h"

PYBIND11_MODULE(dcrnn_fast_cuda_on_host, m) {
  m.def("override_kernels", &dcrnn_fast::cuda::override_kernels, pybind11::kw_only(), pybind11::arg("schedule") = "automatic",
        pybind11::arg("tiles") = "automatic");
}
