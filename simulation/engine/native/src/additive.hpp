// The additive model: a row touches two hats a feature, so a phone's delta is a few rows of small tables, weighted.
//
// With row inputs z_r, every step's gradient is a sum of z_r, hence delta = sum over rows of weight_r * z_r: steps after
// the first only change the weights. What they need of delta is z_r * delta = phi_r * u - centre * u with
// u = B B' (sum weight * (phi - centre)), looked up by the same two hats.

struct Level {
    float low, high;
    uint32_t row;  // where the hat's row begins in the feature's table; the next hat's is `width` floats further
    float flag;
};

// One feature's part of a delta: `width` lanes from `lane` on, its levels from `start` on, its tables at `table`.
struct Feature {
    int64_t start, lane, width, table, flag_lane;
    float flag_gain, flag_gram;  // where flags stand apart, the flag's own weight in delta and in u
};

struct Additive {
    const ps_phones *phones;
    const ps_local *local;
    const ps_additive *model;
    Grid grid;
    bool coupled = false;  // some block mixes hats and flag: then the flag is a column like another
    bool again = false;    // some phone takes a second step
    int64_t longest = 0, size = 0, bias_lane = 0;
    float base = 0;
    Memory memory[11];
    Feature *features;
    Level *levels;
    float *score, *table, *gram, *middle, *gram_middle, *centre;
    uint32_t *limit;
    int32_t *place;
    int64_t *starts;

    int32_t prepare(const ps_phones *, const ps_local *, const ps_additive *);

  private:
    int32_t check();
    int32_t lay_out();
    bool fill_feature(int32_t j, const double *block, const double *about, const float *v);
    void fill_levels(int32_t j, const double *weights, double middle_score);
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
        f.start = model->start[j], f.lane = lane, f.table = table_size, f.width = padded(k + (coupled ? 1 : 0));
        lane += f.width;
        table_size += f.width * (k + 1);  // the last row is the flag's, or zeros: what a last hat's `high` looks at
    }
    for (int32_t j = 0; j < count; ++j)
        features[j].flag_lane = coupled ? features[j].lane + model->sizes[j] : lane + j;
    bias_lane = coupled ? lane : lane + count;
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
    for (int32_t j = 0; starts && j < count; ++j) starts[j] = model->start[j];
    return levels && score && table && gram && middle && gram_middle && centre && limit && place && starts ? 0 : 3;
}

// Tables of one feature: rows of the block, of block * block', and what the centre takes off both.
bool Additive::fill_feature(int32_t j, const double *block, const double *about, const float *v) {
    const auto &f = features[j];
    const int64_t k = model->sizes[j], n = k + 1;
    Memory scratch;
    double *weights = scratch.take<double>(n), shared = 0;
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
            if (i == k && c == k) features[j].flag_gain = (float)block[i * n + c], features[j].flag_gram = (float)product;
            if (!coupled && (i == k || c == k)) continue;
            table[f.table + i * f.width + c] = (float)block[i * n + c];
            if (again) gram[f.table + i * f.width + c] = (float)product;
        }
        middle[to] = (float)through, gram_middle[to] = (float)twice, centre[to] = (float)about[c];
    }
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
    return 0;
}

// Rows of one phone, or some of them: codes of row i are at codes + (rows ? rows[i] : i) * stride, its weight by[i].
template <class Code> struct Weighted {
    const Code *codes;
    int64_t stride;
    const int32_t *rows;
    const float *by;
    int64_t n;

    PS_INLINE_MEMBER const Code *at(int64_t i) const { return codes + (rows ? rows[i] : i) * stride; }
};

// V vectors of feature j: sum over rows of weight * (low * row(hat) + high * row(hat + 1)); returns that of the flags.
template <int V, class Code>
PS_INLINE float feature_sum(const Weighted<Code> &what, int64_t j, const Level *levels, const float *table, int64_t width,
                            const float *flag_row, vf *sums) {
    vf even[V];
    float flag = 0;
    for (int v = 0; v < V; ++v) even[v] = vf{};
    for (int64_t i = 0; i < what.n; ++i) {
        const Level &level = levels[what.at(i)[j]];
        const float *row = table + level.row;
        const vf weight = splat(what.by[i]), low = splat(level.low), high = splat(level.high);
        const float apart = what.by[i] * level.flag;
        for (int v = 0; v < V; ++v) {
            const vf mixed = low * load(row + v * LANES) + high * load(row + width + v * LANES);
            even[v] += weight * mixed;
            if (flag_row) even[v] += apart * load(flag_row + v * LANES);
        }
        flag += apart;
    }
    for (int v = 0; v < V; ++v) sums[v] = even[v];
    return flag;
}

template <class Code> struct AdditiveTrainer {
    const Additive *shared;
    Memory memory[7];
    float *logits, *weights, *slopes, *u;
    int32_t *order;
    Key *keys;
    Code *limit;
    Weighted<Code> parts[Group::MOST];
    enum { GROUP_ROWS = 256 };

    int32_t begin(const Additive &all) {
        shared = &all;
        const int64_t n = padded(all.longest), shuffled = all.local->batch ? all.longest : 0;
        logits = memory[0].take<float>(n);
        weights = memory[1].take<float>(n + GROUP_ROWS + Group::MOST * LANES);
        slopes = memory[2].take<float>(n);
        u = memory[3].take<float>(all.size);
        order = memory[4].take<int32_t>(shuffled);
        keys = memory[5].take<Key>(shuffled);
        limit = memory[6].take<Code>(all.model->features);
        if (!logits || !weights || !slopes || !u || !order || !keys || !limit) return 3;
        const uint32_t top = (Code)~(Code)0;
        for (int32_t j = 0; j < all.model->features; ++j) limit[j] = (Code)(all.limit[j] < top ? all.limit[j] : top);
        return 0;
    }

    // Phones from `phone` on, up to a full group: feature by feature, so that one feature's tables stay in L1 for all.
    int32_t train_group(int64_t phone, int64_t end, float *deltas, Group *group) {
        const auto *phones = shared->phones;
        const int64_t stride = shared->model->features;
        int64_t used = 0;
        for (group->count = 0; phone < end && group->count < Group::MOST; ++phone) {
            const int64_t n = phones->counts[phone], first = phones->first[phone];
            if (n == 0) continue;
            if (group->count && used + n > GROUP_ROWS) break;
            prefetch(phone + 4);
            const Code *codes = (const Code *)shared->model->codes + first * stride;
            const float *y = phones->y + first;
            float *by = weights + used;
            if (!score_rows(codes, n)) return 2;
            if (steps_of(shared->local, n) == 1 && batches_of(shared->local, n) == 1)
                slopes_of(logits, y, nullptr, n, by);
            else
                walk(phone, codes, y, n, by);
            const int64_t g = group->count++;
            group->phones[g] = phone;
            parts[g] = Weighted<Code>{codes, stride, nullptr, by, n};
            used += padded(n);
        }
        group->next = phone;
        if (used > padded(GROUP_ROWS))
            add_rows(parts[0], shared->table, shared->middle, 0, false, deltas);
        else
            add_group(group->count, deltas);
        return 0;
    }

  private:
    void prefetch(int64_t phone) const {
        const auto *phones = shared->phones;
        if (phone >= phones->count) return;
        const int64_t stride = shared->model->features * (int64_t)sizeof(Code);
        const char *from = (const char *)shared->model->codes + phones->first[phone] * stride;
        const int64_t bytes = phones->counts[phone] * stride;
        for (int64_t at = 0; at < bytes && at < 1024; at += 64) __builtin_prefetch(from + at);
        __builtin_prefetch(phones->y + phones->first[phone]);
    }

    // The sent model's logits of all rows; false where a code lies beyond its feature's levels.
    bool score_rows(const Code *codes, int64_t n) {
        const int64_t count = shared->model->features, *starts = shared->starts;
        const float *score = shared->score;
        for (int64_t r = 0; r < n; ++r, codes += count) {
            if (beyond(codes, limit, count)) return false;
            float sums[4] = {shared->base, 0, 0, 0};
            int64_t j = 0;
            for (; j + 4 <= count; j += 4)
                for (int i = 0; i < 4; ++i) sums[i] += score[starts[j + i] + codes[j + i]];
            for (; j < count; ++j) sums[0] += score[starts[j] + codes[j]];
            logits[r] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        }
        return true;
    }

    // -rate / n * (sigmoid(logit) - y) of a batch of n rows, perhaps in place.
    void slopes_of(const float *of, const float *y, const int32_t *rows, int64_t n, float *to) const {
        const float gain = (float)(-shared->local->rate / (double)n);
        for (int64_t i = 0; i < n; i += LANES) store(to + i, vsigmoid(load(of + i)));
        for (int64_t i = 0; i < n; ++i) to[i] = gain * (to[i] - y[rows ? rows[i] : i]);
    }

    // All local steps, in the rows' weights alone.
    void walk(int64_t phone, const Code *codes, const float *y, int64_t n, float *by) {
        const auto *local = shared->local;
        const int64_t steps = steps_of(local, n), batches = batches_of(local, n);
        const float keep = (float)(1 - local->rate * local->prox);
        const int64_t count = shared->model->features;
        double bias = 0, about = 0;  // z_r * delta is phi_r * u - about + bias
        memset(by, 0, sizeof(float) * (size_t)n);
        memset(u, 0, sizeof(float) * (size_t)shared->size);
        for (int64_t step = 0; step < steps; ++step) {
            const int64_t turn = step % batches;
            if (batches > 1 && turn == 0)
                shuffle(mix_epoch(shared->phones->ids[phone], local->seed, local->round, (uint64_t)(step / batches)), n,
                        keys, order);
            const int64_t from = turn * local->batch;
            const int64_t m = batches > 1 && n - from > local->batch ? local->batch : n - from;
            const int32_t *rows = batches > 1 ? order + from : nullptr;
            step_slopes(codes, y, rows, m, step > 0, (float)(bias - about));
            for (int64_t i = 0; keep != 1 && i < n; ++i) by[i] *= keep;
            for (int64_t i = 0; i < m; ++i) by[rows ? rows[i] : i] += slopes[i];
            if (step + 1 == steps) break;
            double sum = 0;
            for (int64_t i = 0; i < m; ++i) sum += (double)slopes[i];
            bias = (double)keep * bias + sum * shared->model->bias * shared->model->bias;
            add_rows(Weighted<Code>{codes, count, rows, slopes, m}, shared->gram, shared->gram_middle, keep, true, u);
            u[shared->bias_lane] = 0;
            about = dot(shared->centre, u, shared->size);
        }
    }

    static double dot(const float *a, const float *b, int64_t n) {
        vd sum = vd{};
        for (int64_t i = 0; i < n; i += HALF) sum += widen(a + i) * widen(b + i);
        return total_double(sum);
    }

    // Slopes of a batch's rows; `moved`: the model has left the sent one.
    void step_slopes(const Code *codes, const float *y, const int32_t *rows, int64_t m, bool moved, float shift) {
        const int32_t count = shared->model->features;
        for (int64_t i = 0; i < m; ++i) {
            const int64_t row = rows ? rows[i] : i;
            float logit = logits[row];
            if (moved) {
                const Code *at = codes + row * count;
                float sums[2] = {shift, 0};
                for (int32_t j = 0; j < count; ++j) {
                    const auto &f = shared->features[j];
                    const Level &level = shared->levels[f.start + at[j]];
                    const float *hats = u + f.lane + shared->model->hat[f.start + at[j]];
                    // The lane after a last hat is another's, but its weight is 0.
                    sums[j & 1] += level.low * hats[0] + level.high * hats[1] + level.flag * u[f.flag_lane];
                }
                logit += sums[0] + sums[1];
            }
            slopes[i] = logit;
        }
        slopes_of(slopes, y, rows, m, slopes);
    }

    // to = keep * to + sum over rows of weight * (table rows of its levels - middle). Rows in pieces that stay in cache.
    void add_rows(const Weighted<Code> &all, const float *table, const float *middle, float keep, bool inner,
                  float *to) const {
        const int64_t piece = GROUP_ROWS, count = shared->model->features;
        const double sum = sum_of(all);
        for (int64_t from = 0; from < all.n; from += piece) {
            const int64_t m = all.n - from < piece ? all.n - from : piece;
            const Weighted<Code> some = {all.rows ? all.codes : all.codes + from * count, count,
                                         all.rows ? all.rows + from : nullptr, all.by + from, m};
            for (int64_t j = 0; j < count; ++j)
                add_feature(some, j, table, middle, from ? 1 : keep, from ? 0 : (float)sum, inner, to);
        }
        to[shared->bias_lane] = (float)(sum * shared->model->bias);
    }

    // Deltas of phones that together have few rows.
    void add_group(int64_t phones, float *deltas) const {
        float sums[Group::MOST];
        for (int64_t g = 0; g < phones; ++g) {
            const double sum = sum_of(parts[g]);
            sums[g] = (float)sum;
            deltas[g * shared->size + shared->bias_lane] = (float)(sum * shared->model->bias);
        }
        for (int64_t j = 0; j < shared->model->features; ++j)
            for (int64_t g = 0; g < phones; ++g)
                add_feature(parts[g], j, shared->table, shared->middle, 0, sums[g], false, deltas + g * shared->size);
    }

    static double sum_of(const Weighted<Code> &all) {
        double sum = 0;
        for (int64_t i = 0; i < all.n; ++i) sum += (double)all.by[i];
        return sum;
    }

    PS_INLINE_MEMBER void add_feature(const Weighted<Code> &what, int64_t j, const float *table, const float *middle,
                                      float keep, float sum, bool inner, float *to) const {
        const Feature f = shared->features[j];
        const Level *levels = shared->levels + f.start;
        const int64_t last = f.width * shared->model->sizes[j];
        float flag = 0;
        for (int64_t from = 0; from < f.width;) {
            const float *part = table + f.table + from, *off = middle + f.lane + from;
            const float *flags = shared->coupled ? part + last : nullptr;
            float *place = to + f.lane + from;
            const int64_t left = f.width - from;
            vf sums[4];
            if (left == LANES) {
                flag = feature_sum<1>(what, j, levels, part, f.width, flags, sums);
                from += put<1>(sums, off, keep, sum, place);
            } else if (left < 4 * LANES) {
                flag = feature_sum<2>(what, j, levels, part, f.width, flags, sums);
                from += put<2>(sums, off, keep, sum, place);
            } else {
                flag = feature_sum<4>(what, j, levels, part, f.width, flags, sums);
                from += put<4>(sums, off, keep, sum, place);
            }
        }
        if (shared->coupled) return;
        const float old = keep == 0 ? 0 : keep * to[f.flag_lane];
        to[f.flag_lane] = old + ((inner ? f.flag_gram : f.flag_gain) * flag - sum * middle[f.flag_lane]);
    }

    template <int V> PS_INLINE_MEMBER static int64_t put(const vf *sums, const float *off, float keep, float sum, float *to) {
        for (int v = 0; v < V; ++v, to += LANES, off += LANES) {
            const vf old = keep == 0 ? vf{} : keep * load(to);
            store(to, old + (sums[v] - sum * load(off)));
        }
        return V * LANES;
    }
};

template <class Code> struct AtOnce<AdditiveTrainer<Code>> {
    enum { PHONES = Group::MOST };
};

// More special than rounds.hpp's: the additive model trains phones in groups.
template <class Code>
PS_INLINE int32_t train_some(AdditiveTrainer<Code> &trainer, const ps_phones *, int64_t phone, int64_t end,
                             float *deltas, Group *group) {
    return trainer.train_group(phone, end, deltas, group);
}

static int32_t additive_round(const ps_phones *phones, const ps_local *local, const ps_additive *model,
                              ps_answer *answer, int32_t threads) {
    int32_t status = check_phones(phones, local, answer);
    Additive shared;
    if (status == 0) status = shared.prepare(phones, local, model);
    if (status) return status;
    if (model->code_bytes == 1) return run_round<AdditiveTrainer<uint8_t>>(phones, shared, shared.grid, answer, threads);
    if (model->code_bytes == 2) return run_round<AdditiveTrainer<uint16_t>>(phones, shared, shared.grid, answer, threads);
    return run_round<AdditiveTrainer<uint32_t>>(phones, shared, shared.grid, answer, threads);
}
