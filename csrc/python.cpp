// The Python face of the extension: facts about the build. Tensors reach the operators through PyTorch's dispatcher, never through here.
#include <pybind11/pybind11.h>
#include <torch/headeronly/version.h>

#include "cpu/isa.h"

#define DCRNN_FAST_STRING_(x) #x
#define DCRNN_FAST_STRING(x) DCRNN_FAST_STRING_(x)

namespace {

pybind11::dict build_info() {
  constexpr unsigned long long target = TORCH_TARGET_VERSION;
  pybind11::dict info;
  info["compiler"] = __VERSION__;
  info["cxx_standard"] = static_cast<long>(__cplusplus);
  info["built_against_torch"] =
      DCRNN_FAST_STRING(TORCH_VERSION_MAJOR) "." DCRNN_FAST_STRING(TORCH_VERSION_MINOR) "." DCRNN_FAST_STRING(TORCH_VERSION_PATCH);
  info["abi_target"] = std::to_string(target >> 56) + "." + std::to_string((target >> 48) & 0xff);
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Facts about the compiled extension; importing it registers the dcrnn_fast operators with PyTorch.";
  m.def("build_info", &build_info, "Compiler, C++ standard, the PyTorch built against, the oldest PyTorch the binary loads in.");
  m.def(
      "isa", [] { return dcrnn_fast::cpu::isa_name(dcrnn_fast::cpu::isa()); },
      "The CPU kernels' instruction set; ValueError where DCRNN_FAST_ISA names one that is unknown or that this CPU lacks.");
}
