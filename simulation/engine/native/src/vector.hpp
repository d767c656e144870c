// PS_LANES float32 lanes by the compiler's vector extension, and the few functions the kernels need of them.

enum { LANES = PS_LANES, HALF = LANES / 2 };
typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef double vd __attribute__((vector_size(4 * LANES)));  // HALF lanes
typedef int64_t vl __attribute__((vector_size(4 * LANES)));
typedef float vh __attribute__((vector_size(2 * LANES)));   // HALF lanes
typedef float vf_any __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define PS_INLINE static inline __attribute__((always_inline))
#define PS_INLINE_MEMBER inline __attribute__((always_inline))

PS_INLINE int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }
PS_INLINE vf load(const float *from) { return *(const vf_any *)from; }
PS_INLINE void store(float *to, vf value) { *(vf_any *)to = value; }
PS_INLINE vf splat(float value) { return value - vf{}; }
PS_INLINE vi splat_int(int32_t value) { return value - vi{}; }
PS_INLINE vd splat_double(double value) { return value - vd{}; }
PS_INLINE vf select(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }
PS_INLINE vf vmin(vf a, vf b) { return a < b ? a : b; }
PS_INLINE vf vmax(vf a, vf b) { return a > b ? a : b; }
// HALF floats as doubles. GCC 12 splits a wide __builtin_convertvector in two.
PS_INLINE vd widen(const float *from) {
#if PS_LANES == 16
    return (vd)_mm512_cvtps_pd(_mm256_loadu_ps(from));
#elif PS_LANES == 8
    return (vd)_mm256_cvtps_pd(_mm_loadu_ps(from));
#else
    vh half;
    memcpy(&half, from, sizeof half);
    return __builtin_convertvector(half, vd);
#endif
}
PS_INLINE float total(vf value) {
    float sum = 0;
    for (int i = 0; i < LANES; ++i) sum += value[i];
    return sum;
}
PS_INLINE double total_double(vd value) {
    double sum = 0;
    for (int i = 0; i < HALF; ++i) sum += value[i];
    return sum;
}

// e^x for |x| <= 87, by 2^n times a Taylor polynomial over |f| <= ln 2 / 2; error below 2 units in the last place.
PS_INLINE vf vexp(vf x) {
    x = vmin(vmax(x, splat(-87.0f)), splat(87.0f));
    const vf magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
    const vf shifted = x * 1.44269504088896341f + magic;
    const vf n = shifted - magic;
    const vf f = (x - n * 0.693145751953125f) - n * 1.42860682030941723212e-6f;
    vf p = splat(1.0f / 5040);
    p = p * f + 1.0f / 720;
    p = p * f + 1.0f / 120;
    p = p * f + 1.0f / 24;
    p = p * f + 1.0f / 6;
    p = p * f + 0.5f;
    p = p * f + 1.0f;
    p = p * f + 1.0f;
    const vi power = ((vi)shifted - (vi)magic + 127) << 23;
    return p * (vf)power;
}
PS_INLINE vf vsigmoid(vf x) {
    const vf result = 1.0f / (1.0f + vexp(-x));
    return select((vi)(x == x), result, x);  // NaN stays NaN
}
