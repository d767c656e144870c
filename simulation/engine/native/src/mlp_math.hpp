// What an MLP needs of vectors: tanh, sums of lanes, transposes.

// 1 / q, to a unit or two in the last place.
PS_INLINE vf quotient(vf p, vf q) {
#if PS_LANES == 16
    const vf guess = (vf)_mm512_rcp14_ps((__m512)q);  // 14 bits; one Newton step on p / q doubles them
    const vf first = p * guess;
    return first + first * (1.0f - q * guess);
#else
    return p / q;
#endif
}

// tanh of COUNT vectors, by an odd rational function fitted to it on [-8.3, 8.3], where it is 1e-8 of its value off at
// most, before float32 rounds; beyond, tanh is 1 but for 1.3e-7. Step by step over all of them: one alone is a chain of
// operations that wait for one another.
template <int COUNT> PS_INLINE void vtanh(vf (&x)[COUNT]) {
    const float upper[] = {2.15085056e-5f, 3.54916975e-3f, 0.134258702f, 1.0f};
    const float lower[] = {3.37395148e-4f, 2.60799509e-2f, 0.467591971f, 1.0f};
    vf s[COUNT], p[COUNT], q[COUNT];
#pragma GCC unroll 8
    for (int i = 0; i < COUNT; ++i) {
#if PS_LANES == 16
        x[i] = (vf)_mm512_range_ps((__m512)x[i], (__m512)splat(8.3f), 2);  // the smaller in size, with the sign of x
#else
        x[i] = x[i] > 8.3f ? splat(8.3f) : x[i];
        x[i] = x[i] < -8.3f ? splat(-8.3f) : x[i];
#endif
        s[i] = x[i] * x[i];
        p[i] = splat(1.46482728e-8f), q[i] = splat(8.29511407e-7f);
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k)
#pragma GCC unroll 8
        for (int i = 0; i < COUNT; ++i) p[i] = p[i] * s[i] + upper[k], q[i] = q[i] * s[i] + lower[k];
#pragma GCC unroll 8
    for (int i = 0; i < COUNT; ++i) x[i] = quotient(x[i] * p[i], q[i]);
}

// tanh of rows x lanes where they are, four rows at a time: there is room for whole fours.
static void vtanh_rows(float *at, int64_t stride, int64_t rows, int64_t lanes) {
    enum { AT_ONCE = PS_LANES == 16 ? 4 : 2 };
    for (int64_t r = 0; r < rows; r += AT_ONCE, at += AT_ONCE * stride)
        for (int64_t c = 0; c < lanes; c += LANES) {
            vf x[AT_ONCE];
#pragma GCC unroll 4
            for (int i = 0; i < AT_ONCE; ++i) x[i] = load(at + i * stride + c);
            vtanh(x);
#pragma GCC unroll 4
            for (int i = 0; i < AT_ONCE; ++i) store(at + i * stride + c, x[i]);
        }
}

// The sums of the lanes of four vectors.
PS_INLINE void four_totals(vf a, vf b, vf c, vf d, float *to) {
#if PS_LANES == 16
    const __m512 ab = _mm512_unpacklo_ps((__m512)a, (__m512)b) + _mm512_unpackhi_ps((__m512)a, (__m512)b);
    const __m512 cd = _mm512_unpacklo_ps((__m512)c, (__m512)d) + _mm512_unpackhi_ps((__m512)c, (__m512)d);
    const __m512d low = _mm512_unpacklo_pd((__m512d)ab, (__m512d)cd);
    const __m512d high = _mm512_unpackhi_pd((__m512d)ab, (__m512d)cd);
    const __m512 all = (__m512)low + (__m512)high;  // each quarter: a part of the sums of a, b, c, d
    const __m128 left = _mm512_extractf32x4_ps(all, 0) + _mm512_extractf32x4_ps(all, 1);
    _mm_storeu_ps(to, left + (_mm512_extractf32x4_ps(all, 2) + _mm512_extractf32x4_ps(all, 3)));
#else
    to[0] = total(a), to[1] = total(b), to[2] = total(c), to[3] = total(d);
#endif
}

// to[c * to_stride + r] = from[r * from_stride + c] for a square of LANES; rows from `valid` on count as 0.
// In log2(LANES) rounds of perfect shuffles.
static __attribute__((noinline)) void turn_square(const float *from, int64_t from_stride, int64_t valid, float *to,
                                                  int64_t to_stride) {
    vi low, high;
    for (int i = 0; i < LANES; ++i) {
        low[i] = i / 2 + (i % 2) * LANES;
        high[i] = i / 2 + HALF + (i % 2) * LANES;
    }
    vf rows[LANES], next[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; ++i) rows[i] = i < valid ? load(from + i * from_stride) : vf{};
#pragma GCC unroll 4
    for (int width = 1; width < LANES; width *= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < HALF; ++i) {
            next[2 * i] = __builtin_shuffle(rows[i], rows[i + HALF], low);
            next[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + HALF], high);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) rows[i] = next[i];
    }
#pragma GCC unroll 16
    for (int i = 0; i < LANES; ++i) store(to + i * to_stride, rows[i]);
}

#if PS_LANES == 16
// The same of a whole square: quarters of four rows are put together on their way from memory, which leaves the one
// shuffling port half the work. A loop, for its addresses would not fit the registers otherwise.
static __attribute__((noinline)) void turn_whole(const float *from, int64_t from_stride, float *to, int64_t to_stride) {
    const float *low = from, *high = from + 8 * from_stride;
#pragma GCC unroll 1
    for (int part = 0; part < 4; ++part, low += 4, high += 4, to += 4 * to_stride) {
        __m512 z[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            z[i] = _mm512_castps128_ps512(_mm_loadu_ps(low + i * from_stride));
            z[i] = _mm512_mask_broadcast_f32x4(z[i], 0x00F0, _mm_loadu_ps(low + (i + 4) * from_stride));
            z[i] = _mm512_mask_broadcast_f32x4(z[i], 0x0F00, _mm_loadu_ps(high + i * from_stride));
            z[i] = _mm512_mask_broadcast_f32x4(z[i], 0xF000, _mm_loadu_ps(high + (i + 4) * from_stride));
        }
        const __m512d a = (__m512d)_mm512_unpacklo_ps(z[0], z[1]), b = (__m512d)_mm512_unpacklo_ps(z[2], z[3]);
        const __m512d c = (__m512d)_mm512_unpackhi_ps(z[0], z[1]), d = (__m512d)_mm512_unpackhi_ps(z[2], z[3]);
        store(to, (vf)_mm512_unpacklo_pd(a, b));
        store(to + to_stride, (vf)_mm512_unpackhi_pd(a, b));
        store(to + 2 * to_stride, (vf)_mm512_unpacklo_pd(c, d));
        store(to + 3 * to_stride, (vf)_mm512_unpackhi_pd(c, d));
    }
}
#else
PS_INLINE void turn_whole(const float *from, int64_t from_stride, float *to, int64_t to_stride) {
    turn_square(from, from_stride, LANES, to, to_stride);
}
#endif

// The transpose of from (rows x columns, whole vectors of columns) into to, whose rows are padded with zeros.
static void turn(const float *from, int64_t rows, int64_t columns, int64_t from_stride, float *to, int64_t to_stride) {
    for (int64_t r = 0; r < rows; r += LANES)
        for (int64_t c = 0; c < columns; c += LANES) {
            const float *square = from + r * from_stride + c;
            if (r + LANES <= rows)
                turn_whole(square, from_stride, to + c * to_stride + r, to_stride);
            else
                turn_square(square, from_stride, rows - r, to + c * to_stride + r, to_stride);
        }
}
