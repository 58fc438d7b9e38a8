// The threads of a block: as threads of the CPU if DCRNN_HOST_THREADS is defined, so that a sanitizer sees a race between them; else as
// fibers, which take turns on one thread of the CPU and take a tenth of the time.
#pragma once

#include <cstddef>

#ifdef DCRNN_HOST_THREADS

#include <barrier>
#include <thread>
#include <vector>

namespace dcrnn_fast::cuda::host {

using Barrier = std::barrier<>;

// Runs task(0) to task(count - 1) at the same time, and returns when all have ended.
template <typename Task>
void run_together(int count, const Task& task) {
  std::vector<std::thread> all;
  for (int i = 0; i < count; ++i) all.emplace_back(task, i);
  for (std::thread& thread : all) thread.join();
}

}  // namespace dcrnn_fast::cuda::host

#else

#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

namespace dcrnn_fast::cuda::host {

// The fibers of a launch. Each runs until it waits at a barrier or ends; then the next one that has not ended goes on.
class Fibers {
 public:
  template <typename Task>
  Fibers(int count, const Task& task) : fibers_(count), left_(count) {
    Fibers* const before = running_;
    running_ = this;
    body_ = [](const void* given, int fiber) { (*static_cast<const Task*>(given))(fiber); };
    task_ = &task;
    for (Fiber& fiber : fibers_) {
      fiber.stack.reset(new std::byte[stack_bytes]);
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.get();
      fiber.context.uc_stack.ss_size = stack_bytes;
      fiber.context.uc_link = nullptr;
      makecontext(&fiber.context, &Fibers::begin, 0);
    }
    swapcontext(&caller_, &fibers_[0].context);
    running_ = before;
  }

  // Lets the others go on until the number changes. Each runs until it waits too: if none got anywhere, none ever will.
  static void wait_while(const unsigned& phase, unsigned old) {
    Fibers& all = *running_;
    while (phase == old) {
      const unsigned before = all.progress_;
      all.next();
      if (phase == old && all.progress_ == before) {
        std::fprintf(stderr, "cuda_on_host: thread %d waits at a barrier that another thread never reaches\n", all.at_);
        std::abort();
      }
    }
  }

  static void progressed() { ++running_->progress_; }

 private:
  struct Fiber {
    ucontext_t context;
    std::unique_ptr<std::byte[]> stack;
    bool ended = false;
  };

  static constexpr size_t stack_bytes = 1 << 17;

  static void begin() {
    Fibers& all = *running_;
    all.body_(all.task_, all.at_);
    all.fibers_[all.at_].ended = true;
    ++all.progress_;
    if (--all.left_)
      all.next();
    else
      setcontext(&all.caller_);
  }

  void next() {
    const int from = at_;
    do at_ = (at_ + 1) % static_cast<int>(fibers_.size());
    while (fibers_[at_].ended);
    if (at_ != from) swapcontext(&fibers_[from].context, &fibers_[at_].context);
  }

  static inline thread_local Fibers* running_ = nullptr;
  std::vector<Fiber> fibers_;
  ucontext_t caller_;
  void (*body_)(const void*, int);
  const void* task_;
  int at_ = 0, left_;
  unsigned progress_ = 0;
};

class Barrier {
 public:
  explicit Barrier(ptrdiff_t count) : count_(count), missing_(count) {}

  void arrive_and_wait() {
    if (--missing_) return Fibers::wait_while(phase_, phase_);
    missing_ = count_;
    ++phase_;
    Fibers::progressed();
  }

 private:
  ptrdiff_t count_, missing_;
  unsigned phase_ = 0;
};

template <typename Task>
void run_together(int count, const Task& task) {
  Fibers(count, task);
}

}  // namespace dcrnn_fast::cuda::host

#endif
