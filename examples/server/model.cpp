#include "model.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <string_view>

#include "archive.h"
#include "fit.h"
#include "json_text.h"

namespace json = boost::json;

namespace dcrnn_fast::server {
namespace {

constexpr const char* kAbout = "extra/dcrnn_fast.json";
constexpr const char* kEncoder = "extra/encoder.json";

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

std::string id_of(const json::object& about) {
  const json::value* const digest = about.if_contains("model");
  return digest == nullptr ? "unknown" : std::string(digest->as_string()).substr(0, 12);
}

void score_a_row(const Model& model, std::size_t fields, std::size_t dense) {
  const std::vector<std::int64_t> ids(fields);
  const std::vector<float> values(dense);
  for (const float score : model.engine->run(ids, values, 1))
    if (!std::isfinite(score)) throw std::runtime_error("it gives a score that is no number");
}

}  // namespace

std::shared_ptr<const Model> load_model(const std::string& path, std::size_t threads) {
  const Opened file(path);
  Archive archive(file.path(), path);
  const std::string none = path + " is no file of `dcrnn-fast export`, or was changed after it was written";
  if (!archive.has(kAbout) || !archive.has(kEncoder)) throw ModelError(none + "; export the run again");
  try {
    const json::value about_value = parse_json(archive.read(kAbout)), encoding = parse_json(archive.read(kEncoder));
    const json::object& about = about_value.as_object();
    check_fit(about, path);
    const auto names = texts_of(about.at("names"));
    const std::size_t fields = about.at("fields").as_array().size(), dense = about.at("dense").as_array().size();
    auto model = std::make_shared<Model>(Model{.id = id_of(about),
                                               .kind = std::string(about.at("kind").as_string()),
                                               .written_by = std::string(about.at("dcrnn_fast").as_string()),
                                               .torch = std::string(about.at("torch").as_string()),
                                               .names = names,
                                               .tasks = texts_of(about.at("tasks")),
                                               .encoder = Encoder(encoding, about_value),
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

}  // namespace dcrnn_fast::server
