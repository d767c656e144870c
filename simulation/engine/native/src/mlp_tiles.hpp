// Small matrix products on data in the nearest cache: tiles of R x V vectors kept in registers.

#if PS_LANES == 16
enum { MOST_VECTORS = 4, REGISTERS = 24 };  // 24 sums, 4 operands, 1 broadcast of 32 registers
#else
enum { MOST_VECTORS = 2, REGISTERS = 12 };
#endif
constexpr int most_rows(int vectors) { return vectors == 1 ? 12 : REGISTERS / vectors; }

// The same pointer, of unknown origin: the compiler would otherwise work out an address for each vector of a tile, or
// keep all of them where the sums should be.
template <class T> PS_INLINE T *here(T *at) {
    __asm__("" : "+r"(at));
    return at;
}

// How an update settles: on the delta, and on the weights unless the phone is done.
enum Mode { ONLY, FIRST, MIDDLE, LAST };

// Where a row of a tile settles.
template <Mode M> struct Row {
    float *delta, *weights;
    const float *sent;

    PS_INLINE_MEMBER void next(int64_t stride) {
        delta = here(delta + stride);
        if (M == FIRST || M == MIDDLE) weights = here(weights + stride);
        if (M == FIRST) sent = here(sent + stride);
    }
    // What the sums start from: the delta itself if nothing else needs them alone.
    PS_INLINE_MEMBER vf from(int64_t at) const { return M == LAST ? load(delta + at) : vf{}; }
    PS_INLINE_MEMBER void settle(int64_t at, vf sum) const {
        store(delta + at, M == MIDDLE ? load(delta + at) + sum : sum);
        if (M == FIRST) store(weights + at, load(sent + at) + sum);
        if (M == MIDDLE) store(weights + at, load(weights + at) + sum);
    }
};

struct Settle {
    Mode mode;
    float pull;         // of FedProx: a step adds so many times the delta to it
    const float *sent;  // model of the round
    float *weights;     // model of the phone
    float *delta;

    template <Mode M> PS_INLINE_MEMBER Row<M> row(int64_t at) const {
        float *const to = M == FIRST || M == MIDDLE ? here(weights + at) : nullptr;
        return {here(delta + at), to, M == FIRST ? here(sent + at) : nullptr};
    }
    void vector(int64_t at, vf sum) const {
        if (pull != 0) pull_back(at, at + LANES);
        if (mode == ONLY) return row<ONLY>(at).settle(0, sum);
        if (mode == FIRST) return row<FIRST>(at).settle(0, sum);
        if (mode == MIDDLE) return row<MIDDLE>(at).settle(0, sum);
        row<LAST>(at).settle(0, sum + row<LAST>(at).from(0));
    }
    // FedProx on lanes that are about to be updated.
    void pull_back(int64_t at, int64_t end) const {
        if (mode == ONLY || mode == FIRST) return;
        for (; at < end; at += LANES) {
            const vf back = load(delta + at) * pull;
            store(delta + at, load(delta + at) + back);
            store(weights + at, load(weights + at) + back);
        }
    }
};

// sums[r][v] += over k of a[r * a_row + k * a_step] * b[k * b_stride + v]
template <int R, int V>
PS_INLINE void multiply(vf (&sums)[R][V], const float *a, int64_t a_row, int64_t a_step, const float *b,
                        int64_t b_stride, int64_t depth) {
    for (int64_t k = 0; k < depth; ++k) {
        vf operand[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) operand[v] = load(b + v * LANES);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const vf x = splat(a[r * a_row]);
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) sums[r][v] += x * operand[v];
        }
        a += a_step;
        b += b_stride;
    }
}

struct Forward {  // h = a w + bias, bias the row after the last of w
    const float *a, *w;
    float *h;
    int64_t a_stride, w_stride, h_stride, depth;

    template <int R, int V> static void tile(const Forward &of, int64_t row, int64_t column) {
        vf sums[R][V];
        const float *w = of.w + column, *bias = w + of.depth * of.w_stride;
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) sums[r][v] = load(bias + v * LANES);
        multiply<R, V>(sums, of.a + row * of.a_stride, of.a_stride, 1, w, of.w_stride, of.depth);
        float *h = here(of.h + row * of.h_stride + column);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r, h = here(h + of.h_stride))
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) store(h + v * LANES, sums[r][v]);
    }
};

struct Backward {  // h becomes (dz w^T) (1 - h^2); w is the transposed copy
    const float *dz, *w;
    float *h;
    int64_t dz_stride, w_stride, h_stride, depth;

    template <int R, int V> static void tile(const Backward &of, int64_t row, int64_t column) {
        vf sums[R][V];
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) sums[r][v] = vf{};
        multiply<R, V>(sums, of.dz + row * of.dz_stride, of.dz_stride, 1, of.w + column, of.w_stride, of.depth);
        float *at = here(of.h + row * of.h_stride + column);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r, at = here(at + of.h_stride))
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) {
                const vf h = load(at + v * LANES);
                store(at + v * LANES, sums[r][v] * (1.0f - h * h));
            }
    }
};

// inputs^T dz settles at `place` of the model; dz carries -rate / batch already. One kind a mode: with all in one tile
// the compiler keeps its sums in memory.
template <Mode M> struct Update {
    const float *a, *dz;
    int64_t a_stride, dz_stride, depth, place, w_stride;
    Settle settle;

    template <int R, int V> static void tile(const Update &of, int64_t row, int64_t column) {
        const int64_t stride = of.w_stride, at = of.place + row * stride + column;
        vf sums[R][V];
        Row<M> from = of.settle.template row<M>(at);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r, from.next(stride))
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) sums[r][v] = from.from(v * LANES);
        multiply<R, V>(sums, of.a + row, 1, of.a_stride, of.dz + column, of.dz_stride, of.depth);
        Row<M> to = of.settle.template row<M>(at);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r, to.next(stride))
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) to.settle(v * LANES, sums[r][v]);
    }
};

template <class Product, int R, int V>
PS_INLINE void pick_rows(const Product &of, int64_t rows, int64_t row, int64_t column) {
    if constexpr (R > 1) {
        if (rows < R) return pick_rows<Product, R - 1, V>(of, rows, row, column);
    }
    Product::template tile<R, V>(of, row, column);
}

// Tiles of one width over all rows, the rows shared out evenly so that no tile is much smaller than the others.
template <class Product, int V> PS_INLINE void down(const Product &of, int64_t rows, int64_t column) {
    const int64_t tiles = (rows + most_rows(V) - 1) / most_rows(V), size = rows / tiles, more = rows % tiles;
    int64_t row = 0;
    for (int64_t i = 0; i < tiles; ++i) {
        const int64_t now = size + (i < more);
        pick_rows<Product, most_rows(V), V>(of, now, row, column);
        row += now;
    }
}

// rows x lanes of a product, lanes a whole number of vectors.
template <class Product> static void product(const Product &of, int64_t rows, int64_t lanes) {
    const int64_t vectors = lanes / LANES, groups = (vectors + MOST_VECTORS - 1) / MOST_VECTORS;
    int64_t column = 0;
    for (int64_t i = 0; i < groups; ++i) {
        const int64_t now = vectors / groups + (i < vectors % groups);
#if PS_LANES == 16
        if (now == 4) down<Product, 4>(of, rows, column);
        if (now == 3) down<Product, 3>(of, rows, column);
#endif
        if (now == 2) down<Product, 2>(of, rows, column);
        if (now == 1) down<Product, 1>(of, rows, column);
        column += now * LANES;
    }
}

// inputs^T dz (rows x lanes, summed over depth rows of a batch) in the mode of `settle`.
template <Mode M> PS_INLINE void update_by(const Update<ONLY> &of, int64_t rows, int64_t lanes) {
    product(Update<M>{of.a, of.dz, of.a_stride, of.dz_stride, of.depth, of.place, of.w_stride, of.settle}, rows, lanes);
}
static void update(const Update<ONLY> &of, int64_t rows, int64_t lanes) {
    if (of.settle.pull != 0) of.settle.pull_back(of.place, of.place + rows * lanes);
    if (of.settle.mode == ONLY) return update_by<ONLY>(of, rows, lanes);
    if (of.settle.mode == FIRST) return update_by<FIRST>(of, rows, lanes);
    if (of.settle.mode == MIDDLE) return update_by<MIDDLE>(of, rows, lanes);
    update_by<LAST>(of, rows, lanes);
}
