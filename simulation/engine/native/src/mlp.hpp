// A round of an MLP: tanh hidden layers, one logit, logistic loss; one phone at a time in the nearest cache.
#include "mlp_math.hpp"
#include "mlp_tiles.hpp"
#include "mlp_rows.hpp"

enum { MOST_LAYERS = 32, CHUNK_BYTES = 49152 };

// Weights of a layer: a row of `lanes` for each of `in` inputs and one of biases; the last layer, of one output, is one
// row of weights and its bias. `turned`: place of the transposed copy, `out` rows of `turned_lanes`.
// Its inputs of a row lie side by side, then a 1 for the biases: at `inputs` of the scratch, `stride` apart.
struct Layer {
    int64_t in, out, lanes, weights, turned, turned_lanes, inputs, stride;
};

struct MlpShared {
    const ps_phones *phones;
    const ps_local *local;
    const ps_mlp *model;
    int64_t layers, lanes, turned_lanes, input_lanes, chunk, most_rows;
    Layer layer[MOST_LAYERS];
    Memory sent_memory, turned_memory, place_memory;
    float *sent, *turned;
    int32_t *place;
    Grid grid;

    int32_t set(const ps_phones *with, const ps_local *how, const ps_mlp *of) {
        phones = with, local = how, model = of;
        const int32_t refused = check();
        if (refused) return refused;
        lay_out();
        sent = sent_memory.take<float>(lanes);
        turned = turned_memory.take<float>(turned_lanes);
        place = place_memory.take<int32_t>(model->dimension);
        if (!sent || !turned || !place) return 3;
        fill();
        grid.set(local, model->dimension, lanes, place);
        return 0;
    }
    // The transposed copies of all weights that errors flow back through.
    void turn_all(const float *weights, float *to) const {
        for (int64_t l = 1; l + 1 < layers; ++l) {
            const Layer &at = layer[l];
            turn(weights + at.weights, at.in, at.lanes, at.lanes, to + at.turned, at.turned_lanes);
        }
    }

  private:
    int32_t check() {
        if (model->layers < 2 || model->layers > MOST_LAYERS || model->activation != 0) return 2;
        if (model->sizes[0] != model->width || model->sizes[model->layers] != 1) return 2;
        double numbers = 0;
        for (int32_t l = 0; l < model->layers; ++l) {
            if (model->sizes[l] < 1) return 2;
            numbers += ((double)model->sizes[l] + 1) * model->sizes[l + 1];
        }
        if (numbers != (double)model->dimension || numbers > 1e8) return 2;
        if (model->x) return 0;
        if (!model->codes || model->features < 1 || model->value_count < 1) return 2;
        if (model->code_bytes != 1 && model->code_bytes != 2 && model->code_bytes != 4) return 2;
        for (int32_t c = 0; c < model->width; ++c)
            if (model->feature[c] < 0 || model->feature[c] >= model->features) return 2;
        for (int32_t c = 0; c < model->width; ++c)
            if (model->table[c] < 0 || model->table[c] >= model->value_count) return 2;
        return 0;
    }
    void lay_out() {
        layers = model->layers;
        lanes = turned_lanes = input_lanes = most_rows = 0;
        for (int64_t l = 0; l < layers; ++l) {
            Layer &at = layer[l];
            at.in = model->sizes[l], at.out = model->sizes[l + 1];
            const bool last = l + 1 == layers;
            at.lanes = padded(last ? at.in + 1 : at.out);
            at.weights = lanes;
            lanes += last ? at.lanes : (at.in + 1) * at.lanes;
            at.turned = turned_lanes, at.turned_lanes = padded(at.in);
            if (l > 0 && !last) turned_lanes += at.lanes * at.turned_lanes;
            at.inputs = input_lanes, at.stride = padded(at.in + 1);
            input_lanes += at.stride;
        }
        chunk = CHUNK_BYTES / (int64_t)sizeof(float) / input_lanes;
        chunk = chunk < 16 ? 16 : chunk > 128 ? 128 : chunk;
        for (int64_t i = 0; i < phones->count; ++i)
            if (phones->counts[i] > most_rows) most_rows = phones->counts[i];
    }
    void fill() {
        int64_t i = 0;
        for (int64_t l = 0; l < layers; ++l) {
            const Layer &at = layer[l];
            const bool last = l + 1 == layers;
            for (int64_t r = 0; r <= at.in; ++r)
                for (int64_t c = 0; c < at.out; ++c, ++i)
                    place[i] = (int32_t)(at.weights + (last ? r : r * at.lanes + c));
        }
        for (i = 0; i < model->dimension; ++i) sent[place[i]] = model->flat[i];
        turn_all(sent, turned);
    }
};

struct MlpTrainer {
    const MlpShared *shared;
    Memory weights_memory, turned_memory, inputs_memory, slopes_memory, part_memory;
    float *weights, *turned, *inputs, *slopes, *labels;
    double *part;
    Order order;

    int32_t begin(const MlpShared &of) {
        shared = &of;
        weights = weights_memory.take<float>(of.lanes);
        turned = turned_memory.take<float>(of.turned_lanes);
        inputs = inputs_memory.take<float>(of.input_lanes * of.chunk);
        slopes = slopes_memory.take<float>(2 * padded(of.chunk));
        part = part_memory.take<double>(of.most_rows > of.chunk ? of.lanes : 0);
        if (!weights || !turned || !inputs || !slopes || !part || !order.begin(of.most_rows)) return 3;
        labels = slopes + padded(of.chunk);
        for (int64_t r = 0; r < of.chunk; ++r)
            for (int64_t l = 0; l < of.layers; ++l) inputs_of(l)[r * of.layer[l].stride + of.layer[l].in] = 1.0f;
        return 0;
    }

    int32_t train(int64_t phone, float *delta) {
        const ps_local *local = shared->local;
        const int64_t first = shared->phones->first[phone], n = shared->phones->counts[phone];
        const int64_t batches = batches_of(local, n), steps = steps_of(local, n);
        const int64_t batch = batches == 1 ? n : local->batch;
        Settle settle = {ONLY, (float)(1 - local->rate * local->prox), shared->sent, weights, delta, part};
        int64_t turn_now = 0;
        uint64_t epoch = 0;
        for (int64_t step = 0; step < steps; ++step) {
            const int32_t *rows = nullptr;
            if (batches > 1) {
                if (turn_now == 0) order.shuffle_rows(mix_epoch(shared->phones->ids[phone], local->seed, local->round, epoch++), n);
                rows = order.order + turn_now * batch;
            }
            const int64_t from = turn_now * batch, m = from + batch < n ? batch : n - from;
            settle.mode = step == 0 ? (steps == 1 ? ONLY : FIRST) : step + 1 == steps ? LAST : MIDDLE;
            if (!run_batch(first, rows, m, settle, batches == 1 && step > 0)) return 2;
            if (++turn_now == batches) turn_now = 0;
        }
        return 0;
    }

  private:
    float *inputs_of(int64_t l) const { return inputs + shared->layer[l].inputs * shared->chunk; }

    // One gradient step on m rows: first + rows[i], or first + i where rows is null.
    bool run_batch(int64_t first, const int32_t *rows, int64_t m, const Settle &settle, bool again) {
        const float rate = (float)(-shared->local->rate / (double)m);
        const bool fresh = settle.mode == ONLY || settle.mode == FIRST;
        const float *at = fresh ? shared->sent : weights;
        if (m <= shared->chunk) {
            if (!again && !gather(first, rows, m)) return false;
            pass(at, fresh, m, rate, settle);
            return true;
        }
        Settle parts = settle;
        parts.mode = PART;
        memset(part, 0, sizeof(double) * (size_t)shared->lanes);
        for (int64_t from = 0; from < m; from += shared->chunk) {
            const int64_t now = from + shared->chunk < m ? shared->chunk : m - from;
            if (!gather(first + (rows ? 0 : from), rows ? rows + from : nullptr, now)) return false;
            pass(at, fresh, now, rate, parts);
        }
        for (int64_t i = 0; i < shared->lanes; i += LANES) {
            float whole[LANES];
            for (int j = 0; j < LANES; ++j) whole[j] = (float)part[i + j];
            settle.vector(i, load(whole));
        }
        return true;
    }

    bool gather(int64_t first, const int32_t *rows, int64_t m) {
        const int64_t stride = shared->layer[0].stride;
        bool good = true;
        for (int64_t r = 0; r < m; ++r) {
            const int64_t row = first + (rows ? rows[r] : r);
            good &= gather_row(shared->model, row, inputs_of(0) + r * stride);
            labels[r] = shared->phones->y[row];
        }
        return good;
    }

    // Forward and back over m gathered rows.
    void pass(const float *at, bool fresh, int64_t m, float rate, const Settle &settle) {
        const int64_t last = shared->layers - 1;
        for (int64_t l = 0; l < last; ++l) {
            const Layer &layer = shared->layer[l], &next = shared->layer[l + 1];
            product(Forward{inputs_of(l), at + layer.weights, inputs_of(l + 1), layer.stride, layer.lanes, next.stride, layer.in}, m, layer.lanes);
            activate(inputs_of(l + 1), m, next.stride, layer.lanes, layer.out);
        }
        const float *back = shared->turned;
        if (!fresh) shared->turn_all(weights, turned), back = turned;
        head(at, m, rate, settle);
        for (int64_t l = last - 1; l >= 0; --l) {
            const Layer &layer = shared->layer[l], &next = shared->layer[l + 1];
            product(Update{inputs_of(l), inputs_of(l + 1), layer.stride, next.stride, m, layer.weights, layer.lanes, &settle}, layer.in + 1, layer.lanes);
            if (l > 0)
                product(Backward{inputs_of(l + 1), back + layer.turned, inputs_of(l), next.stride, layer.turned_lanes, layer.stride, layer.out}, m, layer.turned_lanes);
        }
    }

    static void activate(float *h, int64_t m, int64_t stride, int64_t lanes, int64_t out) {
        for (int64_t r = 0; r < m; ++r, h += stride) {
            for (int64_t i = 0; i < lanes; i += LANES) store(h + i, vtanh(load(h + i)));
            h[out] = 1.0f;
        }
    }

    // The last layer: logits, slopes of the loss, update, and the errors of the layer before in place of its outputs.
    void head(const float *at, int64_t m, float rate, const Settle &settle) {
        const Layer &layer = shared->layer[shared->layers - 1];
        float *h = inputs_of(shared->layers - 1);
        const float *w = at + layer.weights;
        for (int64_t r = 0; r < m; ++r) {
            vf sum = vf{};
            for (int64_t i = 0; i < layer.lanes; i += LANES) sum += load(h + r * layer.stride + i) * load(w + i);
            slopes[r] = lanes_total(sum);
        }
        for (int64_t r = 0; r < m; r += LANES)
            store(slopes + r, (0.5f * vtanh(0.5f * load(slopes + r)) + 0.5f - load(labels + r)) * rate);
        for (int64_t i = 0; i < layer.lanes; i += LANES) {
            const vf weight = load(w + i);
            vf sum = vf{};
            for (int64_t r = 0; r < m; ++r) {
                const vf value = load(h + r * layer.stride + i), slope = splat(slopes[r]);
                sum += value * slope;
                store(h + r * layer.stride + i, slope * weight * (1.0f - value * value));
            }
            settle.vector(layer.weights + i, sum);
        }
    }
};

static int32_t mlp_round(const ps_phones *phones, const ps_local *local, const ps_mlp *model, ps_answer *answer, int32_t threads) {
    const int32_t refused = check_phones(phones, local, answer);
    if (refused) return refused;
    MlpShared shared;
    const int32_t unset = shared.set(phones, local, model);
    if (unset) return unset;
    return run_round<MlpTrainer>(phones, shared, shared.grid, answer, threads);
}
