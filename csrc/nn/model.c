/* A model: one arena of packed weights in execution order. A session: one block of state. Nothing here allocates after
 * tf_model_create.
 *
 * The arena holds the plan, then the weights of every finish (the critical path) in layer order, then those of every
 * prepare. Both are walked front to back once per step, which is what hardware prefetchers and huge pages serve best. */
#define _DEFAULT_SOURCE
#include "kernels.h"
#include "lstm_f32.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

enum {
    MAX_LAYERS = 256,
    MAX_SIZE = 1 << 20,
    LINE = 64,
    HUGE_PAGE = 2 << 20,
    HUGE_FROM = 512 << 10 /* below, 4 KiB pages stay in the TLB anyway */
};

#define STATE_MAGIC UINT32_C(0x53534654) /* "TFSS" */
#define STATE_VERSION 1u

typedef struct plan {
    int32_t kind, activation, input, output;
    int32_t blocks;                 /* LSTM: ceil(H / 16) */
    uint32_t in, out, c, pre;       /* byte offsets in a session; out is h for an LSTM */
    const float *w, *r, *bias;
} plan;

struct tf_model {
    const tf_kernels *kernels;
    tf_isa isa;
    int32_t count, input, output;
    uint32_t output_offset;
    size_t bytes, session_bytes, state_floats;
    uint64_t hash;
    plan layers[];
};

struct tf_session {
    const tf_model *model;
    uint32_t output_offset;
    int32_t prepared; /* pre holds bias + R h of the present h */
    char padding[LINE - sizeof(void *) - 8];
    float input[];
};

typedef struct state_header {
    uint32_t magic, version;
    uint64_t model, checksum;
    uint32_t floats, prepared;
} state_header;

static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
static size_t padded(int32_t n) { return round_up((size_t)n, 16); }

static uint64_t mix(uint64_t hash, const void *data, size_t bytes) { /* FNV-1a, 64 bits */
    const unsigned char *p = data;
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ p[i]) * UINT64_C(0x100000001B3);
    return hash;
}
#define MIX_START UINT64_C(0xCBF29CE484222325)

static int all_finite(const float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return 0;
    return 1;
}

static tf_status check_layer(const tf_layer_desc *layer, const tf_layer_desc *before) {
    if (layer->kind != TF_LAYER_LSTM && layer->kind != TF_LAYER_DENSE) return TF_ERR_ARGUMENT;
    if (layer->activation < TF_ACT_NONE || layer->activation > TF_ACT_SOFTMAX) return TF_ERR_ARGUMENT;
    if (layer->kind == TF_LAYER_LSTM && layer->activation != TF_ACT_NONE) return TF_ERR_ARGUMENT;
    if (layer->input < 1 || layer->input > MAX_SIZE || layer->output < 1 || layer->output > MAX_SIZE)
        return TF_ERR_SHAPE;
    if (before != NULL && before->output != layer->input) return TF_ERR_SHAPE;
    if (layer->w == NULL || layer->bias == NULL || (layer->kind == TF_LAYER_LSTM && layer->r == NULL))
        return TF_ERR_ARGUMENT;
    const size_t rows = (size_t)layer->output * (layer->kind == TF_LAYER_LSTM ? 4 : 1);
    if (!all_finite(layer->w, rows * (size_t)layer->input) || !all_finite(layer->bias, rows)) return TF_ERR_NONFINITE;
    if (layer->kind == TF_LAYER_LSTM && !all_finite(layer->r, rows * (size_t)layer->output)) return TF_ERR_NONFINITE;
    return TF_OK;
}

/* Floats of w and bias (critical) and of r (prepare), padded to whole cache lines. */
static size_t packed_rows(const tf_layer_desc *layer) {
    return layer->kind == TF_LAYER_LSTM ? 4 * padded(layer->output) : padded(layer->output);
}

static void *allocate(size_t bytes) {
#ifdef __linux__
    if (bytes >= HUGE_FROM) {
        void *memory = aligned_alloc(HUGE_PAGE, round_up(bytes, HUGE_PAGE));
        /* A wish: without huge pages the model works all the same. */
        if (memory != NULL) (void)madvise(memory, round_up(bytes, HUGE_PAGE), MADV_HUGEPAGE);
        return memory;
    }
#endif
    return aligned_alloc(LINE, round_up(bytes, LINE));
}

tf_status tf_model_create_for(const tf_layer_desc *layers, int32_t count, tf_isa isa, tf_model **out,
                              int32_t *bad_layer) {
    if (bad_layer != NULL) *bad_layer = -1;
    if (out == NULL) return TF_ERR_ARGUMENT;
    *out = NULL;
    if (layers == NULL || count < 1 || count > MAX_LAYERS) return TF_ERR_ARGUMENT;
    if (!tf_isa_available(isa)) return TF_ERR_ISA;

    uint64_t hash = MIX_START;
    size_t bytes = round_up(sizeof(tf_model) + (size_t)count * sizeof(plan), LINE);
    size_t session = sizeof(tf_session) + padded(layers[0].input > 0 ? layers[0].input : 0) * sizeof(float);
    size_t state = 0;
    for (int32_t i = 0; i < count; i++) {
        const tf_layer_desc *l = &layers[i];
        const tf_status status = check_layer(l, i > 0 ? &layers[i - 1] : NULL);
        if (status != TF_OK) {
            if (bad_layer != NULL) *bad_layer = i;
            return status;
        }
        const size_t rows = packed_rows(l), units = padded(l->output);
        const size_t raw = (size_t)l->output * (l->kind == TF_LAYER_LSTM ? 4 : 1);
        bytes += (rows * (size_t)l->input + rows) * sizeof(float);
        session += units * sizeof(float);
        const int32_t shape[4] = {l->kind, l->activation, l->input, l->output};
        hash = mix(hash, shape, sizeof shape);
        hash = mix(hash, l->w, raw * (size_t)l->input * sizeof(float));
        hash = mix(hash, l->bias, raw * sizeof(float));
        if (l->kind == TF_LAYER_LSTM) {
            bytes += rows * (size_t)l->output * sizeof(float);
            session += (units + rows) * sizeof(float);
            hash = mix(hash, l->r, raw * (size_t)l->output * sizeof(float));
            state += 2 * (size_t)l->output;
        }
    }
    if (session > UINT32_MAX) return TF_ERR_MEMORY; /* offsets are 32 bits wide */

    tf_model *model = allocate(bytes);
    if (model == NULL) return TF_ERR_MEMORY;
    memset(model, 0, sizeof *model + (size_t)count * sizeof(plan));
    model->kernels = tf_kernels_of(isa);
    model->isa = isa;
    model->count = count;
    model->input = layers[0].input;
    model->output = layers[count - 1].output;
    model->bytes = bytes;
    model->session_bytes = session;
    model->state_floats = state + (size_t)model->output;
    model->hash = hash;

    float *next = (float *)((char *)model + round_up(sizeof(tf_model) + (size_t)count * sizeof(plan), LINE));
    uint32_t in = (uint32_t)sizeof(tf_session);
    uint32_t offset = in + (uint32_t)(padded(model->input) * sizeof(float));
    for (int32_t i = 0; i < count; i++) { /* critical weights, and where the session keeps what */
        const tf_layer_desc *l = &layers[i];
        plan *p = &model->layers[i];
        const uint32_t units = (uint32_t)(padded(l->output) * sizeof(float));
        p->kind = l->kind;
        p->activation = l->activation;
        p->input = l->input;
        p->output = l->output;
        p->blocks = (l->output + 15) / 16;
        p->in = in;
        p->out = offset;
        offset += units;
        p->w = next;
        if (l->kind == TF_LAYER_LSTM) {
            tf_pack_lstm_f32(l->w, l->output, l->input, next);
            p->c = offset;
            p->pre = offset + units;
            offset += 5 * units;
        } else {
            tf_pack_f32(l->w, l->output, l->input, l->input, next);
        }
        next += packed_rows(l) * (size_t)l->input;
        if (l->kind == TF_LAYER_DENSE) { /* its bias is needed on the critical path */
            tf_pack_f32(l->bias, l->output, 1, 1, next);
            p->bias = next;
            next += packed_rows(l);
        }
        in = p->out;
    }
    for (int32_t i = 0; i < count; i++) { /* prepare weights */
        const tf_layer_desc *l = &layers[i];
        plan *p = &model->layers[i];
        if (l->kind != TF_LAYER_LSTM) continue;
        tf_pack_lstm_f32(l->r, l->output, l->output, next);
        p->r = next;
        next += packed_rows(l) * (size_t)l->output;
        tf_pack_lstm_f32(l->bias, l->output, 1, next);
        p->bias = next;
        next += packed_rows(l);
    }
    model->output_offset = in;
    *out = model;
    return TF_OK;
}

tf_status tf_model_create(const tf_layer_desc *layers, int32_t count, tf_model **out, int32_t *bad_layer) {
    return tf_model_create_for(layers, count, tf_isa_active(), out, bad_layer);
}

void tf_model_free(tf_model *model) { free(model); }
tf_isa tf_model_isa(const tf_model *model) { return model->isa; }
uint64_t tf_model_hash(const tf_model *model) { return model->hash; }
int32_t tf_model_input_size(const tf_model *model) { return model->input; }
int32_t tf_model_output_size(const tf_model *model) { return model->output; }
size_t tf_model_bytes(const tf_model *model) { return model->bytes; }
size_t tf_model_session_bytes(const tf_model *model) { return model->session_bytes; }

static float *at(tf_session *session, uint32_t offset) { return (float *)((char *)session + offset); }
static const float *at_const(const tf_session *session, uint32_t offset) {
    return (const float *)((const char *)session + offset);
}

void tf_session_reset(tf_session *session) {
    const tf_model *model = session->model;
    memset(session->input, 0, model->session_bytes - sizeof(tf_session));
    for (int32_t i = 0; i < model->count; i++) {
        const plan *p = &model->layers[i];
        if (p->kind == TF_LAYER_LSTM) /* b + R 0 */
            memcpy(at(session, p->pre), p->bias, (size_t)p->blocks * 64 * sizeof(float));
    }
    session->prepared = 1;
}

tf_status tf_session_init(const tf_model *model, void *memory, size_t bytes, tf_session **out) {
    if (out != NULL) *out = NULL;
    if (model == NULL || memory == NULL || out == NULL || (uintptr_t)memory % LINE != 0) return TF_ERR_ARGUMENT;
    if (bytes < model->session_bytes) return TF_ERR_MEMORY;
    tf_session *session = memory;
    memset(session, 0, sizeof *session);
    session->model = model;
    session->output_offset = model->output_offset;
    tf_session_reset(session);
    *out = session;
    return TF_OK;
}

float *tf_session_input(tf_session *session) { return session->input; }
const float *tf_session_output(const tf_session *session) { return at_const(session, session->output_offset); }

void tf_session_prepare(const tf_model *model, tf_session *session) {
    const tf_kernels *kernels = model->kernels;
    for (int32_t i = 0; i < model->count; i++) {
        const plan *p = &model->layers[i];
        if (p->kind == TF_LAYER_LSTM)
            kernels->gemv_f32(p->r, at(session, p->out), p->bias, at(session, p->pre), p->blocks * 64, p->output);
    }
    session->prepared = 1;
}

void tf_session_finish(const tf_model *model, tf_session *session) {
    const tf_kernels *kernels = model->kernels;
    if (!session->prepared) tf_session_prepare(model, session); /* a caller who forgot pays the time, not the truth */
    for (int32_t i = 0; i < model->count; i++) {
        const plan *p = &model->layers[i];
        float *y = at(session, p->out);
        if (p->kind == TF_LAYER_LSTM) {
            kernels->lstm_finish_f32(p->w, at(session, p->in), at(session, p->pre), at(session, p->c), y, p->blocks,
                                     p->input);
            continue;
        }
        kernels->gemv_f32(p->w, at(session, p->in), p->bias, y, p->output, p->input);
        switch (p->activation) {
        case TF_ACT_RELU: kernels->relu_f32(y, y, p->output); break;
        case TF_ACT_TANH: kernels->tanh_f32(y, y, p->output); break;
        case TF_ACT_SIGMOID: kernels->sigmoid_f32(y, y, p->output); break;
        case TF_ACT_SOFTMAX: kernels->softmax_f32(y, y, p->output); break;
        default: break;
        }
    }
    session->prepared = 0;
}

tf_status tf_model_run_window(const tf_model *model, void *scratch, size_t bytes, const float *x, int32_t steps,
                              float *y) {
    tf_session *session;
    if (steps < 0 || (steps > 0 && (x == NULL || y == NULL))) return TF_ERR_ARGUMENT;
    const tf_status status = tf_session_init(model, scratch, bytes, &session);
    if (status != TF_OK) return status;
    const size_t input = (size_t)model->input, output = (size_t)model->output;
    for (int32_t t = 0; t < steps; t++, x += input, y += output) {
        memcpy(session->input, x, input * sizeof *x);
        tf_session_finish(model, session);
        memcpy(y, tf_session_output(session), output * sizeof *y);
        tf_session_prepare(model, session);
    }
    return TF_OK;
}

/* State: c and h of each LSTM without padding, then the output. What prepare holds follows from h. */
size_t tf_session_state_bytes(const tf_model *model) {
    return sizeof(state_header) + model->state_floats * sizeof(float);
}

tf_status tf_session_save(const tf_model *model, const tf_session *session, void *out, size_t bytes) {
    if (model == NULL || session == NULL || out == NULL || session->model != model) return TF_ERR_ARGUMENT;
    if (bytes < tf_session_state_bytes(model)) return TF_ERR_MEMORY;
    char *next = (char *)out + sizeof(state_header);
    for (int32_t i = 0; i <= model->count; i++) {
        const plan *p = &model->layers[i < model->count ? i : model->count - 1];
        const size_t size = (size_t)p->output * sizeof(float);
        if (i == model->count) {
            memcpy(next, tf_session_output(session), size);
        } else if (p->kind == TF_LAYER_LSTM) {
            memcpy(next, at_const(session, p->c), size);
            memcpy(next + size, at_const(session, p->out), size);
            next += 2 * size;
        }
    }
    const state_header header = {
        .magic = STATE_MAGIC,
        .version = STATE_VERSION,
        .model = model->hash,
        .checksum = mix(MIX_START, (char *)out + sizeof header, model->state_floats * sizeof(float)),
        .floats = (uint32_t)model->state_floats,
        .prepared = session->prepared ? 1u : 0u,
    };
    memcpy(out, &header, sizeof header);
    return TF_OK;
}

tf_status tf_session_load(const tf_model *model, tf_session *session, const void *in, size_t bytes) {
    state_header header;
    if (model == NULL || session == NULL || in == NULL || session->model != model) return TF_ERR_ARGUMENT;
    if (bytes != tf_session_state_bytes(model)) return TF_ERR_FORMAT;
    memcpy(&header, in, sizeof header);
    const char *next = (const char *)in + sizeof header;
    if (header.magic != STATE_MAGIC || header.version != STATE_VERSION || header.model != model->hash ||
        header.floats != model->state_floats || header.prepared > 1 ||
        header.checksum != mix(MIX_START, next, model->state_floats * sizeof(float)))
        return TF_ERR_FORMAT;
    tf_session_reset(session);
    for (int32_t i = 0; i < model->count; i++) {
        const plan *p = &model->layers[i];
        const size_t size = (size_t)p->output * sizeof(float);
        if (p->kind != TF_LAYER_LSTM) continue;
        memcpy(at(session, p->c), next, size);
        memcpy(at(session, p->out), next + size, size);
        next += 2 * size;
    }
    memcpy(at(session, session->output_offset), next, (size_t)model->output * sizeof(float));
    session->prepared = 0;
    if (header.prepared) tf_session_prepare(model, session);
    return TF_OK;
}

tf_status tf_session_time(const tf_model *model, tf_session *session, const float *x, int32_t rows, int32_t n,
                          double *finish_ns, double *prepare_ns) {
    if (model == NULL || session == NULL || x == NULL || finish_ns == NULL || prepare_ns == NULL || rows < 1 || n < 0)
        return TF_ERR_ARGUMENT;
    const double ns = tf_timer_ns_per_tick();
    const size_t input = (size_t)model->input;
    for (int32_t i = 0; i < n; i++) {
        memcpy(session->input, x + (size_t)(i % rows) * input, input * sizeof *x);
        const uint64_t t0 = tf_timer_ticks();
        tf_session_finish(model, session);
        const uint64_t t1 = tf_timer_ticks();
        tf_session_prepare(model, session);
        const uint64_t t2 = tf_timer_ticks();
        finish_ns[i] = (double)(t1 - t0) * ns;
        prepare_ns[i] = (double)(t2 - t1) * ns;
    }
    return TF_OK;
}
