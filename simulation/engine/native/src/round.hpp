// What one call of the library is given: the arrays of a round, borrowed for the call, and where its answer goes.
// The layout is shared with library.py (ctypes) and changes only together with POCKETSCORE_ABI.
#pragma once
#include <cstdint>

#define POCKETSCORE_ABI 1

extern "C" {

// Phone i owns rows first[i] .. first[i]+counts[i]-1 of `rows` rows with labels y.
struct ps_phones {
    int64_t count;
    const uint64_t *ids;
    const int64_t *first;
    const int64_t *counts;
    int64_t rows;
    const float *y;
};

// steps > 0: so many local steps; else epochs passes over a phone's batches. batch 0: all rows.
// scale 0: no clip and no grid, the plain float64 sum of updates goes to ps_answer.plain.
struct ps_local {
    int32_t steps;
    int32_t epochs;
    int64_t batch;
    double rate;
    double prox;
    double clip;
    int64_t scale;
    uint64_t seed;
    uint64_t round;
};

// sum (d) and norms (phones) always (scale > 0); raw and units (sample, d) for the first `sample` phones; plain (d) if scale is 0.
struct ps_answer {
    int64_t *sum;
    double *plain;
    double *norms;
    int64_t sample;
    double *raw;
    int64_t *units;
    int64_t failed;  // out: index of a phone whose update left the finite numbers, else -1
};

// An MLP over `width` inputs; x is (rows, width), or, where it is null, looked up:
// input c of row r = values[table[c] + codes[r * features + feature[c]]], codes of code_bytes 1, 2 or 4.
struct ps_mlp {
    int32_t width;
    int32_t layers;            // weight layers: hidden + 1
    const int32_t *sizes;      // (layers + 1): width, hidden.., 1
    const float *x;
    const void *codes;
    int32_t code_bytes;
    int32_t features;
    const int32_t *feature;    // (width)
    const int64_t *table;      // (width)
    const float *values;
    int64_t value_count;
    const float *flat;         // (d)
    int64_t dimension;
    int32_t activation;        // 0 tanh
};

// The additive model by two active hats a feature; level = start[j] + codes[r * features + j].
// blocks: per feature (K_j+1) x (K_j+1) row-major, one after the other. Row r's input is [bias | (phi_r - centre) * blocks].
struct ps_additive {
    int32_t features;
    const void *codes;
    int32_t code_bytes;
    const int64_t *start;      // (features)
    int64_t levels;
    const int32_t *hat;        // (levels)
    const float *low;
    const float *high;
    const float *flag;
    const int32_t *sizes;      // (features) K_j
    const double *blocks;
    const double *centre;      // (D)
    double bias;
    const float *flat;         // (d = D + 1)
    int64_t dimension;
};

// 0: done. 1: an update left the finite numbers (see failed). 2: the parts do not fit. 3: no memory.
int32_t ps_mlp_round(const ps_phones *, const ps_local *, const ps_mlp *, ps_answer *, int32_t threads, int32_t isa);
int32_t ps_additive_round(const ps_phones *, const ps_local *, const ps_additive *, ps_answer *, int32_t threads, int32_t isa);

int32_t ps_abi(void);
int64_t ps_size(int32_t part);                            // bytes of phones, local, answer, mlp, additive
int32_t ps_isa(void);                                    // best here: 0 baseline, 1 AVX2+FMA, 2 AVX-512
double ps_fma_peak(int32_t threads, double seconds, int32_t isa);  // GFLOP/s of float32 fused multiply-adds
}
