/* Many sessions of one model, stepped together.
 *
 * The programs of a model (plan.h) are walked once for a chunk of sessions. An instruction that multiplies by weights
 * is one gemm over the chunk, with a pointer per session to its rows, so that a weight is fetched once for six
 * sessions or so; everything between two of them runs session by session, while its rows are in the first-level cache.
 * gemm sums like gemv and the gates are the kernel's own, so the bits are those of single steps.
 *
 * A chunk is as large as its rows fit into half of a usual second-level cache. Sessions at different places in a stride
 * (model->period > 1) do different work in one step; a chunk is cut into groups that agree.
 *
 * The gates of an LSTM read their sums from scratch memory here, so that `pre` stays as prepare left it and a session
 * looks the same, byte for byte, whoever stepped it. */
#include "exp2_f32.h"
#include "plan.h"

#include <string.h>

enum {
    MOST_CHUNK = 96,       /* a multiple of the register blocks of gemm */
    LEAST_CHUNK = 12,
    CHUNK_BYTES = 512 << 10
};

struct tf_batch {
    const tf_model *model;
    int32_t chunk;
    uint32_t sums; /* floats of scratch of each session */
    /* then tf_session *[chunk], x, base, y pointers [chunk] each, and sums [chunk][sums] on a new line */
};

/* What a batch keeps behind its head. All of it is found from the head's own address, so that a block can be copied. */
typedef struct scratch {
    tf_session **session;
    const void **x;
    const float **base;
    float **y;
    float *sums;
} scratch;

static size_t lines(size_t bytes) { return (bytes + TF_LINE - 1) / TF_LINE * TF_LINE; }

static uint32_t sums_of(const tf_model *model) {
    int32_t most = 0;
    for (int32_t i = 0; i < model->code_count[TF_FINISH]; i++) {
        const tf_code *code = &model->code[TF_FINISH][i];
        if (code->what == TF_DO_LSTM && code->rows > most) most = code->rows;
    }
    return (uint32_t)most * 64;
}

static int32_t chunk_of(const tf_model *model, int32_t capacity) {
    const size_t each = model->session_bytes + sums_of(model) * sizeof(float);
    size_t fits = CHUNK_BYTES / each / LEAST_CHUNK * LEAST_CHUNK;
    if (fits < LEAST_CHUNK) fits = LEAST_CHUNK;
    if (fits > MOST_CHUNK) fits = MOST_CHUNK;
    return (size_t)capacity < fits ? capacity : (int32_t)fits;
}

static size_t pointer_bytes(int32_t chunk) { return lines((size_t)chunk * sizeof(void *)); }

size_t tf_batch_bytes(const tf_model *model, int32_t capacity) {
    if (model == NULL || capacity < 1) return 0;
    const int32_t chunk = chunk_of(model, capacity);
    return lines(sizeof(tf_batch)) + 4 * pointer_bytes(chunk) +
           (size_t)chunk * sums_of(model) * sizeof(float);
}

tf_status tf_batch_init(const tf_model *model, int32_t capacity, void *memory, size_t bytes, tf_batch **out) {
    if (out != NULL) *out = NULL;
    if (model == NULL || memory == NULL || out == NULL || capacity < 1 || (uintptr_t)memory % TF_LINE != 0)
        return TF_ERR_ARGUMENT;
    if (bytes < tf_batch_bytes(model, capacity)) return TF_ERR_MEMORY;
    tf_batch *batch = memory;
    memset(batch, 0, sizeof *batch);
    batch->model = model;
    batch->chunk = chunk_of(model, capacity);
    batch->sums = sums_of(model);
    *out = batch;
    return TF_OK;
}

static scratch scratch_of(tf_batch *batch) {
    char *next = (char *)batch + lines(sizeof *batch);
    const size_t step = pointer_bytes(batch->chunk);
    return (scratch){.session = (tf_session **)(void *)next,
                     .x = (const void **)(void *)(next + step),
                     .base = (const float **)(void *)(next + 2 * step),
                     .y = (float **)(void *)(next + 3 * step),
                     .sums = (float *)(void *)(next + 4 * step)};
}

/* y = base + w x for n sessions whose pointers are set. */
static void multiply(const tf_kernels *kernels, const tf_code *code, const scratch *s, int32_t n, int32_t rows) {
    const float *const *x = (const float *const *)(const void *)s->x;
    const uint8_t *const *q = (const uint8_t *const *)(const void *)s->x;
    switch (code->format) {
    case TF_FORMAT_F16: kernels->gemm_f16(code->w, x, s->base, s->y, n, rows, code->k); break;
    case TF_FORMAT_BF16: kernels->gemm_bf16(code->w, x, s->base, s->y, n, rows, code->k); break;
    case TF_FORMAT_I8:
        kernels->gemm_i8(code->w, q, code->scale, tf_code_corr(code), s->base, s->y, n, rows, code->k);
        break;
    case TF_FORMAT_I8A16:
        kernels->gemm_i8a16(code->w, q, code->scale, tf_code_corr(code), s->base, s->y, n, rows, code->k);
        break;
    default: kernels->gemm_f32(code->w, x, s->base, s->y, n, rows, code->k); break;
    }
}

static void weights(const tf_batch *batch, const tf_code *code, const scratch *s, int32_t n) {
    const tf_model *model = batch->model;
    const int lstm = code->what == TF_DO_LSTM;
    for (int32_t i = 0; i < n; i++) {
        s->x[i] = tf_code_x(model, code, s->session[i]);
        s->base[i] = tf_code_base(code, s->session[i]);
        s->y[i] = lstm ? s->sums + (size_t)i * batch->sums : tf_code_y(code, s->session[i]);
    }
    multiply(model->kernels, code, s, n, lstm ? code->rows * 64 : code->rows);
    const int integer = code->format == TF_FORMAT_I8 || code->format == TF_FORMAT_I8A16;
    const int natural = lstm && tf_is_half(code->format); /* sums that lstm_finish multiplies itself (lstm_f32.h) */
    for (int32_t i = 0; i < n; i++) {
        tf_session *session = s->session[i];
        if (natural) model->kernels->scale_f32(s->y[i], s->y[i], (float)TF_LOG2E, code->rows * 64);
        if (lstm && integer)
            model->kernels->lstm_gates_i8(s->y[i], tf_at(session, code->c), tf_code_y(code, session), code->rows);
        else if (lstm)
            model->kernels->lstm_gates_f32(s->y[i], tf_at(session, code->c), tf_code_y(code, session), code->rows);
        if (code->tail != 0) tf_tail(model, session, code);
    }
}

static int shared(const tf_code *code) { return code->what == TF_DO_GEMV || code->what == TF_DO_LSTM; }

/* One program for n sessions that are at the same place in every stride; `ago`: steps since the one that is meant. */
static void walk(const tf_batch *batch, const scratch *s, tf_program program, int32_t n, uint64_t ago) {
    const tf_model *model = batch->model;
    const tf_code *code = model->code[program];
    const int32_t count = model->code_count[program];
    for (int32_t i = 0, next; i < count; i = next) {
        next = i + 1;
        if (code[i].what == TF_DO_SKIP) {
            if ((s->session[0]->steps - ago + code[i].c) % code[i].x != 0) next += code[i].rows;
        } else if (shared(&code[i])) {
            weights(batch, &code[i], s, n);
        } else {
            while (next < count && code[next].what != TF_DO_SKIP && !shared(&code[next])) next++;
            for (int32_t j = 0; j < n; j++)
                tf_run(model, s->session[j], code + i, next - i, s->session[j]->steps - ago, 0);
        }
    }
}

/* Moves the sessions of `from` [count] that are at the place of the first one to s->session and the others to the
 * front of `from`; returns how many were moved. */
static int32_t take(const scratch *s, tf_session **from, int32_t count, uint64_t period) {
    const uint64_t place = from[0]->steps % period;
    int32_t taken = 0, left = 0;
    for (int32_t i = 0; i < count; i++) {
        tf_session *session = from[i];
        if (session->steps % period == place)
            s->session[taken++] = session;
        else
            from[left++] = session;
    }
    return taken;
}

static void finish_some(tf_batch *batch, const scratch *s, int32_t n) {
    const tf_model *model = batch->model;
    if (n == 1) {
        tf_session_finish(model, s->session[0]);
        return;
    }
    for (int32_t i = 0; i < n; i++)
        if (!tf_step_begin(s->session[i])) tf_session_prepare(model, s->session[i]);
    walk(batch, s, TF_FINISH, n, 0);
    for (int32_t i = 0; i < n; i++) tf_step_end(model, s->session[i]);
}

static void prepare_some(tf_batch *batch, const scratch *s, int32_t n) {
    const tf_model *model = batch->model;
    if (n == 1) {
        tf_session_prepare(model, s->session[0]);
        return;
    }
    walk(batch, s, TF_PUSH, n, 1);
    walk(batch, s, TF_DERIVE, n, 1);
    for (int32_t i = 0; i < n; i++) tf_prepare_end(s->session[i]);
}

static void run(tf_batch *batch, tf_session *const *sessions, int32_t count, int32_t preparing) {
    const scratch s = scratch_of(batch);
    const uint64_t period = (uint64_t)batch->model->period;
    while (count > 0) {
        int32_t n = 0;
        if (period <= 1) {
            for (; n < batch->chunk && count > 0; sessions++, count--)
                if (!preparing || !tf_step_begin(*sessions)) s.session[n++] = *sessions;
            if (n > 0 && preparing) prepare_some(batch, &s, n);
            if (n > 0 && !preparing) finish_some(batch, &s, n);
            continue;
        }
        tf_session *waiting[MOST_CHUNK];
        for (; n < batch->chunk && count > 0; sessions++, count--)
            if (!preparing || !tf_step_begin(*sessions)) waiting[n++] = *sessions;
        while (n > 0) {
            const int32_t taken = take(&s, waiting, n, period);
            if (preparing)
                prepare_some(batch, &s, taken);
            else
                finish_some(batch, &s, taken);
            n -= taken;
        }
    }
}

void tf_batch_finish(tf_batch *batch, tf_session *const *sessions, int32_t count) { run(batch, sessions, count, 0); }
void tf_batch_prepare(tf_batch *batch, tf_session *const *sessions, int32_t count) { run(batch, sessions, count, 1); }
