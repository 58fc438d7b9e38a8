// The Python module of the extension: facts about the build. Tensors never pass through it: they reach the operators through PyTorch's
// dispatcher.
#include <pybind11/pybind11.h>

#include "build_info.h"
#include "cpu/isa.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  m.doc() = "Facts about the compiled extension; importing it registers the dcrnn_fast operators with PyTorch.";
  m.def("build_info", &dcrnn_fast::build_info,
        "Compiler, C++ standard, the PyTorch built against, the oldest PyTorch the binary loads in.");
  m.def(
      "isa", [] { return dcrnn_fast::cpu::isa_name(dcrnn_fast::cpu::isa()); },
      "The CPU kernels' instruction set; ValueError where DCRNN_FAST_ISA names one that is unknown or that this CPU lacks.");
}
