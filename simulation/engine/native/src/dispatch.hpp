// What every translation unit of the library shares, and the table of one instruction set's kernels.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__) && !defined(PS_PORTABLE)  // PS_PORTABLE: as on any other processor
#define PS_X86 1
#include <immintrin.h>
#else
#define PS_X86 0
#endif

#include "parallel.hpp"
#include "round.hpp"

namespace ps {

struct Kernels {
    int32_t (*mlp)(const ps_phones *, const ps_local *, const ps_mlp *, ps_answer *, int32_t threads);
    int32_t (*additive)(const ps_phones *, const ps_local *, const ps_additive *, ps_answer *, int32_t threads);
    double (*fma)(int64_t turns, float *sink);  // runs so many turns of multiply-adds, says how many operations
};

const Kernels *baseline();
const Kernels *avx2();    // null where the compiler has no such target
const Kernels *avx512();

}  // namespace ps
