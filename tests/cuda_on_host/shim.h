// CUDA's keywords and functions on the CPU, as far as the kernels of csrc/cuda need them. The kernels run as plain C++; threads.h says how
// the threads of a block run.
//
// Modelled:
//  - Blocks run one after another, with shared memory that is NaN before. __syncthreads is a barrier of all threads of the block.
//  - Shuffles, votes, matrix loads and products exchange values between a warp's 32 threads, in the lane layouts of the PTX manual.
//  - An asynchronous copy arrives when its thread waits for it or, with DCRNN_COPIES=early in the environment, at once. A correct kernel
//    passes with both.
//  - Misaligned vector accesses to shared memory and copies that are never waited for end the program. So do a barrier that some threads
//    never reach, and a sanitizer's findings. A missing barrier is a data race, which ThreadSanitizer finds.
//
// Not modelled:
//  - Blocks that run at the same time, caches, warps in lockstep, streams, memory banks, and limits of registers.
//  - How a tensor core rounds and in which order it adds (here in float, ascending), and fused multiply-adds where the CPU's compiler does
//    not fuse.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "threads.h"
#include "types.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define DCRNN_DEVICE inline

struct dim3 {
  unsigned x = 1, y = 1;
};

using cudaStream_t = void*;

namespace dcrnn_fast::cuda {

namespace host {

// What one lane shows the others: an address, 32-bit values, or the values of its registers in a product.
union Shown {
  const void* address;
  uint32_t words[2];
  float values[12];
};

struct Warp {
  Barrier together{32};
  // Two buffers in turn: a lane may show its next values while others still read those of the round before.
  Shown shown[2][32];
};

struct Block {
  explicit Block(int threads, size_t shared_bytes) : together(threads), warps(threads / 32), shared((shared_bytes + 127) / 128) {}
  Barrier together;
  std::vector<Warp> warps;
  struct alignas(128) Line {
    unsigned char bytes[128];
  };
  std::vector<Line> shared;
};

struct Copy {
  void* to;
  const void* from;
  void arrive() const { from ? std::memcpy(to, from, 16) : std::memset(to, 0, 16); }
};

inline const bool copies_arrive_early = std::getenv("DCRNN_COPIES") && !std::strcmp(std::getenv("DCRNN_COPIES"), "early");

// A thread of a block.
struct Thread {
  Block* block;
  dim3 grid_size, thread_index, block_index{};
  unsigned round_of_warp = 0;
  std::vector<std::vector<Copy>> copies{1};  // groups, the last one open
};

// The thread whose turn it is.
inline thread_local Thread* running = nullptr;
DCRNN_UNWATCHED inline Thread* current() { return running; }
DCRNN_UNWATCHED inline void set_current(Thread* thread) { running = thread; }

inline void wait_at(Barrier& barrier) {
  Thread* const thread = current();
  barrier.arrive_and_wait();
  set_current(thread);  // others may have had their turns
}

[[noreturn]] inline void stop(const char* words) {
  const Thread& thread = *current();
  std::fprintf(stderr, "cuda_on_host: %s (block %u, %u, thread %u)\n", words, thread.block_index.x, thread.block_index.y,
               thread.thread_index.x);
  std::abort();
}

inline void check_aligned(const void* pointer, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(pointer) % bytes) stop("misaligned address");
}

inline unsigned lane() { return current()->thread_index.x % 32; }

// Shows `mine` to the warp, and returns what every lane shows in this round.
inline const Shown* exchange(const Shown& mine) {
  Warp& warp = current()->block->warps[current()->thread_index.x / 32];
  Shown(&shown)[32] = warp.shown[current()->round_of_warp++ % 2];
  shown[lane()] = mine;
  wait_at(warp.together);
  return shown;
}

}  // namespace host

#define threadIdx (::dcrnn_fast::cuda::host::current()->thread_index)
#define blockIdx (::dcrnn_fast::cuda::host::current()->block_index)
#define gridDim (::dcrnn_fast::cuda::host::current()->grid_size)

inline unsigned fresh_thread_index() { return threadIdx.x; }
inline unsigned char* shared_memory() { return host::current()->block->shared.data()->bytes; }

inline void __syncthreads() { host::wait_at(host::current()->block->together); }

inline float widen(BFloat16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

inline void round_to(BFloat16& out, float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  out.bits = static_cast<uint16_t>(x != x ? 0x7fff : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float widen(Half x) { return static_cast<float>(std::bit_cast<_Float16>(x.bits)); }
inline void round_to(Half& out, float x) { out.bits = std::bit_cast<uint16_t>(static_cast<_Float16>(x)); }

inline uint32_t round_to_tf32(uint32_t bits) { return bits << 1 > 0xff000000u ? bits : (bits + 0x1000) & 0xffffe000u; }  // NaN stays

template <typename Value>
Value __shfl_sync(uint32_t, Value value, int lane) {
  host::Shown mine{};
  std::memcpy(mine.words, &value, sizeof value);
  std::memcpy(&value, host::exchange(mine)[lane & 31].words, sizeof value);
  return value;
}

template <typename Value>
Value __shfl_xor_sync(uint32_t all, Value value, int mask) {
  return __shfl_sync(all, value, static_cast<int>(host::lane()) ^ mask);
}

// The lanes where the condition holds.
inline uint32_t __ballot_sync(uint32_t, bool holds) {
  host::Shown mine{};
  mine.words[0] = holds;
  const host::Shown* const shown = host::exchange(mine);
  uint32_t out = 0;
  for (unsigned lane = 0; lane < 32; ++lane) out |= shown[lane].words[0] << lane;
  return out;
}

inline int __popc(uint32_t bits) { return __builtin_popcount(bits); }
inline float fma_of(float a, float b, float c) { return std::fma(a, b, c); }
inline double fma_of(double a, double b, double c) { return std::fma(a, b, c); }

template <typename Value>
Value read_shared(const void* from) {
  host::check_aligned(from, sizeof(Value));
  return *static_cast<const Value*>(from);
}

template <typename Value>
void write_shared(void* to, const Value& value) {
  host::check_aligned(to, sizeof(Value));
  *static_cast<Value*>(to) = value;
}

inline void copy_async(void* to, const void* from, bool present) {
  host::check_aligned(to, 16);
  if (present) host::check_aligned(from, 16);
  std::vector<host::Copy>& open = host::current()->copies.back();
  open.push_back({to, present ? from : nullptr});
  if (host::copies_arrive_early) open.back().arrive();
}

inline void commit_copies() { host::current()->copies.emplace_back(); }

template <int pending>
void wait_for_copies() {
  std::vector<std::vector<host::Copy>>& copies = host::current()->copies;
  while (copies.size() > pending + 1u) {
    if (!host::copies_arrive_early)
      for (const host::Copy& copy : copies.front()) copy.arrive();
    copies.erase(copies.begin());
  }
}

// What the lanes name as rows of four matrices.
inline const host::Shown* exchange_rows(const void* row) {
  host::check_aligned(row, 16);
  host::Shown mine{};
  mine.address = row;
  return host::exchange(mine);
}

inline void load_matrices(uint32_t (&out)[4], const void* row) {
  const host::Shown* const shown = exchange_rows(row);
  for (unsigned i = 0; i < 4; ++i)
    std::memcpy(&out[i], static_cast<const uint32_t*>(shown[8 * i + host::lane() / 4].address) + host::lane() % 4, 4);
}

inline void load_matrices_transposed(uint32_t (&out)[4], const void* row) {
  const host::Shown* const shown = exchange_rows(row);
  for (unsigned i = 0; i < 8; ++i) {
    const void* const in_row = shown[8 * (i / 2) + 2 * (host::lane() % 4) + i % 2].address;
    std::memcpy(reinterpret_cast<uint16_t*>(out) + i, static_cast<const uint16_t*>(in_row) + host::lane() / 4, 2);
  }
}

// The values in a register.
template <typename T>
void values_of(uint32_t word, float* out) {
  T values[4 / sizeof(T)];
  std::memcpy(values, &word, 4);
  for (const T& value : values) {
    if constexpr (std::is_same_v<T, float>)
      *out++ = value;
    else
      *out++ = widen(value);
  }
}

// Of a row or column, lane l holds the four bytes that belong to l % 4 of the first 16 in one register, of the other 16 in another.
template <typename T>
void multiply_fragments(float (&acc)[4], const uint32_t (&left)[4], uint32_t right0, uint32_t right1) {
  constexpr unsigned in_word = 4 / sizeof(T);
  host::Shown mine;
  for (unsigned i = 0; i < 4; ++i) values_of<T>(left[i], mine.values + i * in_word);
  values_of<T>(right0, mine.values + 4 * in_word);
  values_of<T>(right1, mine.values + 5 * in_word);
  const host::Shown* const shown = host::exchange(mine);
  const unsigned lane = host::lane();
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4, half = i / 2, column = 2 * (lane % 4) + i % 2;
    float sum = acc[i];
    for (unsigned second = 0; second < 2; ++second)
      for (unsigned holder = 0; holder < 4; ++holder) {
        const float* const a = shown[4 * row + holder].values + (half + 2 * second) * in_word;
        const float* const b = shown[4 * column + holder].values + (4 + second) * in_word;
        for (unsigned k = 0; k < in_word; ++k) sum += a[k] * b[k];
      }
    acc[i] = sum;
  }
}

template <typename Arguments>
void launch(void (*kernel)(Arguments), Grid size, int threads, int shared_bytes, cudaStream_t,
            const std::type_identity_t<Arguments>& arguments) {
  size.check();
  // the checks lend the shared memory of the largest GPU that the kernels are for
  if (threads > 1024 || shared_bytes > 232448 || sizeof arguments > 4096)
    throw std::runtime_error("cuda_on_host: a launch that no GPU takes");
  const dim3 grid(static_cast<unsigned>(size.x), static_cast<unsigned>(size.y));
  host::Block block(threads, shared_bytes);
  host::Fibers(threads, [&](unsigned index) {
    host::Thread thread{&block, grid, dim3{index}};
    host::set_current(&thread);
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        if (index == 0)
          for (host::Block::Line& line : block.shared) std::memset(line.bytes, 0xff, sizeof line.bytes);
        host::wait_at(block.together);
        thread.block_index = dim3(x, y);
        kernel(arguments);
        for (const auto& group : thread.copies)
          if (!group.empty()) host::stop("a copy was never waited for");
        thread.copies.assign(1, {});
        host::wait_at(block.together);
      }
  });
}

}  // namespace dcrnn_fast::cuda
