// The additive model's trainer: forward by look-up, steps in the rows' weights alone, one weighted sum at the end.
#include "additive_tables.hpp"
#include "additive_sums.hpp"

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
            if (shared->mixed)
                add_mixed_feature(j, phones, sums, deltas);
            else
                for (int64_t g = 0; g < phones; ++g)
                    add_feature(parts[g], j, shared->table, shared->middle, 0, sums[g], false, deltas + g * shared->size);
    }

    // The usual case of add_group: levels' rows lie ready.
    void add_mixed_feature(int64_t j, int64_t phones, const float *sums, float *deltas) const {
        for (int64_t from = 0, left = shared->features[j].width; left > 0;) {
            const int64_t vectors = left >= 4 * LANES ? 4 : left >= 2 * LANES ? 2 : 1;
            if (vectors == 4) add_mixed_part<4>(j, from, phones, sums, deltas);
            if (vectors == 2) add_mixed_part<2>(j, from, phones, sums, deltas);
            if (vectors == 1) add_mixed_part<1>(j, from, phones, sums, deltas);
            from += vectors * LANES, left -= vectors * LANES;
        }
    }
    // V vectors from lane `from` of the feature on, and its flag.
    template <int V>
    PS_INLINE_MEMBER void add_mixed_part(int64_t j, int64_t from, int64_t phones, const float *sums, float *deltas) const {
        const Feature f = shared->features[j];
        const float *mixed = shared->mixed + f.mixed + from, *flags = shared->flags + f.start;
        const float *off = shared->middle + f.lane + from, flag_middle = shared->middle[f.flag_lane];
        const int64_t size = shared->size;
        for (int64_t g = 0; g < phones; ++g, deltas += size) {
            vf found[V];
            const float flag = mixed_sum<V>(parts[g], j, mixed, f.width, flags, found);
            put<V>(found, off, 0, sums[g], deltas + f.lane + from);
            deltas[f.flag_lane] = flag - sums[g] * flag_middle;
        }
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
        const float *flags = (inner ? shared->gram_flags : shared->flags) + f.start;
        float flag = 0;
        for (int64_t from = 0; from < f.width;) {
            const float *part = table + f.table + from, *off = middle + f.lane + from;
            const float *flag_row = shared->coupled ? part + last : nullptr;
            float *place = to + f.lane + from;
            const int64_t left = f.width - from;
            vf sums[4];
            if (left == LANES) {
                flag = feature_sum<1>(what, j, levels, part, f.width, flag_row, flags, sums);
                from += put<1>(sums, off, keep, sum, place);
            } else if (left < 4 * LANES) {
                flag = feature_sum<2>(what, j, levels, part, f.width, flag_row, flags, sums);
                from += put<2>(sums, off, keep, sum, place);
            } else {
                flag = feature_sum<4>(what, j, levels, part, f.width, flag_row, flags, sums);
                from += put<4>(sums, off, keep, sum, place);
            }
        }
        const float old = keep == 0 ? 0 : keep * to[f.flag_lane];
        to[f.flag_lane] = old + (flag - sum * middle[f.flag_lane]);
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
