// The additive model's tables: a row touches two hats a feature, so a phone's delta is a few rows of small tables, weighted.
//
// With row inputs z_r, every step's gradient is a sum of z_r, hence delta = sum over rows of weight_r * z_r: steps after
// the first only change the weights. What they need of delta is z_r * delta = phi_r * u - centre * u with
// u = B B' (sum weight * (phi - centre)), looked up by the same two hats.

struct Level {
    float low, high;
    uint32_t row;  // where the hat's row begins in the feature's table; the next hat's is `width` floats further
    float flag;
};

// A vector of a level's row: its hats' rows from `row` on and, where there is one, the flag's.
PS_INLINE vf mix(const Level &level, const float *row, int64_t width, const float *flag_row) {
    const vf hats = splat(level.low) * load(row) + splat(level.high) * load(row + width);
    return flag_row ? hats + splat(level.flag) * load(flag_row) : hats;
}

// One feature's part of a delta: `width` lanes from `lane` on and its flag's lane, for one more lane would often be one
// more vector; its levels from `start` on, its tables at `table`, its levels' own rows at `mixed`.
struct Feature {
    int64_t start, lane, width, table, flag_lane, mixed;
};

struct Additive {
    const ps_phones *phones;
    const ps_local *local;
    const ps_additive *model;
    Grid grid;
    bool coupled = false;  // some block mixes hats and flag: then the flag has a row of the table
    bool again = false;    // some phone takes a second step
    int64_t longest = 0, size = 0, bias_lane = 0;
    float base = 0;
    Memory memory[14];
    Feature *features;
    Level *levels;
    float *score, *table, *gram, *middle, *gram_middle, *centre;
    float *flags, *gram_flags;  // what a row of a level adds to its feature's flag lane of delta and of u
    float *mixed = nullptr;     // each level's own row of its feature's table, if they are few enough
    uint32_t *limit;
    int32_t *place;
    int64_t *starts;

    int32_t prepare(const ps_phones *, const ps_local *, const ps_additive *);

  private:
    int32_t check();
    int32_t lay_out();
    bool fill_feature(int32_t j, const double *block, const double *about, const float *v);
    void fill_levels(int32_t j, const double *weights, double middle_score);
    void fill_flags(int32_t j, const double *column, float *to);
    int32_t mix_levels();

    enum { MIXED_BYTES = 3 << 19 };  // more would not stay in a core's second cache
};

PS_INLINE int64_t level_end(const ps_additive *model, int32_t j) {
    return j + 1 < model->features ? model->start[j + 1] : model->levels;
}

int32_t Additive::check() {
    const auto *m = model;
    if (m->features < 1 || m->features > 65536 || m->levels < 0 || m->levels > (int64_t(1) << 31)) return 2;
    if (m->code_bytes != 1 && m->code_bytes != 2 && m->code_bytes != 4) return 2;
    int64_t dimension = 1;
    const double *block = m->blocks;
    for (int32_t j = 0; j < m->features; ++j) {
        const int64_t k = m->sizes[j], end = level_end(m, j);
        if (k < 1 || k > 4096 || m->start[j] < 0 || end > m->levels || m->start[j] >= end) return 2;
        for (int64_t l = m->start[j]; l < end; ++l)
            if (m->hat[l] < 0 || m->hat[l] >= k || (m->hat[l] == k - 1 && m->high[l] != 0)) return 2;
        for (int64_t i = 0; i < k; ++i)
            if (block[i * (k + 1) + k] != 0 || block[k * (k + 1) + i] != 0) coupled = true;
        block += (k + 1) * (k + 1);
        dimension += k + 1;
    }
    return dimension == m->dimension ? 0 : 2;
}

int32_t Additive::lay_out() {
    const int32_t count = model->features;
    features = memory[0].take<Feature>(count);
    if (!features) return 3;
    int64_t lane = 0, table_size = 0;
    for (int32_t j = 0; j < count; ++j) {
        auto &f = features[j];
        const int64_t k = model->sizes[j];
        f.start = model->start[j], f.lane = lane, f.table = table_size, f.width = padded(k);
        lane += f.width;
        table_size += f.width * (k + 1);  // the last row is the flag's, or zeros: what a last hat's `high` looks at
    }
    for (int32_t j = 0; j < count; ++j) features[j].flag_lane = lane + j;
    bias_lane = lane + count;
    size = padded(bias_lane + 1);
    levels = memory[1].take<Level>(model->levels);
    score = memory[2].take<float>(model->levels);
    table = memory[3].take<float>(table_size);
    gram = memory[4].take<float>(again ? table_size : 0);
    middle = memory[5].take<float>(size);
    gram_middle = memory[6].take<float>(size);
    centre = memory[7].take<float>(size);
    limit = memory[8].take<uint32_t>(count);
    place = memory[9].take<int32_t>(model->dimension);
    starts = memory[10].take<int64_t>(count);
    flags = memory[11].take<float>(model->levels);
    gram_flags = memory[12].take<float>(again ? model->levels : 0);
    for (int32_t j = 0; starts && j < count; ++j) starts[j] = model->start[j];
    if (!flags || !gram_flags) return 3;
    return levels && score && table && gram && middle && gram_middle && centre && limit && place && starts ? 0 : 3;
}

// Tables of one feature: rows of the block, of block * block', and what the centre takes off both.
bool Additive::fill_feature(int32_t j, const double *block, const double *about, const float *v) {
    const auto &f = features[j];
    const int64_t k = model->sizes[j], n = k + 1;
    Memory scratch;
    double *weights = scratch.take<double>(3 * n), *column = weights + n, *gram_column = column + n, shared = 0;
    if (!weights) return false;
    for (int64_t i = 0; i < n; ++i) {
        for (int64_t c = 0; c < n; ++c) weights[i] += block[i * n + c] * (double)v[c];
        shared += about[i] * weights[i];
    }
    fill_levels(j, weights, shared);
    for (int64_t c = 0; c < n; ++c) {
        const int64_t to = c < k ? f.lane + c : f.flag_lane;
        double through = 0, twice = 0;
        for (int64_t i = 0; i < n; ++i) {
            double product = 0;
            for (int64_t e = 0; again && e < n; ++e) product += block[i * n + e] * block[c * n + e];
            through += about[i] * block[i * n + c];
            twice += about[i] * product;
            if (c == k) column[i] = block[i * n + c], gram_column[i] = product;
            if (c == k) continue;
            table[f.table + i * f.width + c] = (float)block[i * n + c];
            if (again) gram[f.table + i * f.width + c] = (float)product;
        }
        middle[to] = (float)through, gram_middle[to] = (float)twice, centre[to] = (float)about[c];
    }
    fill_flags(j, column, flags);
    if (again) fill_flags(j, gram_column, gram_flags);
    return true;
}

void Additive::fill_levels(int32_t j, const double *weights, double middle_score) {
    const auto *m = model;
    const int64_t end = level_end(m, j), k = m->sizes[j];
    for (int64_t l = m->start[j]; l < end; ++l) {
        const int32_t hat = m->hat[l];
        levels[l] = Level{m->low[l], m->high[l], (uint32_t)(hat * features[j].width), m->flag[l]};
        const double found = (double)m->low[l] * weights[hat] + (double)m->high[l] * weights[hat + 1];
        score[l] = (float)(found + (double)m->flag[l] * weights[k] - middle_score);
    }
    limit[j] = (uint32_t)(end - m->start[j] - 1);
}

void Additive::fill_flags(int32_t j, const double *column, float *to) {
    for (int64_t l = model->start[j], end = level_end(model, j), k = model->sizes[j]; l < end; ++l) {
        const int32_t hat = model->hat[l];
        const double found = (double)model->low[l] * column[hat] + (double)model->high[l] * column[hat + 1];
        to[l] = (float)(found + (double)model->flag[l] * column[k]);
    }
}

// Rows of tables, mixed once a level instead of once a row. The model alone decides it, for bits may differ: a phone's
// must not depend on who else is in its round.
int32_t Additive::mix_levels() {
    double lanes = 0;
    for (int32_t j = 0; j < model->features; ++j)
        features[j].mixed = (int64_t)lanes, lanes += (double)(level_end(model, j) - features[j].start) * features[j].width;
    if (lanes * sizeof(float) > MIXED_BYTES) return 0;
    mixed = memory[13].take<float>((int64_t)lanes);
    if (!mixed) return 3;
    for (int32_t j = 0; j < model->features; ++j) {
        const Feature f = features[j];
        const float *rows = table + f.table, *last = rows + model->sizes[j] * f.width;
        float *to = mixed + f.mixed;
        for (int64_t l = f.start, end = level_end(model, j); l < end; ++l)
            for (int64_t c = 0; c < f.width; c += LANES, to += LANES)
                store(to, mix(levels[l], rows + levels[l].row + c, f.width, coupled ? last + c : nullptr));
    }
    return 0;
}

int32_t Additive::prepare(const ps_phones *of, const ps_local *by, const ps_additive *what) {
    phones = of, local = by, model = what;
    for (int64_t i = 0; i < of->count; ++i) {
        const int64_t n = of->counts[i];
        longest = n > longest ? n : longest;
    }
    again = longest > 0 && steps_of(by, longest) > 1;
    int32_t status = check();
    if (status == 0) status = lay_out();
    if (status) return status;
    const double *block = what->blocks, *about = what->centre;
    int64_t coordinate = 1;
    for (int32_t j = 0; j < what->features; ++j) {
        const int64_t k = what->sizes[j];
        if (!fill_feature(j, block, about, what->flat + coordinate)) return 3;
        for (int64_t c = 0; c <= k; ++c)
            place[coordinate + c] = (int32_t)(c < k ? features[j].lane + c : features[j].flag_lane);
        block += (k + 1) * (k + 1), about += k + 1, coordinate += k + 1;
    }
    place[0] = (int32_t)bias_lane;
    base = (float)(what->bias * (double)what->flat[0]);
    grid.set(by, what->dimension, size, place);
    return mix_levels();
}
