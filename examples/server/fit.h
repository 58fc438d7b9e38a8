// Whether a package fits this program and this machine.
#pragma once

#include <boost/json/fwd.hpp>
#include <string>

namespace dcrnn_fast::server {

// Throws ModelError for another format, PyTorch release, kind of CPU or version of the operators than the package's description `about`
// names. `path` is the package's, for the message.
void check_fit(const boost::json::object& about, const std::string& path);

}  // namespace dcrnn_fast::server
