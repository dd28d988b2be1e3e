/* Weights from the caller's arrays into their place: rows put in order, factors applied, packed for the format. */
#include "compile.h"
#include "exp2_f32.h"
#include "finite.h"
#include "gemv_i8.h"
#include "halves.h"
#include "pack.h"

#include <math.h>
#include <stdlib.h>

static int32_t up16(int32_t n) { return (n + 15) / 16 * 16; }

static tf_pick pick_row(const tf_pick_rule *rule, int32_t row) {
    return (tf_pick){row < rule->a ? row : -1, 0, 1.0};
}
tf_pick_rule tf_pick_rows(int32_t rows) { return (tf_pick_rule){.pick = pick_row, .a = rows}; }

/* Gate 2 is the tanh of either layer. 16-bit formats do without log2(e): see lstm_f32.h. */
static double gate_factor(int32_t gate, int32_t format) {
    const double unit = tf_is_half(format) ? 1.0 : TF_LOG2E;
    return gate == 2 ? 2.0 * unit : -unit;
}

static tf_pick pick_lstm(const tf_pick_rule *rule, int32_t row) {
    const int32_t unit = row / 64 * 16 + row % 16, gate = row / 16 % 4;
    return (tf_pick){unit < rule->a ? gate * rule->a + unit : -1, 0, gate_factor(gate, rule->c)};
}
tf_pick_rule tf_pick_lstm(int32_t hidden, int32_t format) {
    return (tf_pick_rule){.pick = pick_lstm, .a = hidden, .c = format};
}

static tf_pick pick_gru(const tf_pick_rule *rule, int32_t row) {
    const int32_t padded = up16(rule->a), unit = row % padded, gate = rule->b + row / padded;
    return (tf_pick){unit < rule->a ? gate * rule->a + unit : -1, 0, gate_factor(gate, rule->c)};
}
tf_pick_rule tf_pick_gru(int32_t hidden, int32_t first_gate, int32_t format) {
    return (tf_pick_rule){.pick = pick_gru, .a = hidden, .b = first_gate, .c = format};
}

static tf_pick pick_groups(const tf_pick_rule *rule, int32_t row) {
    return (tf_pick){row < rule->a ? row : -1, row / rule->b * rule->c, 1.0};
}
tf_pick_rule tf_pick_groups(int32_t rows, int32_t group_rows, int32_t group_k) {
    return (tf_pick_rule){.pick = pick_groups, .a = rows, .b = group_rows, .c = group_k};
}

/* Rounded before the factor goes in: twice the rounded weight, not the rounded double, is what a model in the format
 * says. They differ where the format has denormals. */
static float scaled_weight(float given, double factor, int32_t format) {
    if (format == TF_FORMAT_F16) given = tf_f32_from_f16(tf_f16_from_f32(given));
    if (format == TF_FORMAT_BF16) given = tf_f32_from_bf16(tf_bf16_from_f32(given));
    return (float)(factor * (double)given);
}

static void pack_floats(tf_compiler *c, const float *from, int32_t src_k, int32_t rows, int32_t k,
                        const tf_pick_rule *rule, void *to) {
    const size_t columns = (size_t)k, padded = (size_t)up16(rows), total = padded * columns;
    const int32_t format = c->nodes[c->node].format;
    float *rowwise = calloc(total, sizeof *rowwise), *packed = to;
    if (format != TF_FORMAT_F32) packed = malloc(total * sizeof *packed);
    if (rowwise == NULL || packed == NULL) {
        tf_fail(c, TF_ERR_MEMORY, "out of memory");
    } else {
        for (int32_t row = 0; row < (int32_t)padded; row++) {
            const tf_pick pick = rule->pick(rule, row);
            if (pick.row < 0) continue;
            float *out = rowwise + (size_t)row * columns + pick.column;
            const float *in = from + (size_t)pick.row * (size_t)src_k;
            for (int32_t j = 0; j < src_k; j++) {
                out[j] = scaled_weight(in[j], pick.factor, format);
                if (!isfinite(out[j]))
                    tf_fail(c, TF_ERR_NONFINITE, tf_is_half(format) ? "a weight is too large for the 16-bit format"
                                                                    : "a weight is too large for float32");
            }
        }
        tf_pack_f32(rowwise, (int32_t)padded, k, k, packed);
        if ((format == TF_FORMAT_F16 && !tf_pack_f16(packed, total, to)) ||
            (format == TF_FORMAT_BF16 && !tf_pack_bf16(packed, total, to)))
            tf_fail(c, TF_ERR_NONFINITE, "a weight is too large for the 16-bit format");
    }
    free(rowwise);
    if (format != TF_FORMAT_F32) free(packed);
}

static void pack_integers(tf_compiler *c, const int8_t *from, const float *scale, int32_t src_k, int32_t rows,
                          int32_t k, float input_scale, const tf_pick_rule *rule, int8_t *to, float *scales,
                          int32_t *corr) {
    const size_t columns = (size_t)k;
    const int32_t padded = up16(rows);
    int8_t *rowwise = calloc((size_t)padded * columns, 1);
    if (rowwise == NULL) {
        tf_fail(c, TF_ERR_MEMORY, "out of memory");
        return;
    }
    for (int32_t row = 0; row < padded; row++) {
        const tf_pick pick = rule->pick(rule, row);
        scales[row] = 0.0f;
        if (pick.row < 0) continue;
        int8_t *out = rowwise + (size_t)row * columns + pick.column;
        const int8_t *in = from + (size_t)pick.row * (size_t)src_k;
        for (int32_t j = 0; j < src_k; j++) out[j] = in[j];
        scales[row] = (float)(pick.factor * (double)scale[pick.row] * (double)input_scale);
        if (!isfinite(scales[row])) tf_fail(c, TF_ERR_NONFINITE, "scales of weights and inputs multiply to infinity");
    }
    tf_pack_i8(rowwise, padded, k, k, to);
    tf_corr_i8(to, padded, k, corr);
    free(rowwise);
}

/* Weights that came packed are finite, as those that are packed here. */
static void check_finite(tf_compiler *c, const void *weights, size_t count, int32_t format) {
    const int finite = format == TF_FORMAT_F16    ? tf_finite_16(weights, count, 0x7C00)
                       : format == TF_FORMAT_BF16 ? tf_finite_16(weights, count, 0x7F80)
                                                  : tf_finite_32(weights, count);
    if (!finite) tf_fail(c, TF_ERR_NONFINITE, "packed weights must be finite");
}

/* Weights that came packed: no correction may carry a sum beyond int32 (gemv_i8.h). */
static void check_corr(tf_compiler *c, const int32_t *corr, int32_t rows, int32_t k) {
    const int32_t most = 128 * 127 * k;
    for (int32_t i = 0; i < up16(rows); i++)
        if (corr[i] < -most || corr[i] > most) {
            tf_fail(c, TF_ERR_FORMAT, "an int8 correction is out of range");
            return;
        }
}

tf_packed tf_pack_matrix(tf_compiler *c, int area, const tf_matrix *source, int64_t first, int32_t src_k, int32_t rows,
                         int32_t k, float input_scale, const tf_pick_rule *rule) {
    const int32_t format = c->nodes[c->node].format;
    const uint64_t padded = (uint64_t)up16(rows), total = padded * (uint64_t)k;
    tf_packed packed = {NULL, NULL};
    const int pack = c->weights != NULL && source != NULL;
    if (!tf_is_integer(format)) {
        const uint64_t size = format == TF_FORMAT_F32 ? 4 : 2;
        void *to = tf_weights_reserve(c, area, total * size);
        packed.w = to;
        if (pack && to != NULL) pack_floats(c, (const float *)source->data + first * src_k, src_k, rows, k, rule, to);
        else if (to != NULL) check_finite(c, to, (size_t)total, format);
        return packed;
    }
    void *to = tf_weights_reserve(c, area, padded * (uint64_t)tf_up4(k));
    float *scales = tf_weights_reserve(c, area, padded * (sizeof(float) + sizeof(int32_t)));
    packed.w = to;
    packed.scale = scales;
    if (to == NULL || scales == NULL) return packed;
    int32_t *corr = (int32_t *)(scales + padded);
    if (pack) {
        pack_integers(c, (const int8_t *)source->data + first * src_k, source->scale + first, src_k, rows, k,
                      input_scale, rule, to, scales, corr);
    } else {
        check_finite(c, scales, (size_t)padded, TF_FORMAT_F32);
        check_corr(c, corr, rows, k);
    }
    return packed;
}

const float *tf_pack_vector(tf_compiler *c, int area, const float *source, int32_t rows, const tf_pick_rule *rule) {
    float *to = tf_weights_reserve(c, area, (uint64_t)up16(rows) * sizeof(float));
    if (to == NULL) return to;
    if (c->source == NULL) {
        check_finite(c, to, (size_t)up16(rows), TF_FORMAT_F32);
        return to;
    }
    for (int32_t row = 0; row < up16(rows); row++) {
        const tf_pick pick = rule->pick(rule, row);
        to[row] = pick.row >= 0 && source != NULL ? (float)(pick.factor * (double)source[pick.row]) : 0.0f;
        if (!isfinite(to[row])) tf_fail(c, TF_ERR_NONFINITE, "a bias is too large for float32");
    }
    return to;
}
