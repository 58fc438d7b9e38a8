#include "model.h"

#include <fcntl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <fstream>
#include <future>
#include <iterator>
#include <set>
#include <sstream>
#include <string_view>
#include <thread>

#include "../encoder/md5.h"
#include "../json/json_text.h"
#include "archive.h"

namespace json = boost::json;

namespace dcrnn_fast::server {
namespace {

constexpr const char* kAbout = "extra/dcrnn_fast.json";
constexpr const char* kEncoder = "extra/encoder.json";
constexpr int kFormat = 1;

// One file, even if another one takes its name meanwhile.
class Opened {
 public:
  explicit Opened(const std::string& path) : descriptor_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (descriptor_ < 0) throw ModelError(path + " does not exist or cannot be read; write it with `dcrnn-fast export --format aoti`");
  }
  ~Opened() { close(descriptor_); }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;
  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

std::vector<std::string> texts_of(const json::value& list) {
  std::vector<std::string> texts;
  for (const json::value& text : list.as_array()) texts.emplace_back(text.as_string());
  return texts;
}

std::string text_of(const json::object& about, const char* key) { return std::string(about.at(key).as_string()); }

void score_a_row(const Model& model, std::size_t fields, std::size_t dense) {
  const std::vector<std::int64_t> ids(fields);
  const std::vector<float> values(dense);
  for (const float score : model.engine->run(ids, values, 1))
    if (!std::isfinite(score)) throw std::runtime_error("it gives a score that is no number");
}

std::string as_json(const json::value& value) { return json::serialize(value).substr(0, 100); }

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

// Throws ModelError for another format, PyTorch release, kind of CPU or version of the operators than the package's description `about`
// names. `path` is the package's, for the message.
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

std::unique_ptr<const Model> load(const std::string& path, std::size_t threads) {
  const Opened file(path);
  Archive archive(file.path(), path);
  const std::string none = path + " is no file of `dcrnn-fast export`, or was changed after it was written";
  if (!archive.has(kAbout) || !archive.has(kEncoder)) throw ModelError(none + "; export the run again");
  try {
    const std::string encoder = archive.read(kEncoder);
    const json::value about_value = parse_json(archive.read(kAbout)), encoding = parse_json(encoder);
    const json::object& about = about_value.as_object();
    check_fit(about, path);
    const json::value* const digest = about.if_contains("encoder_md5");  // a file of before has none
    if (digest == nullptr || digest->as_string() != md5_hex(encoder)) throw std::runtime_error("its encoder is another model's");
    const auto names = texts_of(about.at("names"));
    const std::size_t fields = about.at("fields").as_array().size(), dense = about.at("dense").as_array().size();
    auto model = std::make_unique<Model>(Model{.id = text_of(about, "model").substr(0, 12),
                                               .kind = text_of(about, "kind"),
                                               .written_by = text_of(about, "dcrnn_fast"),
                                               .torch = text_of(about, "torch"),
                                               .names = names,
                                               .tasks = texts_of(about.at("tasks")),
                                               .encoder = Encoder(encoding, about_value),
                                               .unseen = std::make_unique<Unseen>(about.if_contains("cells"), fields),
                                               .engine = load_engine({file.path(), names, fields, dense, threads})});
    score_a_row(*model, fields, dense);
    return model;
  } catch (const ModelError&) {
    throw;
  } catch (const std::exception& error) {
    const std::string_view said = error.what();
    throw ModelError(none + " (" + std::string(said.substr(0, std::min<std::size_t>(said.find('\n'), 300))) + "); export the run again");
  }
}

}  // namespace

// The thread that loads a model and the one that deletes it end at once, so that the system can unload the model's code: see Batcher::work.
std::shared_ptr<const Model> load_model(const std::string& path, std::size_t threads) {
  std::unique_ptr<const Model> model = std::async(std::launch::async, load, path, threads).get();
  return {model.release(), [](const Model* old) { std::thread([old] { delete old; }).join(); }};
}

}  // namespace dcrnn_fast::server
