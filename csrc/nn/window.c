/* The answer over the last `rows` rows from zero state, one step on the critical path.
 *
 * There are `rows` sessions, number j of which is reset after steps j, j + rows, j + 2 rows ... So at step t the
 * session t mod rows has seen exactly the rows - 1 rows before (all rows, while there are fewer), and its answer is
 * the window's: finish steps it alone. prepare then gives the same row to all others, in one batch, and resets it.
 * Each row is thus computed `rows` times in all, which prepare pays.
 *
 * The due session of the next step goes last in the batch, so that finish meets it in the near caches.
 *
 * One block, addressed by offsets from its start, so that a copy of the bytes (to 64-byte aligned memory) is a copy of
 * the window:
 *
 *     tf_window | input row | answer | sessions | one session that a load tries first | batch | pointers */
#include "plan.h"

#include <string.h>

#define WINDOW_MAGIC UINT32_C(0x57534654) /* "TFSW" */
#define WINDOW_VERSION 1u
enum { MOST_ROWS = 1 << 16, WARM_BYTES = 1 << 20 };

struct tf_window {
    const tf_model *model;
    uint64_t steps;   /* finishes since reset */
    int32_t rows;
    int32_t prepared; /* the others have seen the row of the last finish, and the due one is reset */
    size_t input_at, output_at, sessions_at, session_bytes, spare_at, batch_at, pointers_at, bytes;
};

/* What a saved window begins with; the input row, the answer and the state of each session follow. */
typedef struct window_header {
    uint32_t magic, version;
    uint64_t model, checksum; /* of all that follows the checksum */
    uint64_t steps, bytes;    /* `bytes` of the whole */
    int32_t rows, prepared;
} window_header;
enum { CHECKED_FROM = 24 };

static size_t lines(size_t bytes) { return (bytes + TF_LINE - 1) / TF_LINE * TF_LINE; }

/* Where everything is; bytes = 0 when it does not fit into memory. */
static tf_window layout(const tf_model *model, int32_t rows) {
    tf_window w = {.model = model, .rows = rows, .prepared = 1};
    const size_t each = lines(tf_model_session_bytes(model)), count = (size_t)rows + 1;
    if (each > (SIZE_MAX / 4) / count) return w;
    w.session_bytes = each;
    w.input_at = lines(sizeof w);
    w.output_at = w.input_at + lines((size_t)model->input * sizeof(float));
    w.sessions_at = w.output_at + lines((size_t)model->output * sizeof(float));
    w.spare_at = w.sessions_at + each * (size_t)rows;
    w.batch_at = w.spare_at + each;
    w.pointers_at = w.batch_at + lines(tf_batch_bytes(model, rows));
    w.bytes = w.pointers_at + lines((size_t)rows * sizeof(void *));
    return w;
}

size_t tf_window_bytes(const tf_model *model, int32_t rows) {
    return model == NULL || rows < 1 || rows > MOST_ROWS ? 0 : layout(model, rows).bytes;
}

static float *input_of(tf_window *w) { return (float *)((char *)w + w->input_at); }
static tf_session *session_of(tf_window *w, uint64_t j) {
    return (tf_session *)(void *)((char *)w + w->sessions_at + (size_t)j * w->session_bytes);
}
static tf_session *due(tf_window *w, uint64_t step) { return session_of(w, step % (uint64_t)w->rows); }

tf_status tf_window_init(const tf_model *model, int32_t rows, void *memory, size_t bytes, tf_window **out) {
    if (out != NULL) *out = NULL;
    if (model == NULL || memory == NULL || out == NULL || rows < 1 || rows > MOST_ROWS ||
        (uintptr_t)memory % TF_LINE != 0)
        return TF_ERR_ARGUMENT;
    const tf_window plan = layout(model, rows);
    if (plan.bytes == 0 || bytes < plan.bytes) return TF_ERR_MEMORY;
    tf_window *w = memory;
    *w = plan;
    tf_batch *batch;
    tf_session *session;
    tf_status status = tf_batch_init(model, rows, (char *)w + w->batch_at, w->pointers_at - w->batch_at, &batch);
    for (int32_t j = 0; status == TF_OK && j <= rows; j++)
        status = tf_session_init(model, session_of(w, (uint64_t)j), w->session_bytes, &session);
    if (status != TF_OK) return status;
    tf_window_reset(w);
    *out = w;
    return TF_OK;
}

void tf_window_reset(tf_window *w) {
    memset((char *)w + w->input_at, 0, w->sessions_at - w->input_at);
    for (int32_t j = 0; j < w->rows; j++) tf_session_reset(session_of(w, (uint64_t)j));
    w->steps = 0;
    w->prepared = 1;
}

float *tf_window_input(tf_window *w) { return input_of(w); }
const float *tf_window_output(const tf_window *w) { return (const float *)((const char *)w + w->output_at); }

void tf_window_finish(tf_window *w) {
    if (!w->prepared) tf_window_prepare(w);
    tf_session *session = due(w, w->steps);
    memcpy(tf_session_input(session), input_of(w), (size_t)w->model->input * sizeof(float));
    tf_session_finish(w->model, session);
    memcpy((char *)w + w->output_at, tf_session_output(session), (size_t)w->model->output * sizeof(float));
    w->steps++;
    w->prepared = 0;
}

/* The batch has driven the weights of finish, and of the due session what it met first, out of the near caches: fetched
 * again here, where nobody waits. */
static void warm(const tf_window *w) {
#if defined(__GNUC__)
    const tf_model *model = w->model;
    const char *session = (const char *)w + w->sessions_at + w->steps % (uint64_t)w->rows * w->session_bytes;
    if (model->finish_bytes > WARM_BYTES) return;
    for (size_t at = 0; at < model->finish_bytes; at += TF_LINE) __builtin_prefetch(model->weights + at, 0, 2);
    for (size_t at = 0; at < model->session_bytes; at += TF_LINE) __builtin_prefetch(session + at, 0, 3);
#else
    (void)w;
#endif
}

void tf_window_prepare(tf_window *w) {
    if (w->prepared) return;
    tf_session **others = (tf_session **)(void *)((char *)w + w->pointers_at);
    tf_batch *batch = (tf_batch *)(void *)((char *)w + w->batch_at);
    tf_session *last = due(w, w->steps - 1);
    /* Its own copy of the row: the window's may be overwritten already, when prepare was forgotten. */
    const float *row = tf_session_input(last);
    for (int32_t j = 1; j < w->rows; j++) { /* the next due session last */
        others[j - 1] = due(w, w->steps + (uint64_t)(w->rows - 1 - j));
        memcpy(tf_session_input(others[j - 1]), row, (size_t)w->model->input * sizeof(float));
    }
    tf_session_reset(last);
    tf_batch_finish(batch, others, w->rows - 1);
    tf_batch_prepare(batch, others, w->rows - 1);
    w->prepared = 1;
    if (w->rows > 1) warm(w);
}

size_t tf_window_state_bytes(const tf_window *w) {
    return sizeof(window_header) + ((size_t)w->model->input + (size_t)w->model->output) * sizeof(float) +
           (size_t)w->rows * tf_session_state_bytes(w->model);
}

/* Rows that session j has seen since its last reset. */
static uint64_t seen(uint64_t steps, int32_t prepared, uint64_t rows, uint64_t j) {
    const uint64_t done = prepared ? steps : steps - 1; /* steps that the others have made */
    const uint64_t resets = done > j ? (done - j - 1) / rows * rows + j + 1 : 0;
    const uint64_t age = done - resets;
    return !prepared && (steps - 1) % rows == j ? age + 1 : age;
}

/* The row of the last finish, while prepare still needs it; else nothing that matters. */
static const float *last_row(const tf_window *w) {
    if (w->prepared) return (const float *)((const char *)w + w->input_at);
    const size_t j = (size_t)((w->steps - 1) % (uint64_t)w->rows);
    return ((const tf_session *)(const void *)((const char *)w + w->sessions_at + j * w->session_bytes))->input;
}

tf_status tf_window_save(const tf_window *w, void *out, size_t bytes) {
    if (w == NULL || out == NULL) return TF_ERR_ARGUMENT;
    const size_t total = tf_window_state_bytes(w), each = tf_session_state_bytes(w->model);
    if (bytes < total) return TF_ERR_MEMORY;
    const size_t input = (size_t)w->model->input * sizeof(float), output = (size_t)w->model->output * sizeof(float);
    char *next = (char *)out + sizeof(window_header);
    memcpy(next, last_row(w), input);
    memcpy(next + input, (const char *)w + w->output_at, output);
    next += input + output;
    for (int32_t j = 0; j < w->rows; j++, next += each) {
        const char *session = (const char *)w + w->sessions_at + (size_t)j * w->session_bytes;
        const tf_status status = tf_session_save(w->model, (const tf_session *)(const void *)session, next, each);
        if (status != TF_OK) return status;
    }
    window_header header = {.magic = WINDOW_MAGIC,
                            .version = WINDOW_VERSION,
                            .model = tf_model_hash(w->model),
                            .steps = w->steps,
                            .bytes = total,
                            .rows = w->rows,
                            .prepared = w->prepared};
    memcpy(out, &header, sizeof header);
    header.checksum = tf_digest(0, (const char *)out + CHECKED_FROM, total - CHECKED_FROM);
    memcpy(out, &header, sizeof header);
    return TF_OK;
}

/* The states come from anywhere: each is tried on a session of its own first, and must have seen as many rows as its
 * place demands, so that a load changes everything or nothing. */
tf_status tf_window_load(tf_window *w, const void *in, size_t bytes) {
    window_header header;
    if (w == NULL || in == NULL) return TF_ERR_ARGUMENT;
    const size_t total = tf_window_state_bytes(w), each = tf_session_state_bytes(w->model);
    if (bytes != total) return TF_ERR_FORMAT;
    memcpy(&header, in, sizeof header);
    if (header.magic != WINDOW_MAGIC || header.version != WINDOW_VERSION || header.model != tf_model_hash(w->model) ||
        header.rows != w->rows || header.bytes != total || header.prepared < 0 || header.prepared > 1 ||
        (header.steps == 0 && header.prepared == 0) ||
        header.checksum != tf_digest(0, (const char *)in + CHECKED_FROM, total - CHECKED_FROM))
        return TF_ERR_FORMAT;
    const size_t input = (size_t)w->model->input * sizeof(float), output = (size_t)w->model->output * sizeof(float);
    const char *rows = (const char *)in + sizeof header, *states = rows + input + output;
    tf_session *spare = session_of(w, (uint64_t)w->rows);
    for (int32_t j = 0; j < w->rows; j++) {
        const tf_status status = tf_session_load(w->model, spare, states + (size_t)j * each, each);
        if (status != TF_OK) return status;
        const uint64_t rows_seen = seen(header.steps, header.prepared, (uint64_t)w->rows, (uint64_t)j);
        if (tf_session_steps(spare) != rows_seen) return TF_ERR_FORMAT;
    }
    for (int32_t j = 0; j < w->rows; j++) {
        const tf_status status =
            tf_session_load(w->model, session_of(w, (uint64_t)j), states + (size_t)j * each, each);
        if (status != TF_OK) return status;
    }
    memcpy((char *)w + w->input_at, rows, input);
    if (!header.prepared) memcpy(tf_session_input(due(w, header.steps - 1)), rows, input);
    memcpy((char *)w + w->output_at, rows + input, output);
    w->steps = header.steps;
    w->prepared = header.prepared;
    return TF_OK;
}
