// Scratch memory that threads take and give at once: no more of it is kept for the next call than they have used at one time.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <latch>
#include <thread>
#include <vector>

#include "../../csrc/cpu/buffer.h"

static std::atomic<int> blocks{0};

void* operator new(size_t size, std::align_val_t) {
  ++blocks;
  return std::malloc(size);
}
void operator delete(void* data, std::align_val_t) noexcept {
  --blocks;
  std::free(data);
}

int main() {
  constexpr int threads = 4, calls = 1'000'000;
  {
    std::latch all(threads);
    std::vector<std::jthread> calling;
    for (int i = 0; i < threads; ++i)
      calling.emplace_back([&] {
        all.arrive_and_wait();
        for (int call = 0; call < calls; ++call) const dcrnn_fast::cpu::Buffer<float> scratch(16);
      });
  }
  std::printf("%d blocks of scratch memory are kept, expected at most %d\n", blocks.load(), threads);
  return blocks > threads;
}
