// The Python module of the CUDA extension: facts about its build. Importing it registers the CUDA kernels of dcrnn_fast's operators.
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>

#include <string>

#include "../build_info.h"
#include "kernel_override.h"

PYBIND11_MODULE(_C_cuda, m) {
  m.doc() =
      "Facts about the compiled CUDA kernels; importing it registers them with PyTorch. Import dcrnn_fast._C first: it has the schemas.";
  m.def(
      "build_info",
      [] {
        pybind11::dict info = dcrnn_fast::build_info();
        info["cuda"] = std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
        info["architectures"] = DCRNN_FAST_CUDA_ARCHITECTURES;
        return info;
      },
      "Compiler, CUDA version, architectures, the PyTorch built against, the oldest PyTorch the binary loads in.");
  m.def(
      "override_kernels", &dcrnn_fast::cuda::override_kernels, pybind11::kw_only(), pybind11::arg("schedule") = "automatic",
      pybind11::arg("tiles") = "automatic",
      "Make later calls use this schedule (automatic, step, all_steps) and these tiles (automatic, small, large); results stay the same.");
}
