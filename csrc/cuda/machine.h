// Conversions, and the PTX instructions that the kernels use: asynchronous copies, matrix loads and tensor-core products. Under
// DCRNN_CUDA_ON_HOST, tests/cuda_on_host/shim.h provides the same functions and CUDA's keywords, and the kernels compile as C++ for the
// CPU.
#pragma once

#include <string>

#include "types.h"

#if defined(DCRNN_CUDA_ON_HOST)
#include "shim.h"
#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define DCRNN_DEVICE __device__ __forceinline__

namespace dcrnn_fast::cuda {

DCRNN_DEVICE float widen(BFloat16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }
DCRNN_DEVICE float widen(Half x) { return __half2float(__ushort_as_half(x.bits)); }
DCRNN_DEVICE void round_to(BFloat16& out, float x) { out.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x)); }
DCRNN_DEVICE void round_to(Half& out, float x) { out.bits = __half_as_ushort(__float2half_rn(x)); }

DCRNN_DEVICE float fma_of(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DCRNN_DEVICE double fma_of(double a, double b, double c) { return __fma_rn(a, b, c); }

// A block's dynamic shared memory.
DCRNN_DEVICE unsigned char* shared_memory() {
  extern __shared__ __align__(128) unsigned char memory[];
  return memory;
}

// threadIdx.x, read again: what is computed from it keeps no registers before.
DCRNN_DEVICE unsigned fresh_thread_index() {
  unsigned out;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(out));
  return out;
}

// Accesses to shared memory, whose alignment the tests on the CPU check.
template <typename Value>
DCRNN_DEVICE Value read_shared(const void* from) {
  return *static_cast<const Value*>(from);
}
template <typename Value>
DCRNN_DEVICE void write_shared(void* to, const Value& value) {
  *static_cast<Value*>(to) = value;
}

DCRNN_DEVICE uint32_t shared_address(const void* pointer) { return static_cast<uint32_t>(__cvta_generic_to_shared(pointer)); }

// Copies 16 bytes from global to shared memory, or writes 16 zero bytes. They have arrived once a wait has counted the group in which they
// were committed.
DCRNN_DEVICE void copy_async(void* to, const void* from, bool present) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(present ? 16 : 0) : "memory");
}

DCRNN_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `pending` of this thread's groups are on their way.
template <int pending>
DCRNN_DEVICE void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// Loads four matrices of 8 rows of 16 bytes; lane 8 i + r names row r of matrix i. Lane l gets bytes 4 (l % 4) to 4 (l % 4) + 3 of row l /
// 4 of each.
DCRNN_DEVICE void load_matrices(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

// The same for 16-bit values, transposed: lane l gets rows 2 (l % 4) and 2 (l % 4) + 1 of column l / 4.
DCRNN_DEVICE void load_matrices_transposed(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

DCRNN_DEVICE uint32_t round_to_tf32(uint32_t bits) {
  uint32_t out;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(out) : "f"(__uint_as_float(bits)));
  return out;
}

// acc [16, 8] += left [16, 32 bytes] right [32 bytes, 8]. Lane l holds rows l / 4 and l / 4 + 8, columns 2 (l % 4) and the one after it.
template <typename T>
DCRNN_DEVICE void multiply_fragments(float (&acc)[4], const uint32_t (&left)[4], uint32_t right0, uint32_t right1) {
#define DCRNN_MULTIPLY(shape, type)                                                   \
  asm volatile("mma.sync.aligned." shape ".row.col.f32." type "." type                \
               ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
               : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])               \
               : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right0), "r"(right1))
  if constexpr (std::is_same_v<T, BFloat16>)
    DCRNN_MULTIPLY("m16n8k16", "bf16");
  else if constexpr (std::is_same_v<T, Half>)
    DCRNN_MULTIPLY("m16n8k16", "f16");
  else
    DCRNN_MULTIPLY("m16n8k8", "tf32");
#undef DCRNN_MULTIPLY
}

inline void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("dcrnn_fast: CUDA error: ") + cudaGetErrorString(error));
}

// Runs `kernel` with `arguments` on every thread of the grid.
template <typename Arguments>
void launch(void (*kernel)(Arguments), Grid grid, int threads, int shared_bytes, cudaStream_t stream,
            const std::type_identity_t<Arguments>& arguments) {
  grid.check();
  constexpr int always_granted = 48 * 1024;
  if (shared_bytes > always_granted) {
    // all that the device grants: the limit is the kernel's, and another thread or a recorded graph may launch it with more than this one
    int device = 0, most = 0;
    check(cudaGetDevice(&device));
    check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
  }
  kernel<<<dim3(grid.x, grid.y), threads, shared_bytes, stream>>>(arguments);
  check(cudaGetLastError());
}

}  // namespace dcrnn_fast::cuda

#endif

namespace dcrnn_fast::cuda {

DCRNN_DEVICE float widen(float x) { return x; }
DCRNN_DEVICE double widen(double x) { return x; }
DCRNN_DEVICE void round_to(float& out, float x) { out = x; }
DCRNN_DEVICE void round_to(double& out, double x) { out = x; }

}  // namespace dcrnn_fast::cuda
