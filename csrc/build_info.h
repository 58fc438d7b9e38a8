// Facts about a build, for the Python modules of both extensions.
#pragma once

#include <pybind11/pybind11.h>
#include <torch/headeronly/version.h>

#include <string>

#define DCRNN_FAST_STRING_(x) #x
#define DCRNN_FAST_STRING(x) DCRNN_FAST_STRING_(x)

namespace dcrnn_fast {

inline pybind11::dict build_info() {
  constexpr unsigned long long target = TORCH_TARGET_VERSION;
  pybind11::dict info;
  info["compiler"] = __VERSION__;
  info["cxx_standard"] = static_cast<long>(__cplusplus);
  info["built_against_torch"] =
      DCRNN_FAST_STRING(TORCH_VERSION_MAJOR) "." DCRNN_FAST_STRING(TORCH_VERSION_MINOR) "." DCRNN_FAST_STRING(TORCH_VERSION_PATCH);
  info["abi_target"] = std::to_string(target >> 56) + "." + std::to_string((target >> 48) & 0xff);
  return info;
}

}  // namespace dcrnn_fast
