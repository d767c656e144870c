// Which rows a batch has, and their inputs side by side.

// Order of the rows of a phone in one epoch, as `shuffle`.
struct Order {
    Memory order_memory, keys_memory;
    int32_t *order = nullptr;
    Key *keys = nullptr;

    bool begin(int64_t most) {
        order = order_memory.take<int32_t>(most);
        keys = keys_memory.take<Key>(most);
        return order && keys;
    }
    void shuffle_rows(uint64_t state, int64_t n) { shuffle(state, n, keys, order); }
};

// Copies `width` floats, reading and writing none besides.
PS_INLINE void copy_row(const float *from, float *to, int64_t width) {
    int64_t i = 0;
    for (; i + LANES <= width; i += LANES) store(to + i, load(from + i));
    if (i == width) return;
    if (width >= LANES) return store(to + width - LANES, load(from + width - LANES));
    for (; i < width; ++i) to[i] = from[i];
}

template <class Code> static bool look_up(const ps_mlp *model, int64_t row, float *to) {
    const Code *codes = (const Code *)model->codes + row * model->features;
    bool good = true;
    for (int32_t c = 0; c < model->width; ++c) {
        const int64_t at = model->table[c] + (int64_t)codes[model->feature[c]];
        const bool inside = at < model->value_count;
        to[c] = model->values[inside ? at : 0];
        good &= inside;
    }
    return good;
}

// Inputs of one row; false where a code has no value.
PS_INLINE bool gather_row(const ps_mlp *model, int64_t row, float *to) {
    if (model->x) {
        copy_row(model->x + row * model->width, to, model->width);
        return true;
    }
    if (model->code_bytes == 1) return look_up<uint8_t>(model, row, to);
    if (model->code_bytes == 2) return look_up<uint16_t>(model, row, to);
    return look_up<uint32_t>(model, row, to);
}
