// The element-wise passes for CPUs with AVX512. The headers come before the target is set. Otherwise an inline function of theirs that is
// not inlined here would be compiled for AVX512, and the linker may use that copy everywhere.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstdint>

#include "elementwise.h"
#include "low_rank_kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,prefer-vector-width=512")
#endif

#define DCRNN_ISA avx512
#define DCRNN_VECTOR 64
#define DCRNN_COLUMNS 4
#include "elementwise.inl"
#include "low_rank_kernels.inl"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
