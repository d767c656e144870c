// A round of an MLP: tanh hidden layers, one logit, logistic loss; one phone at a time in the nearest cache.
#include "mlp_math.hpp"
#include "mlp_tiles.hpp"
#include "mlp_walk.hpp"
#include "mlp_rows.hpp"
#include "mlp_layers.hpp"

// The delta is summed apart from the weights: their difference at the end would have lost the delta's digits.
struct MlpTrainer {
    const MlpShared *shared;
    Memory weights_memory, turned_memory, inputs_memory, rows_memory, whole_memory, part_memory;
    float *weights, *turned, *inputs, *slopes, *labels, *whole;
    double *part;
    Order order;

    int32_t begin(const MlpShared &of) {
        shared = &of;
        const int64_t line = padded(of.chunk), parts = of.most_rows > of.chunk ? of.lanes : 0;
        weights = weights_memory.take<float>(of.lanes);
        turned = turned_memory.take<float>(of.group_lanes);
        inputs = inputs_memory.take<float>(of.input_lanes * of.chunk);
        slopes = rows_memory.take<float>(2 * line);
        whole = whole_memory.take<float>(parts);
        part = part_memory.take<double>(parts);
        if (!weights || !turned || !inputs || !slopes || !whole || !part || !order.begin(of.most_rows)) return 3;
        labels = slopes + line;
        for (int64_t r = 0; r < of.chunk; ++r) inputs[r * of.layer[0].stride + of.layer[0].in] = 1;
        return 0;
    }

    int32_t train(int64_t phone, float *delta) {
        Walk walk(shared->phones, shared->local, &order, phone, shared->chunk);
        Settle settle = {ONLY, (float)(-shared->local->rate * shared->local->prox), shared->sent, weights, delta};
        Piece piece;
        for (bool here = false; walk.next(&piece); here = walk.still()) {
            shared->at_rest.fetch_part(phone + 1, walk.step - 1, walk.steps);
            if (!here && !gather(piece)) return 2;
            const int32_t *rows = nullptr;
            const int64_t soon = walk.next_rows(&rows);
            shared->at_rest.fetch_rows(piece.first, rows, soon);
            settle.mode = piece.mode;
            const float *at = piece.mode == ONLY || piece.mode == FIRST ? shared->sent : weights;
            forward(at, piece.count);
            if (piece.opens && piece.closes)
                backward(at, piece, settle);
            else
                backward_part(at, piece, settle);
        }
        return 0;
    }

  private:
    // Inputs of layer l, and where the errors of layer l - 1 take their place.
    float *inputs_of(int64_t l) const { return inputs + shared->layer[l].inputs * shared->chunk; }

    bool gather(const Piece &piece) {
        const int64_t stride = shared->layer[0].stride;
        bool good = true;
        for (int64_t r = 0; r < piece.count; ++r) {
            const int64_t row = piece.first + (piece.rows ? piece.rows[r] : r);
            good &= gather_row(shared->model, row, inputs + r * stride);
            labels[r] = shared->phones->y[row];
        }
        return good;
    }

    void forward(const float *at, int64_t m) {
        for (int64_t l = 0; l + 1 < shared->layers; ++l) {
            const Layer &layer = shared->layer[l], &next = shared->layer[l + 1];
            const float *a = inputs_of(l), *w = at + layer.weights;
            float *h = inputs_of(l + 1);
            product(Forward{a, w, h, layer.stride, layer.lanes, next.stride, layer.in}, m, layer.lanes);
            vtanh_rows(h, next.stride, m, layer.lanes);
            for (int64_t r = 0; r < m; ++r) h[r * next.stride + layer.out] = 1;
        }
    }

    // Layer by layer down, and by groups of a layer's inputs: their weights are transposed, updated, and used no more.
    // The first transposition comes before the errors, which wait for the logits.
    void backward(const float *at, const Piece &piece, const Settle &settle) {
        const int64_t m = piece.count, top = shared->layers - 2;
        find_slopes(at, m, (float)(-shared->local->rate / (double)piece.batch));
        if (top == 0) head(at, m, settle);
        for (int64_t l = top; l > 0; --l) {
            const Layer &layer = shared->layer[l];
            const int64_t dz_stride = shared->layer[l + 1].stride, inside = padded(layer.in);
            const float *dz = inputs_of(l + 1);
            for (int64_t from = 0; from < inside; from += TURNED) {
                const int64_t wide = from + TURNED < inside ? TURNED : inside - from;
                const bool last = from + wide == inside;  // the biases are updated with the last group
                const int64_t rows = last ? layer.in + 1 - from : wide, place = from * layer.lanes;
                const float *back = shared->turned + layer.turned + place;
                if (at != shared->sent) shared->turn_group(at, l, from, wide, turned), back = turned;
                if (l == top && from == 0) head(at, m, settle);
                float *h = inputs_of(l) + from;
                update({h, dz, layer.stride, dz_stride, m, layer.weights + place, layer.lanes, settle}, rows,
                       layer.lanes);
                product(Backward{dz, back, h, dz_stride, wide, layer.stride, layer.out}, m, wide);
            }
        }
        const Layer &first = shared->layer[0], &next = shared->layer[1];
        update({inputs, inputs_of(1), first.stride, next.stride, m, 0, first.lanes, settle}, first.in + 1, first.lanes);
    }

    // A piece of a batch that is too long for the scratch: pieces are summed in float64, then settle as one.
    void backward_part(const float *at, const Piece &piece, const Settle &settle) {
        if (piece.opens) memset(part, 0, sizeof(double) * (size_t)shared->lanes);
        backward(at, piece, Settle{ONLY, 0, shared->sent, nullptr, whole});
        for (int64_t i = 0; i < shared->lanes; ++i) part[i] += (double)whole[i];
        if (!piece.closes) return;
        for (int64_t i = 0; i < shared->lanes; ++i) whole[i] = (float)part[i];
        for (int64_t i = 0; i < shared->lanes; i += LANES) settle.vector(i, load(whole + i));
    }

    // Slopes of the loss by the logits, times -rate / batch: what an update is made of.
    void find_slopes(const float *at, int64_t m, float rate) {
        const Layer &layer = shared->layer[shared->layers - 1];
        const float *w = at + layer.weights, *h = inputs_of(shared->layers - 1);
        for (int64_t r = 0; r < m; r += 4) {
            vf sums[4] = {};
            for (int64_t i = 0; i < layer.lanes; i += LANES)
#pragma GCC unroll 4
                for (int j = 0; j < 4; ++j) sums[j] += load(h + (r + j) * layer.stride + i) * load(w + i);
            four_totals(sums[0], sums[1], sums[2], sums[3], slopes + r);
        }
        for (int64_t r = 0; r < m; r += LANES) {
            vf half[1] = {0.5f * load(slopes + r)};
            vtanh(half);
            store(slopes + r, (0.5f * half[0] + 0.5f - load(labels + r)) * rate);
        }
    }

    // The last layer's update, and the errors of the layer before in place of its outputs.
    void head(const float *at, int64_t m, const Settle &settle) {
        const Layer &layer = shared->layer[shared->layers - 1];
        const int64_t stride = layer.stride, hidden = padded(layer.in);
        const float *w = at + layer.weights;
        float *h = inputs_of(shared->layers - 1);
        for (int64_t i = 0; i < hidden; i += LANES) {
            const vf weight = load(w + i);
            vf sum = vf{};
            for (int64_t r = 0; r < m; ++r) {
                const vf value = load(h + r * stride + i), slope = splat(slopes[r]);
                sum += value * slope;
                store(h + r * stride + i, slope * weight * (1.0f - value * value));
            }
            settle.vector(layer.weights + i, sum);
        }
        if (hidden == layer.lanes) return;  // the bias had a lane there
        vf bias = vf{};
        for (int64_t r = 0; r < m; ++r) bias[0] += slopes[r];
        settle.vector(layer.weights + hidden, bias);
    }
};

static int32_t mlp_round(const ps_phones *phones, const ps_local *local, const ps_mlp *model, ps_answer *answer,
                         int32_t threads) {
    const int32_t refused = check_phones(phones, local, answer);
    if (refused) return refused;
    MlpShared shared;
    const int32_t unset = shared.set(phones, local, model);
    if (unset) return unset;
    return run_round<MlpTrainer>(phones, shared, shared.grid, answer, threads);
}
