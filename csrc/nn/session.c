/* Sessions: their memory, the start of a stream, whole windows, saved states, and the clock of the benches. */
#define _POSIX_C_SOURCE 200809L
#include "attend_i8.h"
#include "plan.h"

#include <math.h>
#include <string.h>

#define STATE_MAGIC UINT32_C(0x53534654) /* "TFSS" */
#define STATE_VERSION 2u

_Static_assert(sizeof(tf_session) == TF_LINE, "the input row starts on a cache line");
_Static_assert(sizeof(tf_code) == TF_LINE, "an instruction is a cache line");
_Static_assert(sizeof(tf_plain) == 120, "files hold node descriptions as they are");

typedef struct state_header {
    uint32_t magic, version;
    uint64_t model, checksum; /* of all that follows */
    uint64_t steps;
    uint32_t prepared, nan;
    uint64_t bytes;
} state_header;
enum { CHECKED_FROM = 24 }; /* offset of steps */

/* Slots of rings hold what rows before the first would have left there: zero, quantised zero, or the lowest float. */
static void fill_rings(const tf_model *model, tf_session *session) {
    for (int32_t i = 0; i < model->rings; i++) {
        const tf_ring *ring = &model->ring[i];
        unsigned char *first = tf_at(session, ring->first);
        if (ring->fill == TF_FILL_I8) memset(first, 128, ring->bytes);
        if (ring->fill == TF_FILL_I8A16)
            for (uint64_t at = 0; at < ring->bytes; at += 2 * (uint64_t)ring->plane)
                memset(first + at, 128, ring->plane);
        if (ring->fill == TF_FILL_LOWEST)
            for (uint64_t at = 0; at < ring->bytes; at += sizeof(float)) *(float *)(first + at) = -INFINITY;
    }
}

/* What follows from the kept region and the number of steps: cursors, corrections of int8 keys, and all of derive. */
static void restore(const tf_model *model, tf_session *session) {
    const uint64_t done = session->prepared ? session->steps : session->steps - 1;
    for (int32_t i = 0; i < model->rings; i++) {
        const tf_ring *ring = &model->ring[i];
        const uint64_t rows = done / ring->period + (done % ring->period != 0);
        *(uint32_t *)tf_at(session, ring->cursor) = (uint32_t)(rows % ring->slots);
    }
    for (int32_t i = 0; i < model->attentions; i++) {
        const tf_attention *a = &model->attention[i];
        if (a->format != TF_FORMAT_I8) continue;
        const int32_t fours = tf_up4(a->dim) / 4;
        const int8_t *keys = tf_at(session, a->keys);
        int32_t *corr = tf_at(session, a->corr);
        for (int32_t slot = 0; slot < a->kv_heads * a->slots; slot++) {
            const int8_t *key = keys + (size_t)(slot / 16) * (size_t)fours * 64 + (size_t)(slot % 16) * 4;
            int32_t sum = 0;
            for (int32_t d = 0; d < fours; d++)
                for (int j = 0; j < 4; j++) sum += key[d * 64 + j];
            corr[slot] = -128 * sum;
        }
    }
    tf_run(model, session, model->code[TF_DERIVE], model->code_count[TF_DERIVE], done - 1, 1);
}

void tf_session_reset(tf_session *session) {
    const tf_model *model = session->model;
    memset(session->input, 0, model->session_bytes - sizeof(tf_session));
    session->steps = 0;
    session->prepared = 1;
    session->nan = 0;
    fill_rings(model, session);
    restore(model, session);
}

tf_status tf_session_init(const tf_model *model, void *memory, size_t bytes, tf_session **out) {
    if (out != NULL) *out = NULL;
    if (model == NULL || memory == NULL || out == NULL || (uintptr_t)memory % TF_LINE != 0) return TF_ERR_ARGUMENT;
    if (bytes < model->session_bytes) return TF_ERR_MEMORY;
    tf_session *session = memory;
    memset(session, 0, sizeof *session);
    session->model = model;
    session->output_at = model->output_at;
    tf_session_reset(session);
    *out = session;
    return TF_OK;
}

float *tf_session_input(tf_session *session) { return session->input; }
const float *tf_session_output(const tf_session *session) { return tf_at_const(session, session->output_at); }
uint64_t tf_session_steps(const tf_session *session) { return session->steps; }

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

/* -- saved states
 * ------------------------------------------------------------------------------------------------------ */

size_t tf_session_state_bytes(const tf_model *model) { return sizeof(state_header) + model->kept_bytes; }

tf_status tf_session_save(const tf_model *model, const tf_session *session, void *out, size_t bytes) {
    if (model == NULL || session == NULL || out == NULL || session->model != model) return TF_ERR_ARGUMENT;
    const size_t total = tf_session_state_bytes(model);
    if (bytes < total) return TF_ERR_MEMORY;
    state_header header = {.magic = STATE_MAGIC,
                           .version = STATE_VERSION,
                           .model = model->hash,
                           .steps = session->steps,
                           .prepared = session->prepared != 0,
                           .nan = session->nan != 0,
                           .bytes = model->kept_bytes};
    memcpy(out, &header, sizeof header);
    memcpy((char *)out + sizeof header, (const char *)session + model->kept_at, model->kept_bytes);
    header.checksum = tf_digest(model->hash, (char *)out + CHECKED_FROM, total - CHECKED_FROM);
    memcpy(out, &header, sizeof header);
    return TF_OK;
}

tf_status tf_session_load(const tf_model *model, tf_session *session, const void *in, size_t bytes) {
    state_header header;
    if (model == NULL || session == NULL || in == NULL || session->model != model) return TF_ERR_ARGUMENT;
    if (bytes != tf_session_state_bytes(model)) return TF_ERR_FORMAT;
    memcpy(&header, in, sizeof header);
    if (header.magic != STATE_MAGIC || header.version != STATE_VERSION || header.model != model->hash ||
        header.bytes != model->kept_bytes || header.prepared > 1 || header.nan > 1 ||
        (header.steps == 0 && !header.prepared) ||
        header.checksum != tf_digest(model->hash, (const char *)in + CHECKED_FROM, bytes - CHECKED_FROM))
        return TF_ERR_FORMAT;
    memset(session->input, 0, model->session_bytes - sizeof(tf_session));
    memcpy((char *)session + model->kept_at, (const char *)in + sizeof header, model->kept_bytes);
    session->steps = header.steps;
    session->prepared = (int32_t)header.prepared;
    session->nan = 0;
    restore(model, session);
    session->nan = (int32_t)header.nan; /* derive may have met the NaN as well: that changes nothing */
    return TF_OK;
}

/* -- timing
 * ------------------------------------------------------------------------------------------------------------ */

/* Reads through memory so that it fills the caches instead of the model. */
static uint64_t read_through(const unsigned char *memory, size_t bytes) {
    uint64_t sum = 0;
    for (size_t i = 0; i < bytes; i += TF_LINE) sum += *(const volatile unsigned char *)(memory + i);
    return sum;
}

tf_status tf_session_time(const tf_model *model, tf_session *session, const float *x, int32_t rows, int32_t n,
                          const void *evict, size_t evict_bytes, uint64_t idle_ns, double *finish_ns,
                          double *prepare_ns) {
    if (model == NULL || session == NULL || session->model != model || x == NULL || finish_ns == NULL ||
        prepare_ns == NULL || rows < 1 || n < 0)
        return TF_ERR_ARGUMENT;
    const double ns = tf_timer_ns_per_tick();
    const uint64_t idle_ticks = (uint64_t)((double)idle_ns / ns);
    const size_t input = (size_t)model->input;
    for (int32_t i = 0; i < n; i++) {
        memcpy(session->input, x + (size_t)(i % rows) * input, input * sizeof *x);
        if (evict != NULL) (void)read_through(evict, evict_bytes);
        if (idle_ns > 0)
            for (const uint64_t start = tf_timer_ticks(); tf_timer_ticks() - start < idle_ticks;) {}
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
