// Lets a signal such as Ctrl-C end a long call.
#pragma once

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

namespace dcrnn_fast {

// Asks the program whether the call should end. Null where nobody can tell, as in a program without Python.
inline std::atomic<bool (*)()> asks_to_end{nullptr};

// One call's view of it. All threads of the call may look; the thread that made it asks, every 50 ms.
class Interruption {
 public:
  bool came() const {
    if (came_.load(std::memory_order_relaxed)) return true;
    if (std::this_thread::get_id() == owner_ && clock::now() >= next_) {
      next_ = clock::now() + pause;
      const auto asks = asks_to_end.load();
      if (asks && asks()) came_ = true;
    }
    return came_.load(std::memory_order_relaxed);
  }

  void raise() const {
    if (came_) throw std::runtime_error("dcrnn_fast: a signal ended the call");
  }

 private:
  using clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds pause{50};
  const std::thread::id owner_ = std::this_thread::get_id();
  mutable clock::time_point next_ = clock::now() + pause;  // of the owner alone
  mutable std::atomic<bool> came_{false};
};

}  // namespace dcrnn_fast
