// The element-wise passes for CPUs with AVX2. The headers come before the target is set. Otherwise an inline function of theirs that is not
// inlined here would be compiled for AVX2, and the linker may use that copy everywhere.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstdint>

#include "elementwise.h"
#include "low_rank_kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

#define DCRNN_ISA avx2
#define DCRNN_VECTOR 32
#define DCRNN_COLUMNS 2
#include "elementwise.inl"
#include "low_rank_kernels.inl"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
