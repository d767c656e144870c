// Weighted sums of table rows over a phone's rows: what an additive phone's delta, and its u, are made of.

// Rows of one phone, or some of them: codes of row i are at codes + (rows ? rows[i] : i) * stride, its weight by[i].
template <class Code> struct Weighted {
    const Code *codes;
    int64_t stride;
    const int32_t *rows;
    const float *by;
    int64_t n;

    PS_INLINE_MEMBER const Code *at(int64_t i) const { return codes + (rows ? rows[i] : i) * stride; }
};

// V vectors of feature j: sum over rows of weight * (low * row(hat) + high * row(hat + 1)); returns that of the flags.
template <int V, class Code>
PS_INLINE float feature_sum(const Weighted<Code> &what, int64_t j, const Level *levels, const float *table, int64_t width,
                            const float *flag_row, vf *sums) {
    vf even[V];
    float flag = 0;
    for (int v = 0; v < V; ++v) even[v] = vf{};
    for (int64_t i = 0; i < what.n; ++i) {
        const Level &level = levels[what.at(i)[j]];
        const float *row = table + level.row;
        const vf weight = splat(what.by[i]), low = splat(level.low), high = splat(level.high);
        const float apart = what.by[i] * level.flag;
        for (int v = 0; v < V; ++v) {
            const vf mixed = low * load(row + v * LANES) + high * load(row + width + v * LANES);
            even[v] += weight * mixed;
            if (flag_row) even[v] += apart * load(flag_row + v * LANES);
        }
        flag += apart;
    }
    for (int v = 0; v < V; ++v) sums[v] = even[v];
    return flag;
}
