// The server's engine by ONNX Runtime, to compare with: the file that the variable DCRNN_FAST_ENGINE_FILE names.
#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdlib>

#include "../../../server/model/engine.h"

namespace dcrnn_fast::server {
namespace {

class OnnxRuntime : public Engine {
 public:
  explicit OnnxRuntime(const EngineNeeds& needs) : needs_(needs), session_(environment_, std::getenv("DCRNN_FAST_ENGINE_FILE"), options()) {
    for (const auto& name : needs_.names) outputs_.push_back(name.c_str());
  }

  std::vector<float> run(std::span<const std::int64_t> ids, std::span<const float> dense, std::int64_t rows) override {
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const std::array<std::int64_t, 2> of_ids{rows, static_cast<std::int64_t>(needs_.fields)};
    const std::array<std::int64_t, 2> of_dense{rows, static_cast<std::int64_t>(needs_.dense)};
    std::vector<Ort::Value> inputs;
    inputs.push_back(
        Ort::Value::CreateTensor<std::int64_t>(memory, const_cast<std::int64_t*>(ids.data()), ids.size(), of_ids.data(), of_ids.size()));
    if (needs_.dense)
      inputs.push_back(
          Ort::Value::CreateTensor<float>(memory, const_cast<float*>(dense.data()), dense.size(), of_dense.data(), of_dense.size()));
    const std::array<const char*, 2> names{"ids", "dense"};
    const auto found = session_.Run(Ort::RunOptions{}, names.data(), inputs.data(), inputs.size(), outputs_.data(), outputs_.size());
    std::vector<float> scores;
    for (const auto& column : found) scores.insert(scores.end(), column.GetTensorData<float>(), column.GetTensorData<float>() + rows);
    return scores;
  }

 private:
  static Ort::SessionOptions options() {
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(1);  // as the server's own engine
    options.SetGraphOptimizationLevel(ORT_ENABLE_ALL);
    return options;
  }

  const EngineNeeds needs_;
  Ort::Env environment_;
  Ort::Session session_;
  std::vector<const char*> outputs_;
};

}  // namespace

std::unique_ptr<Engine> load_engine(const EngineNeeds& needs) { return std::make_unique<OnnxRuntime>(needs); }

}  // namespace dcrnn_fast::server
