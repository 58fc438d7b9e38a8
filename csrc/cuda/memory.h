// How the kernels access memory: neighbouring values of a row at once, and tiles in shared memory with rows of 128 bytes.
#pragma once

#include "machine.h"

namespace dcrnn_fast::cuda {

template <typename T, int count>
struct alignas(count * sizeof(T) < 16 ? count * sizeof(T) : 16) Pack {
  T values[count];
};

// out = from[0 .. count); values past `left` become zeros. `vector` says that rows are multiples of 16 bytes and start at multiples of 16
// bytes.
template <typename T, int count>
DCRNN_DEVICE void load(accumulator<T> (&out)[count], const T* from, int left, bool vector) {
  if (vector && left >= count) {
    const Pack<T, count> pack = *reinterpret_cast<const Pack<T, count>*>(from);
#pragma unroll
    for (int i = 0; i < count; ++i) out[i] = widen(pack.values[i]);
  } else {
#pragma unroll
    for (int i = 0; i < count; ++i) out[i] = i < left ? widen(from[i]) : accumulator<T>(0);
  }
}

template <typename T, int count>
DCRNN_DEVICE void store(T* to, const accumulator<T> (&values)[count], int left, bool vector) {
  if (vector && left >= count) {
    Pack<T, count> pack;
#pragma unroll
    for (int i = 0; i < count; ++i) round_to(pack.values[i], values[i]);
    *reinterpret_cast<Pack<T, count>*>(to) = pack;
  } else {
#pragma unroll
    for (int i = 0; i < count; ++i)
      if (i < left) round_to(to[i], values[i]);
  }
}

template <typename A, int count>
DCRNN_DEVICE void add(A (&to)[count], const A (&more)[count]) {
#pragma unroll
  for (int i = 0; i < count; ++i) to[i] += more[i];
}

// A tile in shared memory has rows of 128 bytes: eight chunks of 16 bytes. Row r keeps chunk c in place c ^ (r % 8), so that the same chunk
// of eight rows lies in different memory banks.
inline constexpr int row_bytes = 128, chunk_bytes = 16, chunks = row_bytes / chunk_bytes;

DCRNN_DEVICE int place(int row, int chunk) { return row * row_bytes + ((chunk ^ (row & 7)) * chunk_bytes); }

template <typename T>
inline constexpr int chunk_values = chunk_bytes / sizeof(T);

template <typename T>
inline constexpr int row_values = row_bytes / sizeof(T);

// Copies a chunk to shared memory. A chunk that is not `present`, and values past `left`, become zeros. With `vector` the copy is
// asynchronous.
template <typename T>
DCRNN_DEVICE void copy_chunk(unsigned char* to, const T* from, bool present, int left, bool vector) {
  if (vector) {
    copy_async(to, from, present && left > 0);
  } else {
#pragma unroll
    for (int i = 0; i < chunk_values<T>; ++i) {
      T value{};
      if (present && i < left) value = from[i];
      reinterpret_cast<T*>(to)[i] = value;
    }
  }
}

}  // namespace dcrnn_fast::cuda
