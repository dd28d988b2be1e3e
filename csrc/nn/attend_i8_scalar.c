#include "attend_i8.h"
#include "exact_i8.h"

void tf_store_kv_i8_scalar(const float *k, const float *v, int8_t *keys, int32_t *corr, int8_t *values, float k_inverse,
                           float v_inverse, int32_t kv_heads, int32_t dim, int32_t value_dim, int32_t slots,
                           int32_t slot, int32_t *nan) {
    const int32_t padded = tf_up4(dim), value_padded = (value_dim + 15) / 16 * 16;
    uint8_t q[16];
    for (int32_t head = 0; head < kv_heads; head++, k += dim, v += value_dim) {
        int8_t *key = keys + (size_t)head * (size_t)slots * (size_t)padded + (size_t)(slot / 16) * 16 * (size_t)padded;
        int8_t *value = values + ((size_t)head * (size_t)slots + (size_t)(slot / 4) * 4) * (size_t)value_padded;
        int32_t sum = 0;
        for (int32_t first = 0; first < dim; first += 16) {
            tf_quantize_i8_scalar(k + first, q, k_inverse, dim - first < 16 ? dim - first : 16, nan);
            for (int32_t d = first; d < first + 16 && d < padded; d++) {
                const int32_t quantum = q[d - first] - 128;
                key[d / 4 * 64 + slot % 16 * 4 + d % 4] = (int8_t)quantum;
                sum += quantum;
            }
        }
        corr[(size_t)head * (size_t)slots + (size_t)slot] = -128 * sum;
        for (int32_t first = 0; first < value_dim; first += 16) {
            tf_quantize_i8_scalar(v + first, q, v_inverse, value_dim - first < 16 ? value_dim - first : 16, nan);
            for (int32_t d = 0; d < 16; d++) value[(first + d) * 4 + slot % 4] = (int8_t)(q[d] - 128);
        }
    }
}

/* Scores of one head into p; returns their maximum. */
static float scores(const uint8_t *q, const int8_t *key, const int32_t *corr, const float *bias, float *p, float score,
                    int32_t padded, int32_t slots) {
    float most = -INFINITY;
    for (int32_t j = 0; j < slots; j++) {
        const int8_t *own = key + (size_t)(j / 16) * 16 * (size_t)padded + j % 16 * 4;
        int32_t sum = 0;
        for (int32_t d = 0; d < padded; d++) sum += q[d] * own[d / 4 * 64 + d % 4];
        p[j] = tf_fma_exact(score, (float)(corr[j] + sum), bias[j]);
        most = p[j] > most ? p[j] : most;
    }
    return most;
}

void tf_attend_i8_scalar(const uint8_t *q, const int8_t *keys, const int32_t *corr, const int8_t *values,
                         const float *bias, float *p, float *y, float score, float value, int32_t heads, int32_t group,
                         int32_t dim, int32_t value_dim, int32_t slots) {
    const int32_t padded = tf_up4(dim), value_padded = (value_dim + 15) / 16 * 16;
    for (int32_t head = 0; head < heads; head++, q += padded, bias += slots, p += slots, y += value_dim) {
        const size_t from = (size_t)(head / group) * (size_t)slots;
        const float most = scores(q, keys + from * (size_t)padded, corr + from, bias, p, score, padded, slots);
        uint8_t *weight = (uint8_t *)p; /* slot j's byte lies before score j + 1, so it overwrites only what was read */
        uint32_t total = 0; /* a NaN among the scores may make it wrap, and y NaN or any number */
        for (int32_t j = 0; j < slots; j++) {
            const tf_exp2_exact e = tf_exp2_of(tf_clamp_f32(p[j] - most, -TF_EXP2_LIMIT, 0.0f));
            const int32_t quantum = tf_round_exact(e.s * 255.0f * e.p);
            weight[j] = (uint8_t)quantum;
            total += (uint32_t)quantum;
        }
        const float scale = value / (float)(int32_t)total;
        const int8_t *own = values + from * (size_t)value_padded;
        for (int32_t d = 0; d < value_dim; d++) {
            int32_t sum = 0;
            for (int32_t j = 0; j < slots; j++)
                sum += weight[j] * own[(size_t)(j / 4 * 4) * (size_t)value_padded + (size_t)(d * 4 + j % 4)];
            y[d] = scale * (float)sum;
        }
    }
}
