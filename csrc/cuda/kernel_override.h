// Lets tests and measurements choose the kernels that the operators launch. The operators themselves have no argument for it: the choice
// does not change their result.
#pragma once

#include <atomic>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <utility>

#include "cross_rnn.h"

namespace dcrnn_fast::cuda {

inline std::atomic<Schedule> schedule_override{Schedule::automatic};
inline std::atomic<Tiles> tiles_override{Tiles::automatic};

template <typename Choice>
Choice one_of(const char* name, const std::string& value, std::initializer_list<std::pair<const char*, Choice>> choices) {
  std::string expected;
  for (const auto& [word, choice] : choices) {
    if (value == word) return choice;
    expected += (expected.empty() ? "" : ", ") + std::string(word);
  }
  throw std::invalid_argument(std::string(name) + ": got '" + value + "', expected one of " + expected);
}

// Sets the choice for every later call: "automatic", "step" or "all_steps", and "automatic", "small" or "large".
inline void override_kernels(const std::string& schedule, const std::string& tiles) {
  const auto new_schedule = one_of<Schedule>(
      "schedule", schedule, {{"automatic", Schedule::automatic}, {"step", Schedule::step}, {"all_steps", Schedule::all_steps}});
  tiles_override = one_of<Tiles>("tiles", tiles, {{"automatic", Tiles::automatic}, {"small", Tiles::small}, {"large", Tiles::large}});
  schedule_override = new_schedule;
}

}  // namespace dcrnn_fast::cuda
