#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <algorithm>
#include <sstream>
#include <stdexcept>

#include "engine.h"

namespace dcrnn_fast::server {
namespace {

// Where each name's scores are among the outputs: a package says so as ... "context": "[\"click\", \"buy\"]" ...
std::vector<std::size_t> order_of(const std::string& spec, const std::vector<std::string>& names) {
  std::vector<std::size_t> places, order;
  for (const std::string& name : names) {
    places.push_back(spec.find("\\\"" + name + "\\\""));
    if (places.back() == std::string::npos) throw std::runtime_error("the compiled model has no score " + name);
  }
  for (const std::size_t place : places) order.push_back(std::ranges::count_if(places, [&](std::size_t other) { return other < place; }));
  return order;
}

class Aoti : public Engine {
 public:
  explicit Aoti(const EngineNeeds& needs)
      : fields_(static_cast<std::int64_t>(needs.fields)),
        dense_(static_cast<std::int64_t>(needs.dense)),
        loader_(needs.path, "model", /*run_single_threaded=*/false, /*num_runners=*/needs.threads),
        order_(order_of(loader_.get_call_spec().at(1), needs.names)) {}

  std::vector<float> run(std::span<const std::int64_t> ids, std::span<const float> dense, std::int64_t rows) override {
    // Requests are what runs in parallel. A thread that also divided its own batch would wait for the threads of others.
    thread_local const bool alone = (at::set_num_threads(1), true);
    static_cast<void>(alone);
    const c10::InferenceMode no_derivatives;
    std::vector<at::Tensor> inputs{at::from_blob(const_cast<std::int64_t*>(ids.data()), {rows, fields_}, at::kLong)};
    if (dense_) inputs.push_back(at::from_blob(const_cast<float*>(dense.data()), {rows, dense_}, at::kFloat));
    const std::vector<at::Tensor> outputs = loader_.run(inputs);
    if (outputs.size() != order_.size()) throw std::runtime_error("the compiled model gives another number of scores than it has names");
    std::vector<float> scores;
    scores.reserve(order_.size() * static_cast<std::size_t>(rows));
    for (const std::size_t output : order_) {
      const at::Tensor column = outputs[output].contiguous();
      if (column.scalar_type() != at::kFloat || column.numel() != rows) throw std::runtime_error("the compiled model gives no score a row");
      const float* const values = column.const_data_ptr<float>();
      scores.insert(scores.end(), values, values + rows);
    }
    return scores;
  }

 private:
  std::int64_t fields_, dense_;
  torch::inductor::AOTIModelPackageLoader loader_;
  std::vector<std::size_t> order_;
};

}  // namespace

std::unique_ptr<Engine> load_engine(const EngineNeeds& needs) { return std::make_unique<Aoti>(needs); }

std::string operator_schema(const std::string& name) {
  const auto found = c10::Dispatcher::singleton().findSchema({name, ""});
  if (!found) return "";
  std::ostringstream text;
  text << found->schema();
  return text.str();
}

}  // namespace dcrnn_fast::server
