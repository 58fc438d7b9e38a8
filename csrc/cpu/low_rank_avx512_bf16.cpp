// The passes of the low-rank cell with bfloat16 operands, for CPUs with AVX512-BF16, some of which have AMX too. The headers come before
// the target is set, as in elementwise_avx512.cpp.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstdint>

#include "low_rank_kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16,avx2,fma,f16c,prefer-vector-width=512")
#endif

#define DCRNN_ISA avx512_bf16
#define DCRNN_VECTOR 64
#define DCRNN_COLUMNS 4
#define DCRNN_PAIRS
#include "low_rank_kernels.inl"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
