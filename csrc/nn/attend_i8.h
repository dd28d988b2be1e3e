/* One query over a ring of int8 keys and values, for each head: the attention of attend_f32.h with quantised products.
 *
 * store_kv_i8, once per step, writes the newest key and value into slot `slot` of the rings:
 *
 *     key    [kv_heads][slots / 16][up4(dim) / 4][16][4]     quantum of gemv_i8.h as int8, no offset
 *     corr   [kv_heads][slots]                               -128 sum of the key, int32
 *     value  [kv_heads][slots / 4][up16(value_dim)][4]       quantum, as int8
 *
 * `slots` is a multiple of 16, up4 and up16 round up to a multiple. Padding dims hold 0 once the rings were zeroed,
 * which the owner does at reset (an empty slot is zero everywhere). A NaN stores 0 and sets *nan.
 *
 * attend_i8 reads q [heads][up4(dim)], each head's query quantised by quantize_i8 (offset 128; padding bytes may hold
 * anything). Head h uses key/value head h / group.
 *
 *     score    s_j = fma(score, float(corr_j + sum_d q_d key_jd), bias_j)
 *              `score` = scale of q * scale of k * scale of scores * log2(e); bias [heads][slots] as in
 *              attend_f32.h: log2 units, TF_ATTEND_EMPTY for a slot that is empty or masked (at least one is not)
 *     weight   p_j = round(255 * 2^(s_j - max s)), an integer in [0, 255]: quantum 1/255 of the largest weight
 *     output   y = (value / sum p) * float(sum_j p_j v_j)                       `value` = scale of v
 *
 * The correction of the query's offset is made when a key is written, so it costs nothing per step. Weights are
 * divided by the sum of the quantised weights, so they sum to one exactly as they are used. Integer sums are exact
 * (|sum p v| <= 255 * 128 slots: slots <= TF_MOST_I8), the float steps are single IEEE operations, 2^z as in
 * lstm_i8.h: the same bits on every instruction set. Error against exact attention: what quantising q, k and v costs,
 * plus half a quantum of each weight.
 *
 * p is scratch of [heads][slots] floats. y is [heads][value_dim], without padding between heads; nothing beyond is
 * written. */
#ifndef TF_NN_ATTEND_I8_H
#define TF_NN_ATTEND_I8_H

#include "attend_f32.h"
#include "gemv_i8.h"

/* Bytes of the rings; corr has kv_heads * slots int32. */
static inline size_t tf_keys_i8(int32_t kv_heads, int32_t dim, int32_t slots) {
    return (size_t)kv_heads * (size_t)slots * (size_t)tf_up4(dim);
}
static inline size_t tf_values_i8(int32_t kv_heads, int32_t value_dim, int32_t slots) {
    return (size_t)kv_heads * (size_t)slots * (((size_t)value_dim + 15) / 16 * 16);
}

#endif
