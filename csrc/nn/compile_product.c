/* Recurrent, dense and convolution nodes: everything around a matrix product. */
#include "compile.h"

static const tf_plain *node_of(const tf_compiler *c) { return &c->nodes[c->node]; }
static tf_node_place *place_of(const tf_compiler *c) { return &c->place[c->node]; }
static int32_t blocks_of(int32_t n) { return (n + 15) / 16; }
static uint64_t padded(int32_t n) { return (uint64_t)blocks_of(n) * 16; }
static void again(tf_compiler *c) { tf_when(c, TF_FINISH, (uint32_t)place_of(c)->period, 0); }

/* What a product reads: the row, or its int8 copy. */
static uint32_t operand(tf_compiler *c, int32_t input, int32_t width, float scale) {
    const int32_t format = node_of(c)->format;
    if (!tf_is_integer(format)) return tf_row_at(c, input);
    const int32_t copy = tf_row_bytes(c, TF_FINISH, input, width, 1, 0, format, scale);
    again(c);
    return c->bytes[copy].at;
}
static uint32_t scratch_operand(tf_compiler *c, tf_program program, uint32_t at, int32_t n, float scale) {
    const int32_t format = node_of(c)->format;
    if (!tf_is_integer(format)) return at;
    const int32_t copy = tf_scratch_bytes(c, program, at, n, format, scale);
    return c->bytes[copy].at;
}

static tf_code product(tf_packed w, uint8_t format, uint32_t x, const float *bias, uint32_t base, uint32_t y,
                       int32_t rows, int32_t k) {
    return (tf_code){.what = TF_DO_GEMV, .format = format, .w = w.w, .scale = w.scale, .bias = bias, .x = x,
                     .base = base, .y = y, .rows = rows, .k = k};
}

/* -- LSTM and GRU
 * ---------------------------------------------------------------------------------------------------- */

enum { PRE = 0, CELL = 1, INNER = 2, RESET = 3 }; /* state: z or zh before finish, c, output before p or zx, r h */

static void finish_lstm(tf_compiler *c, const tf_node_desc *source) {
    const tf_plain *node = node_of(c);
    tf_node_place *place = place_of(c);
    const int32_t hidden = node->size[0], width = tf_width_of(c->nodes, node->input[0], c->input);
    const int projected = (node->has & TF_HAS_PROJECTION) != 0;
    const tf_pick_rule rule = tf_pick_lstm(hidden, node->format);
    place->state[PRE] = tf_reserve(c, 0, padded(hidden) * 16);
    place->state[CELL] = tf_reserve(c, 1, padded(hidden) * 4);
    place->state[INNER] = projected ? tf_reserve(c, 0, padded(hidden) * 4) : place->at;
    const uint32_t x = operand(c, node->input[0], width, node->value[0]);
    const tf_packed w = tf_pack_matrix(c, TF_CRITICAL, source != NULL ? &source->w : NULL, 0, width,
                                       blocks_of(hidden) * 64, width, node->value[0], &rule);
    tf_emit(c, TF_FINISH,
            (tf_code){.what = TF_DO_LSTM, .format = (uint8_t)node->format, .w = w.w, .scale = w.scale, .x = x,
                      .base = place->state[PRE], .c = place->state[CELL], .y = place->state[INNER],
                      .rows = blocks_of(hidden), .k = width, .spare = (uint8_t)(padded(hidden) - (uint64_t)hidden)});
    if (!projected) return;
    const tf_pick_rule rows = tf_pick_rows(node->width);
    const uint32_t inner = scratch_operand(c, TF_FINISH, place->state[INNER], hidden, node->value[2]);
    const tf_packed p = tf_pack_matrix(c, TF_CRITICAL, source != NULL ? &source->p : NULL, 0, hidden, node->width,
                                       hidden, node->value[2], &rows);
    const float *zeros = tf_pack_vector(c, TF_CRITICAL, NULL, node->width, &rows);
    tf_emit(c, TF_FINISH,
            product(p, (uint8_t)node->format, inner, zeros, 0, place->at, node->width, hidden));
}

/* A part of zx or zh, as the gates expect it. */
static tf_code gru_product(tf_packed w, uint8_t format, uint32_t x, const float *bias, uint32_t y, int32_t rows,
                           int32_t k) {
    tf_code code = product(w, format, x, bias, 0, y, rows, k);
    if (tf_is_half(format)) code.tail = TF_TAIL_LOG2E;
    return code;
}

static void finish_gru(tf_compiler *c, const tf_node_desc *source) {
    const tf_plain *node = node_of(c);
    tf_node_place *place = place_of(c);
    const int32_t hidden = node->width, width = tf_width_of(c->nodes, node->input[0], c->input);
    const int32_t blocks = blocks_of(hidden);
    const uint32_t part = (uint32_t)(padded(hidden) * 4);
    const tf_pick_rule rule = tf_pick_gru(hidden, 0, node->format);
    const uint8_t format = (uint8_t)node->format;
    place->state[PRE] = tf_reserve(c, 0, (uint64_t)part * 3);
    place->state[INNER] = tf_reserve(c, 0, (uint64_t)part * 3);
    const uint32_t x = operand(c, node->input[0], width, node->value[0]);
    const tf_packed w = tf_pack_matrix(c, TF_CRITICAL, source != NULL ? &source->w : NULL, 0, width, blocks * 48, width,
                                       node->value[0], &rule);
    const float *bias = tf_pack_vector(c, TF_CRITICAL, source != NULL ? source->bias : NULL, blocks * 48, &rule);
    tf_emit(c, TF_FINISH, gru_product(w, format, x, bias, place->state[INNER], blocks * 48, width));
    if (node->size[1] == 1) {
        tf_emit(c, TF_FINISH, (tf_code){.what = TF_DO_GRU_GATES, .x = place->state[INNER], .base = place->state[PRE],
                                        .y = place->at, .rows = blocks});
        return;
    }
    /* The reset gate acts before R_n, so the product with R_n needs the new row as well. */
    const tf_pick_rule late = tf_pick_gru(hidden, 2, node->format);
    place->state[RESET] = tf_reserve(c, 0, part);
    tf_emit(c, TF_FINISH, (tf_code){.what = TF_DO_GRU_RESET, .x = place->state[INNER], .base = place->state[PRE],
                                    .c = place->at, .y = place->state[RESET], .rows = blocks});
    const uint32_t rh = scratch_operand(c, TF_FINISH, place->state[RESET], hidden, node->value[1]);
    const tf_packed r = tf_pack_matrix(c, TF_CRITICAL, source != NULL ? &source->r : NULL, 0, hidden, blocks * 16,
                                       hidden, node->value[1], &late);
    const float *rbias = tf_pack_vector(c, TF_CRITICAL, source != NULL ? source->rbias : NULL, blocks * 16, &late);
    tf_emit(c, TF_FINISH, gru_product(r, format, rh, rbias, place->state[PRE] + 2 * part, blocks * 16, hidden));
    tf_emit(c, TF_FINISH, (tf_code){.what = TF_DO_GRU_LATE, .x = place->state[INNER], .base = place->state[PRE],
                                    .y = place->at, .rows = blocks});
}

void tf_finish_recurrent(tf_compiler *c) {
    tf_keep(c, c->node);
    if (node_of(c)->op == TF_OP_LSTM)
        finish_lstm(c, tf_source(c));
    else
        finish_gru(c, tf_source(c));
}

void tf_derive_recurrent(tf_compiler *c) {
    const tf_plain *node = node_of(c);
    const tf_node_place *place = place_of(c);
    const tf_node_desc *source = tf_source(c);
    const int lstm = node->op == TF_OP_LSTM;
    const int32_t hidden = node->size[0], blocks = blocks_of(hidden);
    const int32_t rows = blocks * (lstm ? 64 : node->size[1] == 1 ? 48 : 32);
    const tf_pick_rule rule = lstm ? tf_pick_lstm(hidden, node->format) : tf_pick_gru(hidden, 0, node->format);
    tf_when(c, TF_DERIVE, (uint32_t)place->period, 0);
    uint32_t h = place->at;
    if (tf_is_integer(node->format)) {
        const int32_t copy = tf_row_bytes(c, TF_DERIVE, c->node, node->width, 1, 0, node->format, node->value[1]);
        h = c->bytes[copy].at;
    }
    const tf_packed r = tf_pack_matrix(c, TF_LATER, source != NULL ? &source->r : NULL, 0, node->width, rows,
                                       node->width, node->value[1], &rule);
    const float *given = source == NULL ? NULL : lstm ? source->bias : source->rbias;
    const float *bias = tf_pack_vector(c, TF_LATER, given, rows, &rule);
    const uint8_t format = (uint8_t)node->format;
    tf_emit(c, TF_DERIVE, lstm ? product(r, format, h, bias, 0, place->state[PRE], rows, node->width)
                               : gru_product(r, format, h, bias, place->state[PRE], rows, node->width));
}

/* -- DENSE
 * ------------------------------------------------------------------------------------------------------------ */

static void finish_dense(tf_compiler *c, const tf_node_desc *source) {
    const tf_plain *node = node_of(c);
    const int32_t width = tf_width_of(c->nodes, node->input[0], c->input);
    const tf_pick_rule rule = tf_pick_rows(node->width);
    const uint32_t x = operand(c, node->input[0], width, node->value[0]), y = place_of(c)->at;
    const tf_packed w = tf_pack_matrix(c, TF_CRITICAL, source != NULL ? &source->w : NULL, 0, width, node->width, width,
                                       node->value[0], &rule);
    const float *bias = tf_pack_vector(c, TF_CRITICAL, source != NULL ? source->bias : NULL, node->width, &rule);
    tf_emit(c, TF_FINISH, product(w, (uint8_t)node->format, x, bias, 0, y, node->width, width));
    tf_activate(c, y, y, node->width);
}

/* -- CONV
 * ------------------------------------------------------------------------------------------------------------- */

/* Bytes from one slice's operand to the next's. */
static uint32_t slice_step(const tf_compiler *c, const tf_conv *conv) {
    const int32_t format = node_of(c)->format;
    if (format == TF_FORMAT_I8A16) return (uint32_t)tf_bytes_size(conv->k, format);
    return (uint32_t)conv->x_step * (format == TF_FORMAT_I8 ? 1u : 4u);
}

/* One tap on all slices. x: of slice 0, or with a ring the distance of the slot from the cursor (slices 1 ... are then
 * in the instruction's `c`). base: scratch that z starts from, [count][up16(rows)], unless `bias` is a weight. */
static void emit_tap(tf_compiler *c, tf_program program, const tf_conv *conv, int32_t tap, uint32_t x, uint16_t ring,
                     const float *bias, uint32_t base, uint32_t y, uint32_t y_step) {
    const tf_plain *node = node_of(c);
    const tf_node_desc *source = tf_source(c);
    const int area = program == TF_FINISH ? TF_CRITICAL : TF_LATER;
    const uint32_t base_step = (uint32_t)padded(conv->rows) * 4u, x_step = slice_step(c, conv);
    const tf_pick_rule rule = conv->shared ? tf_pick_rows(conv->rows)
                                           : tf_pick_groups(conv->rows, conv->group_rows, conv->group_k);
    tf_packed w = {NULL, NULL};
    for (int32_t i = 0; i < conv->count && c->status == TF_OK; i++) {
        if (i == 0 || !conv->shared)
            w = tf_pack_matrix(c, area, source != NULL ? &source->w : NULL,
                               (int64_t)tap * conv->out_channels + (conv->shared ? 0 : (int64_t)i * conv->rows),
                               conv->group_k, conv->rows, conv->k, node->value[0], &rule);
        tf_code code = product(w, (uint8_t)node->format, x, NULL, base + (uint32_t)i * base_step,
                               y + (uint32_t)i * y_step, conv->rows, conv->k);
        if (bias != NULL) code.bias = conv->shared ? bias : bias + (size_t)i * (size_t)padded(conv->rows);
        code.ring = ring;
        if (ring != 0)
            code.c = (uint32_t)i * x_step;
        else
            code.x = x + (uint32_t)i * x_step;
        tf_emit(c, program, code);
    }
}

/* Bias in the order of the slices; without slices of their own weights it is shared by all. */
static const float *conv_bias(tf_compiler *c, int area, const tf_conv *conv) {
    const tf_node_desc *source = tf_source(c);
    const float *given = source != NULL ? source->bias : NULL;
    const tf_pick_rule rule = tf_pick_rows(conv->out_channels);
    return tf_pack_vector(c, area, given, conv->out_channels, &rule);
}

static int32_t conv_copies(const tf_plain *node, const tf_conv *conv) {
    return node->format == TF_FORMAT_I8A16 ? conv->count : 1; /* its two planes cannot be cut */
}

/* Index of the int8 copy that a convolution reads and keeps. */
static int32_t conv_bytes(tf_compiler *c, tf_program program, const tf_conv *conv, int32_t width) {
    const tf_plain *node = node_of(c);
    const int32_t copies = conv_copies(node, conv);
    const int32_t n = node->format == TF_FORMAT_I8 ? width : conv->k;
    return tf_row_bytes(c, program, node->input[0], n, copies, conv->x_step, node->format, node->value[0]);
}

static void finish_conv(tf_compiler *c) {
    const tf_plain *node = node_of(c);
    tf_node_place *place = place_of(c);
    const int32_t width = tf_width_of(c->nodes, node->input[0], c->input);
    const int32_t in_period = tf_row_period(c, node->input[0]);
    const int integer = tf_is_integer(node->format);
    tf_conv conv;
    tf_conv_shape(node, width, &conv);
    uint32_t x = tf_row_at(c, node->input[0]);
    uint64_t slot = (uint64_t)width * 4;
    uint32_t fill = TF_FILL_ZERO, plane = 0;
    if (integer) {
        const int32_t index = conv_bytes(c, TF_FINISH, &conv, width);
        x = c->bytes[index].at;
        slot = (uint64_t)c->bytes[index].each * (uint64_t)c->bytes[index].copies +
               (node->format == TF_FORMAT_I8 && conv.count > 1 ? TF_LINE : 0);
        fill = node->format == TF_FORMAT_I8 ? TF_FILL_I8 : TF_FILL_I8A16;
        plane = node->format == TF_FORMAT_I8A16 ? c->bytes[index].each / 2 : 0;
        again(c);
    }
    if (conv.taps > 1) {
        place->ring = tf_new_ring(c, (slot + TF_LINE - 1) / TF_LINE * TF_LINE,
                                  (uint64_t)(conv.taps - 1) * (uint64_t)conv.dilation, in_period, fill);
        c->ring[place->ring - 1].plane = plane;
        place->state[PRE] = tf_reserve(c, 0, (conv.depthwise ? padded(node->width)
                                                             : (uint64_t)conv.count * padded(conv.rows)) * 4);
        /* The caller may overwrite the model's input before push, so it is stored at once. */
        if (node->input[0] == TF_MODEL_INPUT && !integer) {
            tf_when(c, TF_FINISH, 1, 0);
            tf_emit(c, TF_FINISH, (tf_code){.what = TF_DO_STORE, .ring = place->ring, .x = x, .k = width * 4});
            again(c);
        }
    }
    const float *bias = conv.taps == 1 ? conv_bias(c, TF_CRITICAL, &conv) : NULL;
    const int fixed = conv.taps == 1;
    if (conv.depthwise) {
        const tf_node_desc *source = tf_source(c);
        const tf_pick_rule rule = tf_pick_rows(node->width);
        const float *w = tf_pack_vector(c, TF_CRITICAL, source != NULL ? source->w.data : NULL, node->width, &rule);
        tf_emit(c, TF_FINISH, (tf_code){.what = TF_DO_TAP, .w = w, .bias = bias, .x = x, .base = place->state[PRE],
                                        .y = place->at, .k = node->width});
    } else {
        emit_tap(c, TF_FINISH, &conv, 0, x, 0, bias, fixed ? 0 : place->state[PRE], place->at,
                 (uint32_t)conv.y_step * 4u);
    }
    tf_activate(c, place->at, place->at, node->width);
}

void tf_derive_conv(tf_compiler *c) {
    const tf_plain *node = node_of(c);
    const tf_node_place *place = place_of(c);
    const int32_t width = tf_width_of(c->nodes, node->input[0], c->input);
    const uint32_t in_period = (uint32_t)tf_row_period(c, node->input[0]);
    tf_conv conv;
    tf_conv_shape(node, width, &conv);
    if (conv.taps == 1) return;
    tf_when(c, TF_PUSH, in_period, 0);
    if (tf_is_integer(node->format)) {
        const int32_t copy = conv_bytes(c, TF_PUSH, &conv, width);
        const tf_bytes *bytes = &c->bytes[copy];
        tf_emit(c, TF_PUSH, (tf_code){.what = TF_DO_STORE, .ring = place->ring, .x = bytes->at,
                                      .k = (int32_t)(bytes->each * (uint32_t)bytes->copies)});
    } else if (node->input[0] != TF_MODEL_INPUT) {
        tf_keep(c, node->input[0]);
        tf_emit(c, TF_PUSH, (tf_code){.what = TF_DO_STORE, .ring = place->ring, .x = tf_row_at(c, node->input[0]),
                                      .k = width * 4});
    }
    tf_emit(c, TF_PUSH, (tf_code){.what = TF_DO_ADVANCE, .ring = place->ring});

    /* What the older taps add is the same until the next row is due. */
    tf_when(c, TF_DERIVE, (uint32_t)place->period, in_period);
    const float *bias = conv_bias(c, TF_LATER, &conv);
    const uint32_t pre = place->state[PRE];
    for (int32_t tap = 1; tap < conv.taps && c->status == TF_OK; tap++) {
        const uint32_t back = (uint32_t)tap * (uint32_t)conv.dilation;
        if (conv.depthwise) {
            const tf_node_desc *source = tf_source(c);
            const tf_pick_rule rule = tf_pick_rows(node->width);
            const float *given = source != NULL ? (const float *)source->w.data + (size_t)tap * (size_t)width : NULL;
            const float *w = tf_pack_vector(c, TF_LATER, given, node->width, &rule);
            tf_emit(c, TF_DERIVE, (tf_code){.what = TF_DO_TAP, .ring = place->ring, .w = w, .x = back, .base = pre,
                                            .bias = tap == 1 ? bias : NULL, .y = pre, .k = node->width});
        } else {
            emit_tap(c, TF_DERIVE, &conv, tap, back, place->ring, tap == 1 ? bias : NULL, pre, pre,
                     (uint32_t)padded(conv.rows) * 4u);
        }
    }
}

void tf_finish_product(tf_compiler *c) {
    if (node_of(c)->op == TF_OP_DENSE)
        finish_dense(c, tf_source(c));
    else
        finish_conv(c);
}
