// The server's engine by TorchScript, to compare with: the file that the variable DCRNN_FAST_ENGINE_FILE names.
#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/jit/serialization/import.h>

#include <cstdlib>

#include "../../../server/model/engine.h"

namespace dcrnn_fast::server {
namespace {

class TorchScript : public Engine {
 public:
  explicit TorchScript(const EngineNeeds& needs)
      : needs_(needs), module_(torch::jit::load(std::getenv("DCRNN_FAST_ENGINE_FILE"), c10::Device(c10::kCPU))) {}

  std::vector<float> run(std::span<const std::int64_t> ids, std::span<const float> dense, std::int64_t rows) override {
    thread_local const bool alone = (at::set_num_threads(1), true);  // as the server's own engine
    static_cast<void>(alone);
    const c10::InferenceMode no_derivatives;
    std::vector<c10::IValue> inputs{
        at::from_blob(const_cast<std::int64_t*>(ids.data()), {rows, static_cast<std::int64_t>(needs_.fields)}, at::kLong)};
    if (needs_.dense)
      inputs.emplace_back(at::from_blob(const_cast<float*>(dense.data()), {rows, static_cast<std::int64_t>(needs_.dense)}, at::kFloat));
    const auto outputs = module_.forward(inputs).toGenericDict();
    std::vector<float> scores;
    for (const auto& name : needs_.names) {
      const at::Tensor column = outputs.at(name).toTensor().contiguous();
      scores.insert(scores.end(), column.const_data_ptr<float>(), column.const_data_ptr<float>() + rows);
    }
    return scores;
  }

 private:
  const EngineNeeds needs_;
  torch::jit::Module module_;
};

}  // namespace

std::unique_ptr<Engine> load_engine(const EngineNeeds& needs) { return std::make_unique<TorchScript>(needs); }

}  // namespace dcrnn_fast::server
