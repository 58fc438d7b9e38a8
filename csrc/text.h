// A text argument of an operator. PyTorch's own conversion to std::string allocates one at each call and never frees it: AddressSanitizer
// saw that in 2.13.
#pragma once

#include <torch/csrc/stable/library.h>

#include <string>

namespace dcrnn_fast {

struct Text : std::string {
  using std::string::string;
};

}  // namespace dcrnn_fast

template <>
struct torch::stable::detail::ToImpl<dcrnn_fast::Text> {
  static dcrnn_fast::Text call(StableIValue value, [[maybe_unused]] uint64_t extension_build_version, [[maybe_unused]] bool is_internal) {
    const StringHandle handle = torch::stable::detail::to<StringHandle>(value);
    size_t length = 0;
    const char* data = nullptr;
    TORCH_ERROR_CODE_CHECK(torch_string_length(handle, &length));
    TORCH_ERROR_CODE_CHECK(torch_string_c_str(handle, &data));
    dcrnn_fast::Text text(data, length);
    TORCH_ERROR_CODE_CHECK(torch_delete_string(handle));
    return text;
  }
};
