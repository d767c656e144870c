// Kernels for x86-64 with avx512, 16 lanes.
#include "dispatch.hpp"

#if PS_X86
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#endif

#define PS_NAMESPACE ps_avx512
#define PS_LANES 16
#include "kernels.hpp"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

const ps::Kernels *ps::avx512() { return &ps_avx512::kernels; }
#else
const ps::Kernels *ps::avx512() { return nullptr; }
#endif
