// Which rows each local step of a phone looks at, and in what pieces.

typedef uint64_t vu __attribute__((vector_size(4 * LANES)));  // HALF lanes
typedef int32_t vhi __attribute__((vector_size(2 * LANES)));  // HALF lanes

enum { COUNTED = 256 };  // phones of up to so many rows are ordered by counting

// The upper halves of the rows' hashes, in the order of signed numbers; whole vectors of them.
PS_INLINE void hash_rows(uint64_t state, int64_t n, int32_t *high) {
    vu position;
    for (int i = 0; i < HALF; ++i) position[i] = (uint64_t)i;
    for (int64_t at = 0; at < n; at += HALF, position += (uint64_t)HALF) {
        vu hash = (state ^ position * 0xD1342543DE82EF95ull) + 0x9E3779B97F4A7C15ull;
        hash = (hash ^ (hash >> 30)) * 0xBF58476D1CE4E5B9ull;
        hash = (hash ^ (hash >> 27)) * 0x94D049BB133111EBull;
        hash = (hash ^ (hash >> 31)) >> 32;
        const vhi upper = __builtin_convertvector((vl)hash - 2147483648ll, vhi);
        memcpy(high + at, &upper, sizeof upper);
    }
}

// rank[i] = how many of n numbers are below number i, for G vectors of them.
template <int G> PS_INLINE void count_below(const int32_t *numbers, int64_t n, const int32_t *from, int32_t *rank) {
    vi mine[G], below[G];
    memcpy(mine, from, sizeof mine);
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) below[g] = vi{};
    for (int64_t j = 0; j < n; ++j) {
        const vi other = splat_int(numbers[j]);
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) {
#if PS_LANES == 16
            const __mmask16 less = _mm512_cmplt_epi32_mask((__m512i)other, (__m512i)mine[g]);
            below[g] = (vi)_mm512_mask_add_epi32((__m512i)below[g], less, (__m512i)below[g], (__m512i)splat_int(1));
#else
            below[g] -= other < mine[g];
#endif
        }
    }
    memcpy(rank, below, sizeof below);
}

// Order of the rows of a phone in one epoch, as `shuffle` makes it.
struct Order {
    Memory order_memory, keys_memory;
    int32_t *order = nullptr;
    Key *keys = nullptr;

    bool begin(int64_t most) {
        order = order_memory.take<int32_t>(most);
        keys = keys_memory.take<Key>(most);
        return order && keys;
    }
    void of(uint64_t state, int64_t n) {
        if (n > COUNTED || !count(state, n)) shuffle(state, n, keys, order);
    }

  private:
    // By ranks among the hashes' upper halves; false where two are the same.
    bool count(uint64_t state, int64_t n) {
        int32_t high[COUNTED + 4 * LANES] = {}, rank[COUNTED + 4 * LANES];
        hash_rows(state, n, high);
        int64_t at = 0;
        for (; at + 2 * LANES < n; at += 4 * LANES) count_below<4>(high, n, high + at, rank + at);
        for (; at < n; at += 2 * LANES) count_below<2>(high, n, high + at, rank + at);
        for (int64_t i = 0; i < n; ++i) order[i] = -1;
        for (int64_t i = 0; i < n; ++i) order[rank[i]] = (int32_t)i;
        int32_t all = 0;
        for (int64_t i = 0; i < n; ++i) all |= order[i];
        return all >= 0;
    }
};

// Some rows of a batch, few enough for the scratch: first + rows[i], or first + i where rows is null.
struct Piece {
    int64_t first, count, batch;  // batch: rows of all its pieces
    const int32_t *rows;
    Mode mode;
    bool opens, closes;  // the first or the last piece of its batch
};

// All pieces of one phone, one after the other.
struct Walk {
    const ps_phones *phones;
    const ps_local *local;
    Order *order;
    int64_t phone, first, n, batch, chunk, batches, steps, step = 0, turn = 0, at = 0;
    uint64_t epoch = 0;

    Walk(const ps_phones *of, const ps_local *how, Order *by, int64_t which, int64_t most)
        : phones(of), local(how), order(by), phone(which), first(of->first[which]), n(of->counts[which]), chunk(most) {
        batches = batches_of(how, n), steps = steps_of(how, n);
        batch = batches == 1 ? n : how->batch;
    }
    bool next(Piece *piece) {
        if (step == steps) return false;
        if (batches > 1 && turn == 0 && at == 0)
            order->of(mix_epoch(phones->ids[phone], local->seed, local->round, epoch++), n);
        const int64_t from = turn * batch, m = from + batch < n ? batch : n - from;
        const int64_t count = at + chunk < m ? chunk : m - at;
        const Mode mode = step == 0 ? (steps == 1 ? ONLY : FIRST) : step + 1 == steps ? LAST : MIDDLE;
        *piece = {first, count, m, nullptr, mode, at == 0, at + count == m};
        if (batches > 1)
            piece->rows = order->order + from + at;
        else
            piece->first += at;
        at += count;
        if (piece->closes) at = 0, ++step, turn = turn + 1 == batches ? 0 : turn + 1;
        return true;
    }
    // Rows of the next batch, as far as they are known; their number, or 0.
    int64_t next_rows(const int32_t **rows) const {
        if (step == steps || batches == 1 || turn == 0 || at != 0) return 0;
        const int64_t from = turn * batch, m = from + batch < n ? batch : n - from;
        *rows = order->order + from;
        return m < chunk ? m : chunk;
    }
    // Whether every step looks at the same one piece.
    bool still() const { return batches == 1 && n <= chunk; }
};
