// One call over all phones: blocks handed to workers, each worker with its own trainer and its own sum.

PS_INLINE int64_t block_size(int64_t phones) {  // by the number of phones alone: sums come out the same for any threads
    const int64_t even = (phones + 255) / 256;
    return even < 16 ? 16 : even;
}

// 0, or 2 where a phone's rows lie outside the rows there are.
static int32_t check_phones(const ps_phones *phones, const ps_local *local, const ps_answer *answer) {
    const double most = local->clip * (double)local->scale;
    if (phones->count < 0 || phones->rows < 0 || local->batch < 0 || local->scale < 0 || local->steps < 0) return 2;
    if (local->steps == 0 && local->epochs < 1) return 2;
    if (!(local->rate > 0) || !(local->prox >= 0) || !(local->clip > 0)) return 2;
    if (!(most < 9007199254740992.0) || !(most * (double)phones->count < 9.2e18)) return 2;
    if (local->scale ? !answer->sum : !answer->plain) return 2;
    for (int64_t i = 0; i < phones->count; ++i) {
        const int64_t first = phones->first[i], n = phones->counts[i];
        if (first < 0 || n < 0 || n > phones->rows || first > phones->rows - n || n > 2147483647) return 2;
    }
    return 0;
}

// Trainer, one a worker: `int32_t begin(const Shared &)` (0, or 3: no memory) and
// `int32_t train(int64_t phone, float *delta)` for a phone with rows: writes the real lanes of its delta, 64-byte
// aligned, padding lanes 0 before the first call and left alone; 0, or 2 where a code has no level.
template <class Shared> struct Call {
    const ps_phones *phones;
    const Shared *shared;
    const Grid *grid;
    ps_answer *answer;
    ps::Ordered *ordered;
    int64_t blocks, next, failed;
    int32_t status, lock;

    void stop(int32_t why) { __atomic_store_n(&status, why, __ATOMIC_RELAXED); }
    void hold() {
        while (__atomic_test_and_set(&lock, __ATOMIC_ACQUIRE)) {
        }
    }
    void release() { __atomic_clear(&lock, __ATOMIC_RELEASE); }
    void fail(int64_t phone) {
        hold();
        if (failed < 0 || phone < failed) failed = phone;
        release();
        stop(1);
    }
};

// Phones trained together: which, and where to go on.
struct Group {
    enum { MOST = 16 };
    int64_t phones[MOST], count, next;
};

template <class Trainer> struct AtOnce {
    enum { PHONES = 1 };
};

// The next phones that have rows, their deltas one after the other; a kernel may overload this to take several.
template <class Trainer>
PS_INLINE int32_t train_some(Trainer &trainer, const ps_phones *phones, int64_t phone, int64_t end, float *deltas,
                             Group *group) {
    while (phone < end && phones->counts[phone] == 0) ++phone;
    group->phones[0] = phone, group->count = phone < end ? 1 : 0, group->next = phone + 1;
    return group->count ? trainer.train(phone, deltas) : 0;
}

template <class Trainer, class Shared> static void work(void *context, int32_t) {
    auto &call = *(Call<Shared> *)context;
    Trainer trainer;
    Sink sink;
    Memory memory;
    Group group;
    float *deltas = memory.take<float>(call.grid->size * AtOnce<Trainer>::PHONES);
    if (!deltas || !sink.begin(call.grid, call.answer) || trainer.begin(*call.shared) != 0) return call.stop(3);
    const int64_t size = block_size(call.phones->count);
    for (;;) {
        const int64_t block = __atomic_fetch_add(&call.next, 1, __ATOMIC_RELAXED);
        if (block >= call.blocks || __atomic_load_n(&call.status, __ATOMIC_RELAXED)) break;
        if (call.ordered && !(sink.plain = call.ordered->borrow())) return call.stop(3);
        const int64_t end = (block + 1) * size < call.phones->count ? (block + 1) * size : call.phones->count;
        for (int64_t phone = block * size; phone < end; phone = group.next) {
            const int32_t done = train_some(trainer, call.phones, phone, end, deltas, &group);
            if (done != 0) {
                call.stop(done);
                break;
            }
            for (int64_t g = 0; g < group.count; ++g)
                if (!sink.add(group.phones[g], deltas + g * call.grid->size)) call.fail(group.phones[g]);
            if (__atomic_load_n(&call.status, __ATOMIC_RELAXED)) break;
        }
        if (call.ordered) call.ordered->give(block, sink.plain);
    }
    call.hold();
    sink.finish();
    call.release();
}

// The whole round. The answer's arrays are set to zeros first. 0, 1, 2 or 3 as ps_*_round.
template <class Trainer, class Shared>
static int32_t run_round(const ps_phones *phones, const Shared &shared, const Grid &grid, ps_answer *answer,
                         int32_t threads) {
    const int64_t size = block_size(phones->count), blocks = (phones->count + size - 1) / size;
    const int64_t kept = answer->sample < phones->count ? answer->sample : phones->count;
    if (answer->sum) memset(answer->sum, 0, sizeof(int64_t) * (size_t)grid.dimension);
    if (answer->plain) memset(answer->plain, 0, sizeof(double) * (size_t)grid.dimension);
    if (answer->norms) memset(answer->norms, 0, sizeof(double) * (size_t)phones->count);
    if (answer->raw) memset(answer->raw, 0, sizeof(double) * (size_t)(kept * grid.dimension));
    if (answer->units) memset(answer->units, 0, sizeof(int64_t) * (size_t)(kept * grid.dimension));
    answer->failed = -1;
    if (threads > blocks) threads = (int32_t)blocks;
    Memory memory;
    double *total = grid.scale == 0 ? memory.take<double>(grid.size) : nullptr;
    if (grid.scale == 0 && !total) return 3;
    ps::Ordered ordered(total, grid.size, grid.scale == 0 ? blocks : 0);
    Call<Shared> call = {phones, &shared, &grid, answer, grid.scale == 0 ? &ordered : nullptr, blocks, 0, -1, 0, 0};
    ps::parallel(threads < 1 ? 1 : threads, work<Trainer, Shared>, &call);
    answer->failed = call.failed;
    for (int64_t i = 0; total && i < grid.dimension; ++i) answer->plain[i] = total[grid.lane(i)];
    return call.status;
}

// Whether a row's codes go beyond the highest of each feature; both arrays are `count` long.
template <class Code> PS_INLINE bool beyond(const Code *codes, const Code *limit, int64_t count) {
    enum { WIDE = 16 / sizeof(Code) };
    typedef Code vector __attribute__((vector_size(16)));
    Code over = 0;
    if (count < WIDE) {
        for (int64_t j = 0; j < count; ++j) over |= (Code)(codes[j] > limit[j]);
        return over != 0;
    }
    vector any = vector{};
    for (int64_t j = 0;; j = j + 2 * WIDE <= count ? j + WIDE : count - WIDE) {  // the last piece may overlap
        vector a, b;
        memcpy(&a, codes + j, 16);
        memcpy(&b, limit + j, 16);
        any |= (vector)(a > b);
        if (j + WIDE == count) break;
    }
    int64_t parts[2];
    memcpy(parts, &any, 16);
    return (parts[0] | parts[1]) != 0;
}
