// Float32 multiply-adds in registers alone: what a kernel could do at best.

static double fma_block(int64_t turns, float *sink) {
    enum { CHAINS = 12 };
    vf sums[CHAINS];
    vf a = splat(0.999f), b = splat(0.001f);
    __asm__ volatile("" : "+m"(a), "+m"(b));  // values the compiler does not know
    for (int i = 0; i < CHAINS; ++i) sums[i] = splat((float)i);
    for (int64_t turn = 0; turn < turns; ++turn)
        for (int i = 0; i < CHAINS; ++i) sums[i] = sums[i] * a + b;
    vf all = vf{};
    for (int i = 0; i < CHAINS; ++i) all += sums[i];
    *sink = total(all);
    return 2.0 * LANES * CHAINS * (double)turns;
}
