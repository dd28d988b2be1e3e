/* The instructions of plan.h, carried out on one session. */
#define _GNU_SOURCE
#include "attend_f32.h"
#include "attend_i8.h"
#include "exp2_f32.h"
#include "plan.h"

#include <math.h>
#include <string.h>

#define TF_HOT static inline __attribute__((always_inline))

/* Rows of period `period` among steps 0 ... steps - 1. */
TF_HOT uint64_t rows_in(uint64_t steps, uint32_t period) {
    return period == 1 ? steps : steps / period + (steps % period != 0);
}

/* -- tails
 * ------------------------------------------------------------------------------------------------------------ */

TF_HOT void tail(const tf_kernels *kernels, tf_session *session, const tf_code *code) {
    float *y = tf_at(session, code->y);
    const int32_t n = tf_code_n(code);
    if (code->tail & TF_TAIL_LOG2E) kernels->scale_f32(y, y, (float)TF_LOG2E, n);
    if (code->tail & TF_TAIL_RELU) kernels->relu_f32(y, y, n);
    if (code->tail & TF_TAIL_ADD) kernels->add_f32(y, tf_at(session, code->c), y, n);
    if (code->tail & TF_TAIL_RELU_LATE) kernels->relu_f32(y, y, n);
    if (code->tail & TF_TAIL_QUANTIZE) kernels->quantize_i8(y, tf_at(session, code->q), code->value, n, &session->nan);
}

void tf_tail(const tf_model *model, tf_session *session, const tf_code *code) { tail(model->kernels, session, code); }

/* -- products
 * --------------------------------------------------------------------------------------------------------- */

TF_HOT void run_gemv(const tf_model *model, const tf_kernels *kernels, tf_session *session, const tf_code *code) {
    const void *x = tf_code_x(model, code, session);
    const float *base = tf_code_base(code, session);
    float *y = tf_at(session, code->y);
    switch (code->format) {
    case TF_FORMAT_I8:
        if (code->tail == 0) {
            kernels->gemv_i8(code->w, x, code->scale, tf_code_corr(code), base, y, code->rows, code->k);
        } else {
            const int add = code->tail & TF_TAIL_ADD, bytes = code->tail & TF_TAIL_QUANTIZE;
            kernels->dense_i8(code->w, x, code->scale, tf_code_corr(code), base, add ? tf_at(session, code->c) : NULL,
                              y, bytes ? tf_at(session, code->q) : NULL, code->value, &session->nan, code->rows,
                              code->k, code->tail & (TF_TAIL_RELU | TF_TAIL_RELU_LATE));
        }
        return;
    case TF_FORMAT_I8A16:
        kernels->gemv_i8a16(code->w, x, code->scale, tf_code_corr(code), base, y, code->rows, code->k);
        break;
    case TF_FORMAT_F16: kernels->gemv_f16(code->w, x, base, y, code->rows, code->k); break;
    case TF_FORMAT_BF16: kernels->gemv_bf16(code->w, x, base, y, code->rows, code->k); break;
    default: kernels->gemv_f32(code->w, x, base, y, code->rows, code->k); break;
    }
    if (code->tail != 0) tail(kernels, session, code);
}

TF_HOT void run_lstm(const tf_kernels *kernels, tf_session *session, const tf_code *code) {
    const void *x = tf_at(session, code->x);
    const float *pre = tf_at(session, code->base);
    float *state = tf_at(session, code->c), *h = tf_at(session, code->y);
    const int32_t blocks = code->rows, k = code->k;
    switch (code->format) {
    case TF_FORMAT_I8:
        if (code->tail & TF_TAIL_QUANTIZE)
            kernels->lstm_fused_i8(code->w, x, code->scale, tf_code_corr(code), pre, state, h, tf_at(session, code->q),
                                   code->value, &session->nan, blocks, k);
        else
            kernels->lstm_finish_i8(code->w, x, code->scale, tf_code_corr(code), pre, state, h, blocks, k);
        return;
    case TF_FORMAT_I8A16:
        kernels->lstm_finish_i8a16(code->w, x, code->scale, tf_code_corr(code), pre, state, h, blocks, k);
        break;
    case TF_FORMAT_F16: kernels->lstm_finish_f16(code->w, x, pre, state, h, blocks, k); break;
    case TF_FORMAT_BF16: kernels->lstm_finish_bf16(code->w, x, pre, state, h, blocks, k); break;
    default: kernels->lstm_finish_f32(code->w, x, pre, state, h, blocks, k); break;
    }
    if (code->tail != 0) tail(kernels, session, code);
}

/* -- attention
 * -------------------------------------------------------------------------------------------------------- */

static void run_attend(const tf_model *model, tf_session *session, const tf_attention *a) {
    const tf_kernels *kernels = model->kernels;
    const int32_t cursor = (int32_t) * (const uint32_t *)tf_at_const(session, a->cursor);
    const int32_t group = a->heads / a->kv_heads, n = a->heads * a->dim;
    const float *q = tf_at(session, a->q), *k = tf_at(session, a->k), *v = tf_at(session, a->v);
    float *turned_q = tf_at(session, a->turned_q), *y = tf_at(session, a->y), *p = tf_at(session, a->p);
    const float *bias = tf_at(session, a->bias);
    if (a->angles != 0) {
        const float *angles = tf_at(session, a->angles);
        float *turned_k = tf_at(session, a->turned_k);
        const int32_t interleaved = a->position == TF_POSITION_ROPE_INTERLEAVED;
        kernels->rope_f32(q, angles, turned_q, a->heads, a->dim, interleaved);
        kernels->rope_f32(k, angles, turned_k, a->kv_heads, a->dim, interleaved);
        q = turned_q;
        k = turned_k;
    }
    if (a->format == TF_FORMAT_I8) {
        uint8_t *query = tf_at(session, a->query);
        int8_t *keys = tf_at(session, a->keys), *values = tf_at(session, a->values);
        int32_t *corr = tf_at(session, a->corr);
        kernels->store_kv_i8(k, v, keys, corr, values, a->inverse[1], a->inverse[2], a->kv_heads, a->dim, a->value_dim,
                             a->slots, cursor, &session->nan);
        if (a->dim % 4 == 0)
            kernels->quantize_i8(q, query, a->inverse[0], n, &session->nan);
        else
            for (int32_t head = 0; head < a->heads; head++) /* in order: each writes beyond its end */
                kernels->quantize_i8(q + head * a->dim, query + head * tf_up4(a->dim), a->inverse[0], a->dim,
                                     &session->nan);
        kernels->attend_i8(query, keys, corr, values, bias, p, y, a->scale, a->value, a->heads, group, a->dim,
                           a->value_dim, a->slots);
        return;
    }
    float *keys = tf_at(session, a->keys), *values = tf_at(session, a->values);
    const int32_t row = a->kv_heads * a->value_dim;
    for (int32_t head = 0; head < a->kv_heads; head++) {
        float *key = keys + ((size_t)head * (size_t)a->slots + (size_t)(cursor & ~15)) * (size_t)a->dim + (cursor & 15);
        for (int32_t d = 0; d < a->dim; d++) key[(size_t)d * 16] = k[head * a->dim + d];
    }
    memcpy(values + (size_t)cursor * (size_t)((row + 15) / 16 * 16), v, (size_t)row * sizeof(float));
    kernels->scale_f32(q, turned_q, a->scale, n);
    kernels->attend_f32(turned_q, keys, values, bias, p, y, a->heads, group, a->dim, a->value_dim, a->slots);
}

/* Which slots the next row sees. Without ALiBi only one slot changes, until the window is full. */
static void run_mask(tf_session *session, const tf_attention *a, uint64_t next, int all) {
    const uint32_t cursor = *(const uint32_t *)tf_at_const(session, a->cursor), window = (uint32_t)a->window;
    float *bias = tf_at(session, a->bias);
    if (a->position != TF_POSITION_ALIBI && !all) {
        if (next < window)
            for (int32_t head = 0; head < a->heads; head++) bias[(size_t)head * (size_t)a->slots + cursor] = 0.0f;
        return;
    }
    const uint32_t oldest = next < window ? (uint32_t)next : window - 1; /* age of the oldest row that is seen */
    for (int32_t head = 0; head < a->heads; head++, bias += a->slots) {
        const float slope = a->slopes != NULL ? (float)((double)a->slopes[head] * TF_LOG2E) : 0.0f;
        for (int32_t slot = 0; slot < a->slots; slot++) bias[slot] = TF_ATTEND_EMPTY;
        const uint32_t before = oldest < cursor ? oldest : cursor;
        for (uint32_t age = 0; age <= before; age++) bias[cursor - age] = -slope * (float)(int32_t)age;
        for (uint32_t age = before + 1; age <= oldest; age++)
            bias[cursor + window - age] = -slope * (float)(int32_t)age;
    }
}

/* cos and sin of row * turns in double precision, so that a float32 angle stays exact after a million steps. */
static void run_angles(float *y, const double *turns, int32_t pairs, uint64_t row) {
    for (int32_t i = 0; i < pairs; i++) {
        const double angle = (double)row * turns[i];
        y[2 * i] = (float)cos(angle);
        y[2 * i + 1] = (float)sin(angle);
    }
}

/* -- pooling
 * ---------------------------------------------------------------------------------------------------------- */

static void run_pool(const tf_model *model, tf_session *session, const tf_code *code) {
    const tf_ring *ring = &model->ring[code->ring - 1];
    float *y = tf_at(session, code->y);
    const size_t bytes = (size_t)code->k * sizeof(float);
    memcpy(y, tf_ring_slot(ring, session, ring->slots), bytes);
    for (uint32_t back = ring->slots - 1; back > 0; back--) {
        const float *row = tf_ring_slot(ring, session, back);
        if (code->what == TF_DO_POOL_MAX)
            model->kernels->max_f32(y, row, y, code->k);
        else
            model->kernels->add_f32(y, row, y, code->k);
    }
}

TF_HOT uint32_t least(uint64_t a, int32_t b) { return a < (uint64_t)b ? (uint32_t)a : (uint32_t)b; }

/* -- all
 * -------------------------------------------------------------------------------------------------------------- */

TF_HOT void run(const tf_model *model, tf_session *session, const tf_code *code, int32_t count, uint64_t t, int all) {
    const tf_kernels *kernels = model->kernels;
    for (const tf_code *const end = code + count; code < end; code++) {
        float *y = tf_at(session, code->y);
        const float *x = tf_at(session, code->x);
        const int32_t k = code->k;
        switch (code->what) {
        case TF_DO_SKIP:
            if (!all && (t + code->c) % code->x != 0) code += code->rows;
            break;
        case TF_DO_GEMV: run_gemv(model, kernels, session, code); break;
        case TF_DO_LSTM: run_lstm(kernels, session, code); break;
        case TF_DO_QUANTIZE:
            if (code->format == TF_FORMAT_I8)
                kernels->quantize_i8(x, (uint8_t *)y, code->value, k, &session->nan);
            else
                kernels->quantize_i8a16(x, (uint8_t *)y, code->value, k, &session->nan);
            break;
        case TF_DO_GRU_GATES: kernels->gru_gates_f32(x, tf_at(session, code->base), y, code->rows); break;
        case TF_DO_GRU_RESET:
            kernels->gru_reset_f32(x, tf_at(session, code->base), tf_at(session, code->c), y, code->rows);
            break;
        case TF_DO_GRU_LATE: kernels->gru_late_f32(x, tf_at(session, code->base), y, code->rows); break;
        case TF_DO_RELU: kernels->relu_f32(x, y, k); break;
        case TF_DO_TANH: kernels->tanh_f32(x, y, k); break;
        case TF_DO_SIGMOID: kernels->sigmoid_f32(x, y, k); break;
        case TF_DO_LEAKY_RELU: kernels->leaky_relu_f32(x, y, code->value, k); break;
        case TF_DO_GELU: kernels->gelu_f32(x, y, k); break;
        case TF_DO_GELU_TANH: kernels->gelu_tanh_f32(x, y, k); break;
        case TF_DO_SILU: kernels->silu_f32(x, y, k); break;
        case TF_DO_SOFTMAX:
            for (int32_t i = 0; i < code->rows; i++, x += k, y += k) kernels->softmax_f32(x, y, k);
            break;
        case TF_DO_ADD: kernels->add_f32(x, tf_at(session, code->base), y, k); break;
        case TF_DO_MUL: kernels->mul_f32(x, tf_at(session, code->base), y, k); break;
        case TF_DO_MAX: kernels->max_f32(x, tf_at(session, code->base), y, k); break;
        case TF_DO_TAP:
            kernels->tap_f32(code->w, tf_code_x(model, code, session), tf_code_base(code, session), y, k);
            break;
        case TF_DO_LAYERNORM: kernels->layernorm_f32(x, code->w, code->bias, y, code->value, k); break;
        case TF_DO_RMSNORM: kernels->rmsnorm_f32(x, code->w, code->bias, y, code->value, k); break;
        case TF_DO_COPY: memmove(y, x, (size_t)k); break;
        case TF_DO_STORE: memcpy(tf_ring_slot(&model->ring[code->ring - 1], session, 0), x, (size_t)k); break;
        case TF_DO_ADVANCE: {
            const tf_ring *ring = &model->ring[code->ring - 1];
            uint32_t *cursor = tf_at(session, ring->cursor);
            *cursor = *cursor + 1 < ring->slots ? *cursor + 1 : 0;
            break;
        }
        case TF_DO_POSITION: {
            const uint64_t row = code->c == 1 ? t : t / code->c;
            const float *table = (const float *)code->w + (size_t)least(row, code->rows - 1) * (size_t)k;
            kernels->add_f32(x, table, y, k);
            break;
        }
        case TF_DO_MEAN: {
            const uint64_t before = code->c == 0 ? UINT64_MAX : t / code->c;
            kernels->scale_f32(x, y, 1.0f / (float)(int32_t)(least(before, code->rows - 1) + 1), k);
            break;
        }
        case TF_DO_POOL_SUM:
        case TF_DO_POOL_MAX: run_pool(model, session, code); break;
        case TF_DO_ANGLES: run_angles(y, code->w, k, rows_in(t + 1, code->c)); break;
        case TF_DO_MASK: {
            const tf_attention *a = &model->attention[code->rows];
            run_mask(session, a, rows_in(t + 1, a->period), all);
            break;
        }
        case TF_DO_ATTEND: run_attend(model, session, &model->attention[code->rows]); break;
        default: break;
        }
    }
}

void tf_run(const tf_model *model, tf_session *session, const tf_code *code, int32_t count, uint64_t t, int all) {
    run(model, session, code, count, t, all);
}

void tf_step_end(const tf_model *model, tf_session *session) {
    session->steps++;
    session->prepared = 0;
    if (session->nan == 0) return;
    float *y = tf_at(session, model->output_at);
    for (int32_t i = 0; i < model->output; i++) y[i] = NAN;
}

/* Prepare has driven the weights of finish out of the first cache. What finish meets first is fetched again here, where
 * nobody waits for it: the fetches overlap, while finish would have to wait for each product in turn. */
static void warm(const tf_model *model) {
#if defined(__GNUC__)
    for (size_t at = 0; at < model->warm_bytes; at += TF_LINE) __builtin_prefetch(model->weights + at, 0, 3);
#else
    (void)model;
#endif
}

void tf_session_prepare(const tf_model *model, tf_session *session) {
    if (session->prepared) return; /* twice would push the same rows twice */
    const uint64_t t = session->steps - 1;
    run(model, session, model->code[TF_PUSH], model->code_count[TF_PUSH], t, 0);
    run(model, session, model->code[TF_DERIVE], model->code_count[TF_DERIVE], t, 0);
    tf_prepare_end(session);
    warm(model);
}

void tf_session_finish(const tf_model *model, tf_session *session) {
    if (!tf_step_begin(session)) tf_session_prepare(model, session); /* who forgot pays the time, not the truth */
    run(model, session, model->code[TF_FINISH], model->code_count[TF_FINISH], session->steps, 0);
    tf_step_end(model, session);
}
