// The threads of a block: fibers, which take turns on one thread of the CPU. ThreadSanitizer takes each for a thread of its own, and sees
// a race between two of them whichever went first.
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#ifdef DCRNN_THREAD_SANITIZER
#include <sanitizer/tsan_interface.h>
#endif

// Functions of this model of a GPU. What they change is shared by all fibers, of which one runs at a time.
#ifdef __clang__
#define DCRNN_UNWATCHED __attribute__((disable_sanitizer_instrumentation))
#else
#define DCRNN_UNWATCHED __attribute__((no_sanitize("thread")))
#endif

namespace dcrnn_fast::cuda::host {

// What ThreadSanitizer is told. What a fiber does before `arrive` is ordered before what another does after `leave` with the same address.
#ifdef DCRNN_THREAD_SANITIZER
DCRNN_UNWATCHED inline void* watched_fiber() { return __tsan_create_fiber(0); }
DCRNN_UNWATCHED inline void* watched_now() { return __tsan_get_current_fiber(); }
DCRNN_UNWATCHED inline void watch(void* fiber) { __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync); }
DCRNN_UNWATCHED inline void forget(void* fiber) { __tsan_destroy_fiber(fiber); }
DCRNN_UNWATCHED inline void arrive(void* at) { __tsan_release(at); }
DCRNN_UNWATCHED inline void leave(void* at) { __tsan_acquire(at); }
#else
inline void* watched_fiber() { return nullptr; }
inline void* watched_now() { return nullptr; }
inline void watch(void*) {}
inline void forget(void*) {}
inline void arrive(void*) {}
inline void leave(void*) {}
#endif

// A fiber, or the function that started fibers, where it goes on.
struct Fiber {
  ucontext_t context;
  std::unique_ptr<std::byte[]> stack;
  void* watched = nullptr;
  bool ended = false;
  bool left = false;
  void* registers[5];
};

#ifdef __x86_64__
// swapcontext would ask the operating system for the mask of signals each time, and AddressSanitizer would forget what it knows of the
// stack.
DCRNN_UNWATCHED __attribute__((noinline, noreturn, no_sanitize("address"))) inline void go_on(Fiber& fiber) {
  if (fiber.left) __builtin_longjmp(fiber.registers, 1);
  setcontext(&fiber.context);
  std::abort();
}

DCRNN_UNWATCHED __attribute__((noinline, no_sanitize("address"))) inline void change(Fiber& from, Fiber& to) {
  watch(to.watched);
  from.left = true;
  if (!__builtin_setjmp(from.registers)) go_on(to);
}
#else
DCRNN_UNWATCHED inline void change(Fiber& from, Fiber& to) {
  watch(to.watched);
  swapcontext(&from.context, &to.context);
}
#endif

// The fibers of a launch. Each runs until it waits at a barrier or ends; then the next one that has not ended goes on.
class Fibers {
 public:
  template <typename Task>
  Fibers(int count, const Task& task) : owned_(count), fibers_(owned_.data()), count_(count), left_(count) {
    Fibers* const before = running_;
    running_ = this;
    body_ = [](const void* given, int fiber) { (*static_cast<const Task*>(given))(fiber); };
    task_ = &task;
    for (Fiber& fiber : owned_) {
      fiber.stack.reset(new std::byte[stack_bytes]);
      fiber.watched = watched_fiber();
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.get();
      fiber.context.uc_stack.ss_size = stack_bytes;
      fiber.context.uc_link = nullptr;
      makecontext(&fiber.context, &Fibers::begin, 0);
    }
    caller_.watched = watched_now();
    change(caller_, fibers_[0]);
    leave(this);
    for (Fiber& fiber : owned_) forget(fiber.watched);
    running_ = before;
  }

  // Lets the others go on until the number changes. Each runs until it waits too: if none got anywhere, none ever will.
  DCRNN_UNWATCHED static void wait_while(const unsigned& phase, unsigned old) {
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

  DCRNN_UNWATCHED static void progressed() { ++running_->progress_; }

 private:
  static constexpr size_t stack_bytes = 1 << 17;

  DCRNN_UNWATCHED static void begin() {
    Fibers& all = *running_;
    all.body_(all.task_, all.at_);
    arrive(&all);
    Fiber& mine = all.fibers_[all.at_];
    mine.ended = true;
    ++all.progress_;
    if (--all.left_)
      all.next();
    else
      change(mine, all.caller_);
  }

  DCRNN_UNWATCHED void next() {
    const int from = at_;
    do at_ = (at_ + 1) % count_;
    while (fibers_[at_].ended);
    if (at_ != from) change(fibers_[from], fibers_[at_]);
  }

  static inline thread_local Fibers* running_ = nullptr;
  std::vector<Fiber> owned_;
  Fiber* const fibers_;
  const int count_;
  Fiber caller_;
  void (*body_)(const void*, int);
  const void* task_;
  int at_ = 0, left_;
  unsigned progress_ = 0;
};

class Barrier {
 public:
  explicit Barrier(ptrdiff_t count) : count_(count), missing_(count) {}

  DCRNN_UNWATCHED void arrive_and_wait() {
    // Two places in turn: who is early at the next barrier is not ordered before who is late to leave this one.
    uint64_t* const place = &places_[phase_ % 2];
    arrive(place);
    if (--missing_) {
      Fibers::wait_while(phase_, phase_);
    } else {
      missing_ = count_;
      ++phase_;
      Fibers::progressed();
    }
    leave(place);
  }

 private:
  ptrdiff_t count_, missing_;
  unsigned phase_ = 0;
  uint64_t places_[2] = {};
};

}  // namespace dcrnn_fast::cuda::host
