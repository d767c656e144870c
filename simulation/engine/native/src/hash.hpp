// Which rows a local step looks at: the counter hash and ranks of fl_client.phones.mix and fl_client.batches.

// One link of the chain: state after one more counter.
PS_INLINE uint64_t mix_in(uint64_t state, uint64_t counter) {
    state = (state ^ counter * 0xD1342543DE82EF95ull) + 0x9E3779B97F4A7C15ull;
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9ull;
    state = (state ^ (state >> 27)) * 0x94D049BB133111EBull;
    return state ^ (state >> 31);
}

// mix(id, seed, round, epoch), the part all rows of a phone share.
PS_INLINE uint64_t mix_epoch(uint64_t id, uint64_t seed, uint64_t round, uint64_t epoch) {
    return mix_in(mix_in(mix_in(mix_in(id, 0), seed), round), epoch);
}

struct Key {
    uint64_t hash;
    int64_t position;
};

static int by_hash(const void *a, const void *b) {
    const Key *left = (const Key *)a, *right = (const Key *)b;
    if (left->hash != right->hash) return left->hash < right->hash ? -1 : 1;
    return left->position < right->position ? -1 : 1;  // ties by position
}

// order[rank] = position of the row with that rank in this epoch's shuffle of n rows; keys is scratch for n.
static void shuffle(uint64_t epoch_state, int64_t n, Key *keys, int32_t *order) {
    for (int64_t i = 0; i < n; ++i) keys[i] = Key{mix_in(epoch_state, (uint64_t)i), i};
    if (n <= 32) {  // by insertion
        for (int64_t i = 1; i < n; ++i) {
            const Key key = keys[i];
            int64_t at = i;
            for (; at > 0 && keys[at - 1].hash > key.hash; --at) keys[at] = keys[at - 1];
            keys[at] = key;
        }
    } else {
        qsort(keys, (size_t)n, sizeof(Key), by_hash);
    }
    for (int64_t i = 0; i < n; ++i) order[i] = (int32_t)keys[i].position;
}

// Steps of a phone with n > 0 rows, as fl_client.batches.steps_of.
PS_INLINE int64_t batches_of(const ps_local *local, int64_t n) { return local->batch ? (n - 1) / local->batch + 1 : 1; }
PS_INLINE int64_t steps_of(const ps_local *local, int64_t n) {
    return local->steps > 0 ? local->steps : local->epochs * batches_of(local, n);
}
