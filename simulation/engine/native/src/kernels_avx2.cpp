// Kernels for x86-64 with avx2, 8 lanes.
#include "dispatch.hpp"

#if PS_X86
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#define PS_NAMESPACE ps_avx2
#define PS_LANES 8
#include "kernels.hpp"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

const ps::Kernels *ps::avx2() { return &ps_avx2::kernels; }
#else
const ps::Kernels *ps::avx2() { return nullptr; }
#endif
