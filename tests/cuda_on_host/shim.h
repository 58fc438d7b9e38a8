// CUDA's keywords and functions on the CPU, as far as the kernels of csrc/cuda need them. The kernels run as plain C++; threads.h says how
// the threads of a block run.
//
// Modelled:
//  - Blocks run one after another, with shared memory that is NaN before. __syncthreads is a barrier of all threads of the block.
//  - Shuffles, votes, matrix loads and products exchange values between a warp's 32 threads, in the lane layouts of the PTX manual.
//  - An asynchronous copy arrives when its thread waits for it or, with DCRNN_COPIES=early in the environment, at once. A correct kernel
//    passes with both.
//  - Where `counted` asks for it, the memory banks of shared memory, see Wavefronts.
//  - Misaligned vector accesses to shared memory and copies that are never waited for end the program. So do a barrier that some threads
//    never reach, and a sanitizer's findings. A missing barrier is a data race, which ThreadSanitizer finds.
//
// Not modelled:
//  - Blocks that run at the same time, caches, warps in lockstep, streams, and limits of registers and shared memory. launches.cpp checks
//    the sizes of launches that it records.
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
#include <functional>
#include <map>
#include <set>
#include <source_location>
#include <string>
#include <utility>
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

struct Access {
  const char* file;
  unsigned line, bytes;
  uintptr_t address;
};

// What the accesses at one line of the sources took, and what they would take without conflicts. Shared memory has 32 banks of 4 bytes.
// Lanes whose words differ but lie in the same bank wait for one another. 32 lanes are served together if each accesses 4 bytes or less, 16
// of 8 bytes, 8 of 16 bytes: these are 1, 2 and 4 wavefronts without a conflict.
struct Wavefronts {
  int64_t accesses = 0, taken = 0, least = 0;
};

// Where launches count, if anywhere. Only the first block of a launch counts.
inline std::map<std::string, Wavefronts>* counted = nullptr;

inline Wavefronts wavefronts(const Access* const (&lanes)[32]) {
  const unsigned bytes = lanes[0]->bytes, together = bytes <= 4 ? 32 : 128 / bytes;
  Wavefronts out{1, 0, 32 / together};
  for (unsigned first = 0; first < 32; first += together) {
    std::set<uintptr_t> words[32];
    for (unsigned lane = first; lane < first + together; ++lane)
      for (unsigned byte = 0; byte < bytes; byte += 4) {
        const uintptr_t word = (lanes[lane]->address + byte) / 4;
        words[word % 32].insert(word);
      }
    size_t most = 0;
    for (const auto& bank : words) most = std::max(most, bank.size());
    out.taken += most;
  }
  return out;
}

// Adds the accesses of a block's threads, each in the order of its thread. Returns whether all lanes of each warp made the same ones.
inline bool count(const std::vector<std::vector<Access>>& threads) {
  for (size_t warp = 0; warp < threads.size(); warp += 32)
    for (size_t i = 0; i < threads[warp].size(); ++i) {
      const Access* lanes[32];
      for (size_t lane = 0; lane < 32; ++lane) {
        const auto& own = threads[warp + lane];
        if (own.size() != threads[warp].size() || own[i].line != threads[warp][i].line) return false;
        lanes[lane] = &own[i];
      }
      const std::string path = lanes[0]->file;
      Wavefronts& sum = (*counted)[path.substr(path.rfind('/') + 1) + ":" + std::to_string(lanes[0]->line)];
      const Wavefronts more = wavefronts(lanes);
      sum.accesses += more.accesses, sum.taken += more.taken, sum.least += more.least;
    }
  return true;
}

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
  std::vector<std::vector<Access>> accesses;  // of each thread, where a launch counts them
  struct alignas(128) Line {
    unsigned char bytes[128];
  };
  std::vector<Line> shared;
};

// The sizes of a launch. Where somebody records, launches run nothing.
struct Launch {
  int64_t x, y;
  int threads, shared_bytes;
  size_t argument_bytes;
};
inline std::function<void(const Launch&)> record;

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
  bool counts = false;
  std::vector<Access> accesses{};  // to shared memory, while it counts
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

inline void access_shared(const void* at, unsigned bytes, const std::source_location& where) {
  check_aligned(at, bytes);
  if (current()->counts) current()->accesses.push_back({where.file_name(), where.line(), bytes, reinterpret_cast<uintptr_t>(at)});
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
Value read_shared(const void* from, const std::source_location& where = std::source_location::current()) {
  host::access_shared(from, sizeof(Value), where);
  return *static_cast<const Value*>(from);
}

template <typename Value>
void write_shared(void* to, const Value& value, const std::source_location& where = std::source_location::current()) {
  host::access_shared(to, sizeof(Value), where);
  *static_cast<Value*>(to) = value;
}

inline void copy_async(void* to, const void* from, bool present, const std::source_location& where = std::source_location::current()) {
  host::access_shared(to, 16, where);
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
inline const host::Shown* exchange_rows(const void* row, const std::source_location& where) {
  host::access_shared(row, 16, where);
  host::Shown mine{};
  mine.address = row;
  return host::exchange(mine);
}

inline void load_matrices(uint32_t (&out)[4], const void* row, const std::source_location& where = std::source_location::current()) {
  const host::Shown* const shown = exchange_rows(row, where);
  for (unsigned i = 0; i < 4; ++i)
    std::memcpy(&out[i], static_cast<const uint32_t*>(shown[8 * i + host::lane() / 4].address) + host::lane() % 4, 4);
}

inline void load_matrices_transposed(uint32_t (&out)[4], const void* row,
                                     const std::source_location& where = std::source_location::current()) {
  const host::Shown* const shown = exchange_rows(row, where);
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
  if (host::record) return host::record({size.x, size.y, threads, shared_bytes, sizeof arguments});
  const dim3 grid(static_cast<unsigned>(size.x), static_cast<unsigned>(size.y));
  host::Block block(threads, shared_bytes);
  block.accesses.resize(threads);
  host::Fibers(threads, [&](unsigned index) {
    host::Thread thread{&block, grid, dim3{index}};
    host::set_current(&thread);
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        if (index == 0)
          for (host::Block::Line& line : block.shared) std::memset(line.bytes, 0xff, sizeof line.bytes);
        host::wait_at(block.together);
        thread.block_index = dim3(x, y);
        thread.counts = host::counted && x == 0 && y == 0;
        kernel(arguments);
        if (thread.counts) block.accesses[index] = std::move(thread.accesses);
        for (const auto& group : thread.copies)
          if (!group.empty()) host::stop("a copy was never waited for");
        thread.copies.assign(1, {});
        host::wait_at(block.together);
        if (thread.counts && index == 0 && !host::count(block.accesses))
          host::stop("a warp's lanes access shared memory at different lines");
      }
  });
}

}  // namespace dcrnn_fast::cuda
