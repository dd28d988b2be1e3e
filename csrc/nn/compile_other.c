/* Attention, norms, element by element operations, concatenation, pooling, positions. */
#include "attend_f32.h"
#include "attend_i8.h"
#include "compile.h"
#include "exp2_f32.h"
#include "finite.h"

#include <math.h>
#include <string.h>

static const tf_plain *node_of(const tf_compiler *c) { return &c->nodes[c->node]; }
static uint64_t up16(int32_t n) { return ((uint64_t)n + 15) / 16 * 16; }

/* -- activations
 * ------------------------------------------------------------------------------------------------------ */

static tf_do activation_code(int32_t activation) {
    switch (activation) {
    case TF_ACT_RELU: return TF_DO_RELU;
    case TF_ACT_TANH: return TF_DO_TANH;
    case TF_ACT_SIGMOID: return TF_DO_SIGMOID;
    case TF_ACT_LEAKY_RELU: return TF_DO_LEAKY_RELU;
    case TF_ACT_GELU: return TF_DO_GELU;
    case TF_ACT_GELU_TANH: return TF_DO_GELU_TANH;
    case TF_ACT_SILU: return TF_DO_SILU;
    default: return TF_DO_SOFTMAX;
    }
}

void tf_activate(tf_compiler *c, uint32_t from, uint32_t to, int32_t n) {
    const tf_plain *node = node_of(c);
    if (node->activation == TF_ACT_NONE) {
        if (from != to) tf_emit(c, TF_FINISH, (tf_code){.what = TF_DO_COPY, .x = from, .y = to, .k = n * 4});
        return;
    }
    tf_code *last = from == to && node->activation == TF_ACT_RELU ? tf_joinable(c) : NULL;
    if (last != NULL && last->what == TF_DO_GEMV && last->y == to && last->rows == n &&
        (last->tail == 0 || last->tail == TF_TAIL_ADD || last->tail == (TF_TAIL_ADD | TF_TAIL_RELU))) {
        last->tail |= last->tail == 0 ? TF_TAIL_RELU : TF_TAIL_RELU_LATE;
        return;
    }
    tf_code code = {.what = (uint8_t)activation_code(node->activation), .x = from, .y = to, .k = n};
    if (node->activation == TF_ACT_LEAKY_RELU) code.value = node->value[7];
    if (node->activation == TF_ACT_SOFTMAX) {
        code.rows = node->size[7] > 0 ? node->size[7] : 1;
        code.k = n / code.rows;
    }
    tf_emit(c, TF_FINISH, code);
}

/* -- sums, products, concatenation
 * ------------------------------------------------------------------------------------ */

/* y = a + b where a was the last product's row and nobody else reads it: the product adds b itself. */
static int join_add(tf_compiler *c, int32_t a, int32_t b) {
    tf_code *last = tf_joinable(c);
    const tf_plain *node = node_of(c);
    if (last == NULL || a == TF_MODEL_INPUT || a == b || last->what != TF_DO_GEMV || last->node != a) return 0;
    if (last->rows != node->width || last->y != tf_row_at(c, a) || (last->tail & ~TF_TAIL_RELU) != 0) return 0;
    if (c->nodes[a].op != TF_OP_DENSE && c->nodes[a].op != TF_OP_CONV) return 0;
    if (c->place[a].uses != 1 || c->place[a].root != a) return 0;
    last->y = c->place[c->node].at;
    last->c = tf_row_at(c, b);
    last->tail |= TF_TAIL_ADD;
    last->node = (uint16_t)c->node;
    c->place[a].dead = 1;
    return 1;
}

static void finish_pair(tf_compiler *c) {
    const tf_plain *node = node_of(c);
    const uint32_t y = c->place[c->node].at;
    const int32_t a = node->input[0], b = node->input[1];
    if (node->op != TF_OP_ADD || (!join_add(c, a, b) && !join_add(c, b, a)))
        tf_emit(c, TF_FINISH, (tf_code){.what = node->op == TF_OP_ADD ? TF_DO_ADD : TF_DO_MUL, .x = tf_row_at(c, a),
                                        .base = tf_row_at(c, b), .y = y, .k = node->width});
    tf_activate(c, y, y, node->width);
}

static void finish_concat(tf_compiler *c) {
    const tf_plain *node = node_of(c);
    uint32_t y = c->place[c->node].at;
    uint32_t offset = 0;
    for (int32_t i = 0; i < node->inputs; i++) {
        const int32_t part = node->input[i], width = tf_width_of(c->nodes, part, c->input);
        const int there = part != TF_MODEL_INPUT && c->place[part].alias == c->node + 1 &&
                          c->place[part].alias_offset == offset;
        if (!there)
            tf_emit(c, TF_FINISH, (tf_code){.what = TF_DO_COPY, .x = tf_row_at(c, part), .y = y, .k = width * 4});
        y += (uint32_t)width * 4u;
        offset += (uint32_t)width * 4u;
    }
}

/* -- pooling
 * ---------------------------------------------------------------------------------------------------------- */

enum { POOLED = 0 };

static void finish_pool(tf_compiler *c) {
    const tf_plain *node = node_of(c);
    tf_node_place *place = &c->place[c->node];
    const int32_t rows = node->size[0], kind = node->size[1], width = node->width;
    const uint32_t x = tf_row_at(c, node->input[0]), y = place->at;
    if (rows > 1) {
        place->ring = tf_new_ring(c, up16(width) * 4, (uint64_t)rows - 1, place->period,
                                  kind == TF_POOL_MAX ? TF_FILL_LOWEST : TF_FILL_ZERO);
        place->state[POOLED] = tf_reserve(c, 0, up16(width) * 4);
        if (node->input[0] == TF_MODEL_INPUT)
            tf_emit(c, TF_FINISH, (tf_code){.what = TF_DO_STORE, .ring = place->ring, .x = x, .k = width * 4});
        tf_emit(c, TF_FINISH, (tf_code){.what = kind == TF_POOL_MAX ? TF_DO_MAX : TF_DO_ADD, .x = place->state[POOLED],
                                        .base = x, .y = y, .k = width});
    } else {
        tf_emit(c, TF_FINISH, (tf_code){.what = TF_DO_COPY, .x = x, .y = y, .k = width * 4});
    }
    if (kind == TF_POOL_MEAN && rows > 1)
        tf_emit(c, TF_FINISH, (tf_code){.what = TF_DO_MEAN, .x = y, .y = y, .rows = rows, .k = width,
                                        .c = node->size[2] == 1 ? (uint32_t)place->period : 0});
}

void tf_derive_pool(tf_compiler *c) {
    const tf_plain *node = node_of(c);
    const tf_node_place *place = &c->place[c->node];
    if (node->size[0] == 1) return;
    tf_when(c, TF_PUSH, (uint32_t)place->period, 0);
    if (node->input[0] != TF_MODEL_INPUT) {
        tf_keep(c, node->input[0]);
        tf_emit(c, TF_PUSH, (tf_code){.what = TF_DO_STORE, .ring = place->ring, .x = tf_row_at(c, node->input[0]),
                                      .k = node->width * 4});
    }
    tf_emit(c, TF_PUSH, (tf_code){.what = TF_DO_ADVANCE, .ring = place->ring});
    tf_when(c, TF_DERIVE, (uint32_t)place->period, 0);
    tf_emit(c, TF_DERIVE, (tf_code){.what = node->size[1] == TF_POOL_MAX ? TF_DO_POOL_MAX : TF_DO_POOL_SUM,
                                    .ring = place->ring, .y = place->state[POOLED], .k = node->width});
}

/* -- the rest of finish
 * ----------------------------------------------------------------------------------------------- */

static void finish_norm(tf_compiler *c) {
    const tf_plain *node = node_of(c);
    const tf_node_desc *source = tf_source(c);
    const tf_pick_rule rule = tf_pick_rows(node->width);
    const uint32_t y = c->place[c->node].at;
    const float *gamma = tf_pack_vector(c, TF_CRITICAL, source != NULL ? source->extra : NULL, node->width, &rule);
    const float *beta = NULL;
    if (node->has & TF_HAS_BIAS)
        beta = tf_pack_vector(c, TF_CRITICAL, source != NULL ? source->bias : NULL, node->width, &rule);
    tf_emit(c, TF_FINISH, (tf_code){.what = node->size[0] == TF_NORM_RMS ? TF_DO_RMSNORM : TF_DO_LAYERNORM, .w = gamma,
                                    .bias = beta, .x = tf_row_at(c, node->input[0]), .y = y, .k = node->width,
                                    .value = node->value[3]});
    tf_activate(c, y, y, node->width);
}

static void finish_affine(tf_compiler *c) {
    const tf_plain *node = node_of(c);
    const tf_node_desc *source = tf_source(c);
    const tf_pick_rule rule = tf_pick_rows(node->width);
    const uint32_t y = c->place[c->node].at;
    const float *factors = tf_pack_vector(c, TF_CRITICAL, source != NULL ? source->extra : NULL, node->width, &rule);
    const float *shift = tf_pack_vector(c, TF_CRITICAL, source != NULL ? source->bias : NULL, node->width, &rule);
    tf_emit(c, TF_FINISH, (tf_code){.what = TF_DO_TAP, .w = factors, .bias = shift, .x = tf_row_at(c, node->input[0]),
                                    .y = y, .k = node->width});
    tf_activate(c, y, y, node->width);
}

static void finish_position(tf_compiler *c) {
    const tf_plain *node = node_of(c);
    const tf_node_desc *source = tf_source(c);
    const uint64_t floats = (uint64_t)node->size[0] * (uint64_t)node->width;
    float *table = tf_weights_reserve(c, TF_CRITICAL, floats * sizeof(float));
    /* One row of it is read in a step. */
    c->traffic[2 * c->node + TF_CRITICAL] -= c->status == TF_OK ? (floats - (uint64_t)node->width) * sizeof(float) : 0;
    if (table != NULL && source != NULL)
        memcpy(table, source->extra, (size_t)floats * sizeof(float));
    else if (table != NULL && !tf_finite_32(table, (size_t)floats))
        tf_fail(c, TF_ERR_NONFINITE, "packed weights must be finite");
    tf_emit(c, TF_FINISH, (tf_code){.what = TF_DO_POSITION, .w = table, .x = tf_row_at(c, node->input[0]),
                                    .y = c->place[c->node].at, .rows = node->size[0], .k = node->width,
                                    .c = (uint32_t)c->place[c->node].period});
}

void tf_finish_other(tf_compiler *c) {
    const tf_plain *node = node_of(c);
    const uint32_t y = c->place[c->node].at;
    switch (node->op) {
    case TF_OP_NORM: finish_norm(c); break;
    case TF_OP_AFFINE: finish_affine(c); break;
    case TF_OP_ACTIVATION: tf_activate(c, tf_row_at(c, node->input[0]), y, node->width); break;
    case TF_OP_ADD:
    case TF_OP_MUL: finish_pair(c); break;
    case TF_OP_CONCAT: finish_concat(c); break;
    case TF_OP_SLICE: /* a view, but of the model's input, which the caller may overwrite */
        if (node->input[0] == TF_MODEL_INPUT)
            tf_emit(c, TF_FINISH, (tf_code){.what = TF_DO_COPY, .y = y, .k = node->width * 4,
                                            .x = tf_row_at(c, TF_MODEL_INPUT) + (uint32_t)node->size[0] * 4u});
        break;
    case TF_OP_POOL: finish_pool(c); break;
    default: finish_position(c); break;
    }
}

/* -- attention
 * -------------------------------------------------------------------------------------------------------- */

/* base^exponent in basic operations, which have the same bits on every machine. Those of the C library's pow depend on
 * the processor, and these numbers are weights: tf_model_hash covers them. With m in [sqrt(1/2), sqrt(2)) and
 * s = (m - 1) / (m + 1): ln m = 2 (s + s^3 / 3 + s^5 / 5 ...), |s| < 0.172, so that twelve terms are enough; then
 * Taylor's series of e^x for |x| <= ln(2) / 2. Relative error: some 2^-52 |exponent log2(base)| and a few roundings. */
static double power(double base, double exponent) {
    int twos;
    double m = frexp(base, &twos);
    if (m < 0.70710678118654752) {
        m *= 2.0;
        twos--;
    }
    const double s = (m - 1.0) / (m + 1.0);
    double series = 0.0, e = 1.0;
    for (int n = 23; n >= 1; n -= 2) series = series * (s * s) + 1.0 / n;
    const double t = exponent * (2.0 * TF_LOG2E * s * series + twos), whole = floor(t + 0.5);
    const double x = (t - whole) * 0.69314718055994531;
    for (int n = 16; n >= 1; n--) e = 1.0 + x * e / n;
    return ldexp(e, (int)whole);
}

/* Angles of an earlier attention that has the same; or -1. */
static int32_t same_angles(const tf_compiler *c, int32_t index) {
    const tf_attention *a = &c->attention[index];
    for (int32_t i = 0; i < index; i++) {
        const tf_attention *other = &c->attention[i];
        const float base = c->nodes[other->node].value[4], mine = node_of(c)->value[4];
        const int same_base = !(base < mine) && !(base > mine);
        if (other->angles != 0 && other->dim == a->dim && other->period == a->period && same_base) return i;
    }
    return -1;
}

void tf_finish_attention(tf_compiler *c) {
    const tf_plain *node = node_of(c);
    tf_node_place *place = &c->place[c->node];
    const int integer = node->format == TF_FORMAT_I8;
    tf_attention *a = &c->attention[c->attentions++];
    memset(a, 0, sizeof *a);
    a->node = c->node;
    a->heads = node->size[0];
    a->kv_heads = node->size[1];
    a->window = node->size[2];
    a->position = node->size[3];
    a->format = node->format;
    a->slots = (a->window + 15) / 16 * 16;
    a->dim = tf_width_of(c->nodes, node->input[0], c->input) / a->heads;
    a->value_dim = node->width / a->heads;
    a->period = (uint32_t)place->period;
    a->q = tf_row_at(c, node->input[0]);
    a->k = tf_row_at(c, node->input[1]);
    a->v = tf_row_at(c, node->input[2]);
    a->y = place->at;
    a->scale = (float)((double)node->value[3] * TF_LOG2E);
    const uint64_t slots = (uint64_t)a->slots, kv_heads = (uint64_t)a->kv_heads, heads = (uint64_t)a->heads;
    if (integer) {
        c->quantised = 1;
        for (int i = 0; i < 3; i++) a->inverse[i] = 1.0f / node->value[i];
        a->value = node->value[2];
        a->scale = (float)((double)node->value[3] * TF_LOG2E * (double)node->value[0] * (double)node->value[1]);
        a->keys = tf_reserve(c, 1, tf_keys_i8(a->kv_heads, a->dim, a->slots));
        a->values = tf_reserve(c, 1, tf_values_i8(a->kv_heads, a->value_dim, a->slots));
        a->corr = tf_reserve(c, 0, kv_heads * slots * sizeof(int32_t));
        a->query = tf_reserve(c, 0, heads * (uint64_t)tf_up4(a->dim) + TF_LINE);
    } else {
        a->keys = tf_reserve(c, 1, kv_heads * slots * (uint64_t)a->dim * sizeof(float));
        a->values = tf_reserve(c, 1, slots * up16(a->kv_heads * a->value_dim) * sizeof(float));
    }
    /* Scores of int8 are a->scale times an integer; infinite ones would not be NaN but any answer at all. */
    const double most = integer ? 128.0 * 128.0 * (double)a->dim : 1.0;
    if (!isfinite(a->scale) || !isfinite((float)((double)a->scale * most)))
        tf_fail(c, TF_ERR_NONFINITE, "the scale of scores is too large");
    a->bias = tf_reserve(c, 0, heads * slots * sizeof(float));
    a->p = tf_reserve(c, 0, heads * slots * sizeof(float));
    a->turned_q = tf_reserve(c, 0, up16(a->heads * a->dim) * sizeof(float));
    a->turned_k = tf_reserve(c, 0, up16(a->kv_heads * a->dim) * sizeof(float));
    place->ring = tf_new_ring(c, 0, (uint64_t)a->window, place->period, TF_FILL_ZERO);
    a->cursor = c->ring[place->ring - 1].cursor;
    tf_emit(c, TF_FINISH, (tf_code){.what = TF_DO_ATTEND, .rows = c->attentions - 1, .y = a->y, .k = node->width});
}

void tf_derive_attention(tf_compiler *c) {
    const tf_plain *node = node_of(c);
    const tf_node_desc *source = tf_source(c);
    const tf_node_place *place = &c->place[c->node];
    int32_t index = 0;
    while (c->attention[index].node != c->node) index++;
    tf_attention *a = &c->attention[index];
    tf_when(c, TF_PUSH, (uint32_t)place->period, 0);
    tf_emit(c, TF_PUSH, (tf_code){.what = TF_DO_ADVANCE, .ring = place->ring});
    tf_when(c, TF_DERIVE, (uint32_t)place->period, 0);
    if (a->position == TF_POSITION_ALIBI) {
        const tf_pick_rule rule = tf_pick_rows(a->heads);
        a->slopes = tf_pack_vector(c, TF_LATER, source != NULL ? source->extra : NULL, a->heads, &rule);
        for (int32_t head = 0; head < a->heads && a->slopes != NULL; head++)
            if (!isfinite((float)((double)a->slopes[head] * TF_LOG2E * (double)a->window)))
                tf_fail(c, TF_ERR_NONFINITE, "a slope of ALiBi is too large for the window");
    }
    if (a->position == TF_POSITION_ROPE || a->position == TF_POSITION_ROPE_INTERLEAVED) {
        const int32_t same = same_angles(c, index), pairs = a->dim / 2;
        if (same >= 0) {
            a->angles = c->attention[same].angles;
        } else {
            double *turns = tf_weights_reserve(c, TF_LATER, (uint64_t)pairs * sizeof(double));
            for (int32_t i = 0; i < pairs && turns != NULL; i++) {
                if (source != NULL) turns[i] = power((double)node->value[4], -2.0 * i / a->dim);
                if (!isfinite(turns[i])) tf_fail(c, TF_ERR_NONFINITE, "packed weights must be finite");
            }
            a->angles = tf_reserve(c, 0, (uint64_t)pairs * 2 * sizeof(float));
            tf_emit(c, TF_DERIVE, (tf_code){.what = TF_DO_ANGLES, .w = turns, .y = a->angles, .k = pairs,
                                            .c = (uint32_t)place->period});
        }
    }
    tf_emit(c, TF_DERIVE, (tf_code){.what = TF_DO_MASK, .rows = index});
}
