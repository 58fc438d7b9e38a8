// The kernels that the operators are forced to, for tests and measurements: PyTorch's operators have no argument for a choice whose result is
// the same.
#pragma once

#include <atomic>
#include <stdexcept>
#include <string>

#include "cross_rnn.h"

namespace dcrnn_fast::cuda {

inline std::atomic<Schedule> forced_schedule{Schedule::automatic};
inline std::atomic<Tiles> forced_tiles{Tiles::automatic};

// By name: "automatic", "step" or "all_steps", and "automatic", "small" or "large".
inline void force(const std::string& schedule, const std::string& tiles) {
  const auto one_of = [](const char* name, const std::string& value, auto... choices) {
    std::string expected;
    for (const auto& [word, choice] : {choices...}) {
      if (value == word) return choice;
      expected += (expected.empty() ? "" : ", ") + std::string(word);
    }
    throw std::invalid_argument(std::string(name) + ": got '" + value + "', expected one of " + expected);
  };
  using S = std::pair<const char*, Schedule>;
  using T = std::pair<const char*, Tiles>;
  const Schedule first = one_of("schedule", schedule, S{"automatic", Schedule::automatic}, S{"step", Schedule::step}, S{"all_steps", Schedule::all_steps});
  const Tiles second = one_of("tiles", tiles, T{"automatic", Tiles::automatic}, T{"small", Tiles::small}, T{"large", Tiles::large});
  forced_schedule = first, forced_tiles = second;
}

}  // namespace dcrnn_fast::cuda
