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

// V vectors of feature j: sum over rows of weight * (low * row(hat) + high * row(hat + 1) + flag * the flag's row);
// returns that of weight * flags, what the level adds to the flag's lane.
template <int V, class Code>
PS_INLINE float feature_sum(const Weighted<Code> &what, int64_t j, const Level *levels, const float *table, int64_t width,
                            const float *flag_row, const float *flags, vf *sums) {
    vf all[V];
    float flag = 0;
    for (int v = 0; v < V; ++v) all[v] = vf{};
    for (int64_t i = 0; i < what.n; ++i) {
        const int64_t code = what.at(i)[j];
        const Level &level = levels[code];
        const float *row = table + level.row;
        const vf weight = splat(what.by[i]);
        for (int v = 0; v < V; ++v)
            all[v] += weight * mix(level, row + v * LANES, width, flag_row ? flag_row + v * LANES : nullptr);
        flag += what.by[i] * flags[code];
    }
    for (int v = 0; v < V; ++v) sums[v] = all[v];
    return flag;
}

// The same by rows that are mixed already, `width` apart, for rows one after the other.
template <int V, class Code>
PS_INLINE float mixed_sum(const Weighted<Code> &what, int64_t j, const float *mixed, int64_t width, const float *flags,
                          vf *sums) {
    const Code *at = what.codes + j;
    vf all[V];
    float flag = 0;
    for (int v = 0; v < V; ++v) all[v] = vf{};
    for (int64_t i = 0; i < what.n; ++i, at += what.stride) {
        const int64_t level = *at;
        const vf weight = splat(what.by[i]);
        for (int v = 0; v < V; ++v) all[v] += weight * load(mixed + level * width + v * LANES);
        flag += what.by[i] * flags[level];
    }
    for (int v = 0; v < V; ++v) sums[v] = all[v];
    return flag;
}
