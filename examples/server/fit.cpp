#include "fit.h"

#include <sys/utsname.h>

#include <boost/json.hpp>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

#include "engine.h"
#include "model.h"

namespace json = boost::json;

namespace dcrnn_fast::server {
namespace {

constexpr int kFormat = 1;

std::string as_json(const json::value& value) { return json::serialize(value).substr(0, 100); }

std::string text_of(const json::object& about, const char* key) { return std::string(about.at(key).as_string()); }

// "2.13" of "2.13.0+cpu".
std::string release(const std::string& version) { return version.substr(0, version.find('.', version.find('.') + 1)); }

std::set<std::string> instruction_sets() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("flags")) {
      std::istringstream words(line.substr(line.find(':') + 1));
      return {std::istream_iterator<std::string>(words), {}};
    }
  return {};
}

void check_cpu(const json::object& cpu, const std::string& wrong) {
  utsname here{};
  uname(&here);
  for (const auto& [key, ours] : {std::pair{"system", here.sysname}, std::pair{"machine", here.machine}})
    if (cpu.at(key).as_string() != ours)
      throw ModelError(wrong + "its " + key + " is " + as_json(cpu.at(key)) + ", and here it is " + ours);
  const std::set<std::string> ours = instruction_sets();
  std::string lacking;
  for (const json::value& needed : cpu.at("instructions").as_array())
    if (!ours.contains(std::string(needed.as_string()))) lacking += (lacking.empty() ? "" : ", ") + std::string(needed.as_string());
  if (!lacking.empty()) throw ModelError(wrong + "this one lacks " + lacking + "; export the run on this machine, or with --cpu portable");
}

}  // namespace

void check_fit(const json::object& about, const std::string& path) {
  if (about.at("format") != kFormat)
    throw ModelError(path + " has format " + as_json(about.at("format")) + ", and this server reads format " + std::to_string(kFormat) +
                     "; build the server of dcrnn_fast " + as_json(about.at("dcrnn_fast")) + ", or export the run again with this version");
  if (about.at("kind") != "aoti")
    throw ModelError(path + " is of format " + as_json(about.at("kind")) + "; export the run with --format aoti");
  const std::string theirs = text_of(about, "torch"), ours = torch_version();
  if (release(theirs) != release(ours))
    throw ModelError(path + " was compiled for PyTorch " + theirs + ", and this server was built with " + ours +
                     "; build the server with that PyTorch, or export the run again with this one");
  check_cpu(about.at("cpu").as_object(), path + " was compiled for another kind of CPU: ");
  for (const auto& [name, schema] : about.at("operators").as_object()) {
    const std::string found = operator_schema(name);
    if (found.empty())
      throw ModelError(path + " calls the operator " + std::string(name) +
                       ", which this server lacks; build it with dcrnn_fast::ops, or export the run with --backend reference");
    if (schema.as_string() != found)
      throw ModelError(path + " was written by dcrnn_fast " + text_of(about, "dcrnn_fast") + ", whose operator " + std::string(name) +
                       " takes other arguments than here; build the server of that version, or export the run again with this one");
  }
}

}  // namespace dcrnn_fast::server
