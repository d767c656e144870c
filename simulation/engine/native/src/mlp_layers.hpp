// How an MLP's weights and a batch's activations lie in memory: rows padded to whole vectors.

enum { MOST_LAYERS = 32, CHUNK_BYTES = 49152, TURNED = 4 * LANES };

// Weights of a layer: a row of `lanes` for each of `in` inputs and one of biases; the last layer, of one output, is one
// row of weights and its bias.
// `turned`: where the sent model's transposed groups are, one after the other.
// Its inputs of a row lie side by side, then a 1 for the biases: at `inputs` of the scratch, `stride` apart.
struct Layer {
    int64_t in, out, lanes, weights, turned, inputs, stride;
};

struct MlpShared {
    const ps_phones *phones;
    const ps_local *local;
    const ps_mlp *model;
    int64_t layers, lanes, turned_lanes, group_lanes, input_lanes, chunk, most_rows;
    Layer layer[MOST_LAYERS];
    Memory sent_memory, turned_memory, place_memory;
    float *sent, *turned;
    int32_t *place;
    Grid grid;
    AtRest at_rest;

    int32_t set(const ps_phones *with, const ps_local *how, const ps_mlp *of) {
        phones = with, local = how, model = of;
        const int32_t refused = check();
        if (refused) return refused;
        lay_out();
        at_rest.set(phones, model);
        sent = sent_memory.take<float>(lanes);
        turned = turned_memory.take<float>(turned_lanes);
        place = place_memory.take<int32_t>(model->dimension);
        if (!sent || !turned || !place) return 3;
        fill();
        grid.set(local, model->dimension, lanes, place);
        return 0;
    }
    // Weights of a group of a layer's inputs, transposed for errors to flow back through: `lanes` rows of `wide`.
    void turn_group(const float *model_lanes, int64_t l, int64_t from, int64_t wide, float *to) const {
        const Layer &at = layer[l];
        const int64_t rows = from + wide < at.in ? wide : at.in - from;
        turn(model_lanes + at.weights + from * at.lanes, rows, at.lanes, at.lanes, to, wide);
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
        lanes = turned_lanes = group_lanes = input_lanes = most_rows = 0;
        for (int64_t l = 0; l < layers; ++l) {
            Layer &at = layer[l];
            at.in = model->sizes[l], at.out = model->sizes[l + 1];
            const bool last = l + 1 == layers;
            at.lanes = padded(last ? at.in + 1 : at.out);
            at.weights = lanes;
            lanes += last ? at.lanes : (at.in + 1) * at.lanes;
            at.turned = turned_lanes;
            if (l > 0 && !last) {
                turned_lanes += at.lanes * padded(at.in);
                if (at.lanes * TURNED > group_lanes) group_lanes = at.lanes * TURNED;
            }
            at.inputs = input_lanes, at.stride = padded(at.in + 1);
            input_lanes += at.stride;
        }
        chunk = CHUNK_BYTES / (int64_t)sizeof(float) / input_lanes;
        chunk = chunk < 16 ? 16 : chunk > 128 ? 128 : chunk / 4 * 4;
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
        for (int64_t l = 1; l + 1 < layers; ++l)
            for (int64_t from = 0, inside = padded(layer[l].in); from < inside; from += TURNED)
                turn_group(sent, l, from, from + TURNED < inside ? TURNED : inside - from,
                           turned + layer[l].turned + from * layer[l].lanes);
    }
};
