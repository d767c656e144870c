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
    // Into the second cache: part `now` of `parts` of a phone's rows.
    void fetch_part(int64_t phone, int64_t now, int64_t parts) const {
        if (phone >= phones->count || phones->counts[phone] > COUNTED) return;
        const char *at = bytes + phones->first[phone] * row_bytes;
        const int64_t lines = phones->counts[phone] * row_bytes / 64 + 1, end = lines * (now + 1) / parts;
        for (int64_t i = lines * now / parts; i < end; ++i) __builtin_prefetch(at + 64 * i, 0, 2);
    }
};
