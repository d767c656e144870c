// From a phone's float32 delta to the sum: norm in float64, clip, grid, add. The road of fl_client/update.py.

// Memory of 64-byte alignment, freed with its owner; null where there is none.
struct Memory {
    void *at = nullptr;
    Memory() = default;
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;
    ~Memory() { free(at); }
    // Zeros. Up to 64 bytes more than asked, so a vector may be read from the last element on.
    template <class T> T *take(int64_t count) {
        free(at);
        at = nullptr;
        if (count < 0 || count > (int64_t(1) << 40)) return nullptr;
        const size_t bytes = ((size_t)count * sizeof(T) + 127) / 64 * 64;
        if (posix_memalign(&at, 64, bytes) != 0) return at = nullptr, nullptr;
        memset(at, 0, bytes);
        return (T *)at;
    }
};

// How deltas become units, the same for every worker of a call.
// A delta is `size` lanes long, padding lanes 0; coordinate i of the answer is lane place[i], or i where place is null.
struct Grid {
    int64_t dimension, size;
    const int32_t *place;
    double scale, clip, bound;
    int64_t room;  // phones whose units fit one int32 sum
    bool narrow;

    // Two float32 roundings (factor, product) and a float64 sum of `size` squares lie between the bound and the norm
    // of the units: this much shorter, truncation toward zero keeps every vector within clip * scale.
    void set(const ps_local *local, int64_t d, int64_t lanes, const int32_t *places) {
        dimension = d, size = lanes, place = places;
        scale = (double)local->scale, clip = local->clip;
        bound = clip * (1 - 1.5 / 8388608 - (double)(size + 16) / 4503599627370496.0);
        const double most = clip * scale;
        room = most < 2147483647.0 ? (int64_t)(2147483647.0 / (most + 1)) : 0;
        narrow = room >= 16;
    }
    int64_t lane(int64_t i) const { return place ? place[i] : i; }
};

// What all workers of a call add to.
struct Sink {
    const Grid *grid;
    ps_answer *answer;
    Memory near_memory, far_memory;
    int32_t *near = nullptr;  // units of the last `held` phones
    int64_t *far = nullptr;
    double *plain = nullptr;  // this block's, where there is no grid
    int64_t held = 0;

    bool begin(const Grid *of, ps_answer *to) {
        grid = of, answer = to;
        if (grid->scale == 0) return true;
        near = near_memory.take<int32_t>(grid->size);
        far = far_memory.take<int64_t>(grid->size);
        return near && far;
    }

    // Adds a phone's delta; false if it left the finite numbers.
    bool add(int64_t phone, const float *delta) {
        const double squares = sum_squares(delta);
        if (!(squares <= 1e300)) return false;
        const double norm = sqrt(squares);
        if (answer->norms) answer->norms[phone] = norm;
        if (phone < answer->sample && answer->raw)
            for (int64_t i = 0; i < grid->dimension; ++i)
                answer->raw[phone * grid->dimension + i] = (double)delta[grid->lane(i)];
        if (grid->scale == 0) {
            add_plain(delta);
            return true;
        }
        const double factor = norm > grid->bound ? grid->bound / norm * grid->scale : grid->scale;
        const float down = (float)factor;
        if (grid->narrow && down > 1e-30f)
            add_narrow(phone, delta, down);
        else
            add_wide(phone, delta, factor);
        return true;
    }

    void flush() {
        for (int64_t i = 0; held && i < grid->size; ++i) {
            far[i] += near[i];
            near[i] = 0;
        }
        held = 0;
    }

    // The worker's sums into the answer's; one worker at a time.
    void finish() {
        if (grid->scale == 0) return;
        flush();
        for (int64_t i = 0; i < grid->dimension; ++i) answer->sum[i] += far[grid->lane(i)];
    }

  private:
    // In eight sums at a time, so that none waits for the one before.
    double sum_squares(const float *delta) const {
        enum { SUMS = 8 };
        vd sums[SUMS] = {};
        const int64_t whole = grid->size / (SUMS * HALF) * (SUMS * HALF);
        for (int64_t i = 0; i < whole; i += SUMS * HALF)
#pragma GCC unroll 8
            for (int j = 0; j < SUMS; ++j) {
                const vd a = widen(delta + i + j * HALF);
                sums[j] += a * a;
            }
        for (int64_t i = whole; i < grid->size; i += HALF) {
            const vd a = widen(delta + i);
            sums[0] += a * a;
        }
        return total_double(((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7])));
    }

    void add_plain(const float *delta) {
        for (int64_t i = 0; i < grid->size; ++i) plain[i] += (double)delta[i];
    }

    void add_narrow(int64_t phone, const float *delta, float factor) {
        for (int64_t i = 0; i < grid->size; i += LANES) {
            vi sum;
            memcpy(&sum, near + i, sizeof sum);
            sum += __builtin_convertvector(load(delta + i) * factor, vi);
            memcpy(near + i, &sum, sizeof sum);
        }
        if (phone < answer->sample && answer->units)
            for (int64_t i = 0; i < grid->dimension; ++i)
                answer->units[phone * grid->dimension + i] = (int64_t)(int32_t)(delta[grid->lane(i)] * factor);
        if (++held == grid->room) flush();
    }

    void add_wide(int64_t phone, const float *delta, double factor) {
        for (int64_t i = 0; i < grid->size; ++i) far[i] += (int64_t)((double)delta[i] * factor);
        if (phone < answer->sample && answer->units)
            for (int64_t i = 0; i < grid->dimension; ++i)
                answer->units[phone * grid->dimension + i] = (int64_t)((double)delta[grid->lane(i)] * factor);
    }
};
