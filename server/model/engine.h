// What computes scores of encoded rows.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace dcrnn_fast::server {

class Engine {
 public:
  virtual ~Engine() = default;
  // The scores of `rows` rows: those of the first name, then those of the second, and so on. `ids` [rows, F] and `dense` [rows, Nd] are the
  // encoder's. Several threads may call it.
  virtual std::vector<float> run(std::span<const std::int64_t> ids, std::span<const float> dense, std::int64_t rows) = 0;
};

struct EngineNeeds {
  std::string path;                // of the file
  std::vector<std::string> names;  // of the scores, in the order of the answer
  std::size_t fields, dense;       // columns of ids and of dense values
  std::size_t threads;             // that will call run at the same time
};

// The engine of a file: in engine_aoti.cpp, of compiled code, `dcrnn-fast export --format aoti`. Throws std::exception if it cannot be
// loaded.
std::unique_ptr<Engine> load_engine(const EngineNeeds& needs);

// The schema of an operator that is registered in this process, or "".
std::string operator_schema(const std::string& name);

}  // namespace dcrnn_fast::server
