// A row's inputs, copied or looked up.

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

// Where the rows of a round lie at rest, to ask for them before they are needed.
struct AtRest {
    const ps_phones *phones;
    const char *bytes;
    int64_t row_bytes;

    void set(const ps_phones *of, const ps_mlp *model) {
        phones = of;
        bytes = model->x ? (const char *)model->x : (const char *)model->codes;
        row_bytes = model->x ? model->width * (int64_t)sizeof(float) : (int64_t)model->features * model->code_bytes;
    }
    // Part `now` of `parts` of a phone's rows, and its labels.
    void fetch_part(int64_t phone, int64_t now, int64_t parts) const {
        if (phone >= phones->count || phones->counts[phone] > COUNTED) return;
        const int64_t first = phones->first[phone], n = phones->counts[phone];
        const char *at = bytes + first * row_bytes;
        const int64_t lines = n * row_bytes / 64 + 1, end = lines * (now + 1) / parts;
        for (int64_t i = lines * now / parts; i < end; ++i) __builtin_prefetch(at + 64 * i, 0, 3);
        for (int64_t i = 0; now == 0 && i < n; i += 16) __builtin_prefetch(phones->y + first + i, 0, 3);
    }
    // Rows of a phone that the next step looks at: they may have left the nearest cache since.
    void fetch_rows(int64_t first, const int32_t *rows, int64_t count) const {
        if (count * row_bytes > NEAREST) return;
        for (int64_t r = 0; r < count; ++r) {
            const char *at = bytes + (first + rows[r]) * row_bytes;
            for (int64_t i = 0; i < row_bytes; i += 64) __builtin_prefetch(at + i, 0, 3);
            __builtin_prefetch(at + row_bytes - 1, 0, 3);
        }
    }

  private:
    enum { NEAREST = 8192 };  // bytes asked for at once: part of the nearest cache
};
