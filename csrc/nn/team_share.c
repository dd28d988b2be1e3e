#include "exp2_f32.h"
#include "team.h"

#include <string.h>

static int32_t groups_of(const tf_code *code) {
    return code->what == TF_DO_LSTM ? 4 * code->rows : (code->rows + 15) / 16;
}

/* Bytes of packed weights of one group of 16 rows. */
static size_t group_bytes(const tf_code *code) {
    const size_t k = (size_t)code->k;
    switch (code->format) {
    case TF_FORMAT_F16:
    case TF_FORMAT_BF16: return 32 * k;
    case TF_FORMAT_I8:
    case TF_FORMAT_I8A16: return (k + 3) / 4 * 64;
    default: return 64 * k;
    }
}

/* The first group of a share: panels of 8 groups stay whole, what is left over goes with the last of them. */
static int32_t cut(int32_t groups, int32_t part, int32_t parts) {
    if (part >= parts) return groups;
    const int64_t at = ((int64_t)groups * part + 4 * parts) / (8 * parts) * 8; /* rounded to a panel */
    return at < groups ? (int32_t)at : groups;
}

/* code->tail on elements from .. to of the row y. */
static void tail(const tf_model *model, tf_session *session, const tf_code *code, int32_t from, int32_t to,
                 int32_t *nan) {
    const tf_kernels *kernels = model->kernels;
    float *y = tf_code_y(code, session) + from;
    const int32_t n = to - from;
    if (code->tail & TF_TAIL_LOG2E) kernels->scale_f32(y, y, (float)TF_LOG2E, n);
    if (code->tail & TF_TAIL_RELU) kernels->relu_f32(y, y, n);
    if (code->tail & TF_TAIL_ADD) kernels->add_f32(y, (const float *)tf_at(session, code->c) + from, y, n);
    if (code->tail & TF_TAIL_RELU_LATE) kernels->relu_f32(y, y, n);
    if (code->tail & TF_TAIL_QUANTIZE)
        kernels->quantize_i8(y, (uint8_t *)tf_at(session, code->q) + from, code->value, n, nan);
}

static void product(const tf_model *model, tf_session *session, const tf_code *code, int32_t from, int32_t to,
                    int32_t *nan) {
    const tf_kernels *kernels = model->kernels;
    const char *w = (const char *)code->w + (size_t)from * group_bytes(code);
    const void *x = tf_code_x(model, code, session);
    const float *base = tf_code_base(code, session) + (size_t)from * 16;
    const int integer = code->format == TF_FORMAT_I8 || code->format == TF_FORMAT_I8A16;
    const float *scale = integer ? code->scale + (size_t)from * 16 : NULL;
    const int32_t *corr = integer ? tf_code_corr(code) + (size_t)from * 16 : NULL;
    if (code->what == TF_DO_LSTM) {
        float *c = (float *)tf_at(session, code->c) + (size_t)from * 4;
        float *h = tf_code_y(code, session) + (size_t)from * 4;
        const int32_t blocks = (to - from) / 4;
        switch (code->format) {
        case TF_FORMAT_F16: kernels->lstm_finish_f16((const void *)w, x, base, c, h, blocks, code->k); break;
        case TF_FORMAT_BF16: kernels->lstm_finish_bf16((const void *)w, x, base, c, h, blocks, code->k); break;
        case TF_FORMAT_I8: {
            uint8_t *bytes = code->tail != 0 ? (uint8_t *)tf_at(session, code->q) + (size_t)from * 4 : NULL;
            kernels->lstm_fused_i8((const void *)w, x, scale, corr, base, c, h, bytes, code->value, nan, blocks,
                                   code->k);
            return;
        }
        case TF_FORMAT_I8A16:
            kernels->lstm_finish_i8a16((const void *)w, x, scale, corr, base, c, h, blocks, code->k);
            break;
        default: kernels->lstm_finish_f32((const void *)w, x, base, c, h, blocks, code->k); break;
        }
        tail(model, session, code, from * 4, to * 4 < tf_code_n(code) ? to * 4 : tf_code_n(code), nan);
        return;
    }
    float *y = tf_code_y(code, session) + (size_t)from * 16;
    const int32_t left = code->rows - from * 16, rows = left < (to - from) * 16 ? left : (to - from) * 16;
    switch (code->format) {
    case TF_FORMAT_F16: kernels->gemv_f16((const void *)w, x, base, y, rows, code->k); break;
    case TF_FORMAT_BF16: kernels->gemv_bf16((const void *)w, x, base, y, rows, code->k); break;
    case TF_FORMAT_I8: {
        const float *add = code->tail & TF_TAIL_ADD ? (const float *)tf_at(session, code->c) + from * 16 : NULL;
        uint8_t *bytes = code->tail & TF_TAIL_QUANTIZE ? (uint8_t *)tf_at(session, code->q) + from * 16 : NULL;
        kernels->dense_i8((const void *)w, x, scale, corr, base, add, y, bytes, code->value, nan, rows, code->k,
                          code->tail & (TF_TAIL_RELU | TF_TAIL_RELU_LATE));
        return;
    }
    case TF_FORMAT_I8A16: kernels->gemv_i8a16((const void *)w, x, scale, corr, base, y, rows, code->k); break;
    default: kernels->gemv_f32((const void *)w, x, base, y, rows, code->k); break;
    }
    tail(model, session, code, from * 16, from * 16 + rows, nan);
}

void tf_share_run(const tf_model *model, tf_session *session, const tf_code *code, int32_t part, int32_t parts,
                  int32_t *nan) {
    const int32_t groups = groups_of(code), from = cut(groups, part, parts), to = cut(groups, part + 1, parts);
    if (from < to) product(model, session, code, from, to, nan);
}

/* -- who touches what -------------------------------------------------------------------------------------------- */

typedef struct span { uint64_t from, to; } span; /* bytes of a session */
typedef struct touched {
    span read[4], write[4];
    int32_t reads, writes;
} touched;

static uint64_t line_down(uint64_t at) { return at / TF_LINE * TF_LINE; }
static uint64_t line_up(uint64_t at) { return (at + TF_LINE - 1) / TF_LINE * TF_LINE; }

static void reads(touched *t, uint64_t at, uint64_t bytes) {
    t->read[t->reads++] = (span){line_down(at), line_up(at + bytes)};
}
static void writes(touched *t, uint64_t at, uint64_t bytes) {
    t->write[t->writes++] = (span){line_down(at), line_up(at + bytes)};
}

/* Bytes of an input row of k elements, as the product of `format` reads it. */
static uint64_t row_bytes(const tf_code *code) {
    const uint64_t k = (uint64_t)code->k;
    if (code->format == TF_FORMAT_I8) return line_up(k);
    if (code->format == TF_FORMAT_I8A16) return 2 * line_up(k);
    return 4 * k;
}

static void reads_x(touched *t, const tf_model *model, const tf_code *code, uint64_t bytes) {
    if (code->ring == 0) {
        reads(t, code->x, bytes);
        return;
    }
    const tf_ring *ring = &model->ring[code->ring - 1];
    reads(t, ring->first, ring->bytes);
    reads(t, ring->cursor, sizeof(uint32_t));
}

static touched touches(const tf_model *model, const tf_code *code) {
    touched t = {.reads = 0};
    const uint64_t k = (uint64_t)code->k, rows = (uint64_t)code->rows;
    switch ((tf_do)code->what) {
    case TF_DO_GEMV:
    case TF_DO_LSTM: {
        const int lstm = code->what == TF_DO_LSTM;
        reads_x(&t, model, code, row_bytes(code));
        const uint64_t padded = (rows + 15) / 16 * 64; /* kernels fill the last vector */
        if (code->bias == NULL) reads(&t, code->base, lstm ? rows * 256 : padded);
        writes(&t, code->y, lstm ? rows * 64 : padded);
        if (lstm) writes(&t, code->c, rows * 64);
        if (!lstm && (code->tail & TF_TAIL_ADD)) reads(&t, code->c, padded);
        if (code->tail & TF_TAIL_QUANTIZE) writes(&t, code->q, lstm ? rows * 16 : padded / 4);
        break;
    }
    case TF_DO_QUANTIZE:
        reads_x(&t, model, code, k * 4);
        writes(&t, code->y, row_bytes(code));
        break;
    case TF_DO_RELU:
    case TF_DO_TANH:
    case TF_DO_SIGMOID:
    case TF_DO_LEAKY_RELU:
    case TF_DO_GELU:
    case TF_DO_GELU_TANH:
    case TF_DO_SILU:
        reads_x(&t, model, code, k * 4);
        writes(&t, code->y, k * 4);
        break;
    case TF_DO_ADD:
    case TF_DO_MUL:
    case TF_DO_MAX:
        reads_x(&t, model, code, k * 4);
        reads(&t, code->base, k * 4);
        writes(&t, code->y, k * 4);
        break;
    default:
        reads(&t, 0, UINT64_MAX / 2);
        writes(&t, 0, UINT64_MAX / 2);
        break;
    }
    return t;
}

static int meets(const span *a, int32_t na, const span *b, int32_t nb) {
    for (int32_t i = 0; i < na; i++)
        for (int32_t j = 0; j < nb; j++)
            if (a[i].from < b[j].to && b[j].from < a[i].to) return 1;
    return 0;
}

static int conflict(const touched *a, const touched *b) {
    return meets(a->write, a->writes, b->write, b->writes) || meets(a->write, a->writes, b->read, b->reads) ||
           meets(a->read, a->reads, b->write, b->writes);
}

/* -- stages ------------------------------------------------------------------------------------------------------ */

enum { MOST_OPEN = 32 };

void tf_schedule_make(const tf_model *model, tf_program program, tf_schedule *s) {
    const tf_code *code = model->code[program];
    const int32_t count = model->code_count[program];
    touched open[MOST_OPEN]; /* shared stages since the last meeting */
    int32_t opened = 0, alone = 0, behind = 0;
    s->count = 0;
    s->first = s->last = -1;
    s->bytes = 0;
    for (int32_t i = 0, step; i < count; i += step) {
        const int weights = code[i].what == TF_DO_GEMV || code[i].what == TF_DO_LSTM;
        const size_t bytes = weights ? (size_t)groups_of(&code[i]) * group_bytes(&code[i]) : 0;
        const int shared = bytes >= TF_SHARE_BYTES && s->count < TF_MOST_STAGES - 2;
        step = code[i].what == TF_DO_SKIP ? 1 + code[i].rows : 1;
        const touched t = touches(model, &code[i]);
        int meet = shared && opened == MOST_OPEN;
        for (int32_t j = 0; j < opened; j++) meet |= conflict(&t, &open[j]);
        if (meet) opened = 0;
        tf_stage *before = s->count > 0 ? &s->stage[s->count - 1] : NULL;
        if (!shared && before != NULL && !before->shared && (!meet || s->count == TF_MOST_STAGES)) {
            before->count += step;
            before->meet |= meet;
            continue;
        }
        s->stage[s->count] = (tf_stage){.first = i, .count = step, .caller = alone, .others = behind, .shared = shared,
                                        .meet = meet};
        s->count++;
        if (shared) {
            open[opened++] = t;
            behind = s->count;
            if (s->first < 0) s->first = s->count - 1;
            s->last = s->count - 1;
            s->bytes += bytes;
        } else {
            alone = s->count;
        }
    }
}
