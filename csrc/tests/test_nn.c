/* Models and sessions: refusals, exact copies and saved states, and a hot path that allocates nothing. */
#include "check.h"

#include "tengri/nn.h"

#include <math.h>
#include <stdatomic.h>
#include <stdint.h>

/* The linker sends the library's allocation calls here (-Wl,--wrap), so the test counts instead of believing. */
static atomic_long allocations;
void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
void *__real_aligned_alloc(size_t, size_t);
void __real_free(void *);
void *__wrap_malloc(size_t n) { return atomic_fetch_add(&allocations, 1), __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t m) { return atomic_fetch_add(&allocations, 1), __real_calloc(n, m); }
void *__wrap_realloc(void *p, size_t n) { return atomic_fetch_add(&allocations, 1), __real_realloc(p, n); }
void *__wrap_aligned_alloc(size_t a, size_t n) { return atomic_fetch_add(&allocations, 1), __real_aligned_alloc(a, n); }
void __wrap_free(void *p) { atomic_fetch_add(&allocations, p != NULL), __real_free(p); }

enum { INPUT = 5, HIDDEN = 21, OUTPUT = 3, STEPS = 60 };
static float w0[4 * HIDDEN * INPUT], r0[4 * HIDDEN * HIDDEN], b0[4 * HIDDEN];
static float w1[4 * HIDDEN * HIDDEN], r1[4 * HIDDEN * HIDDEN], b1[4 * HIDDEN];
static float w2[OUTPUT * HIDDEN], b2[OUTPUT], x[STEPS * INPUT], y[STEPS * OUTPUT], y2[STEPS * OUTPUT];

static void fill(float *p, size_t n, unsigned *seed) {
    for (size_t i = 0; i < n; i++) p[i] = 0.3f * noise(seed);
}
#define FILL(array) fill(array, sizeof array / sizeof *array, &seed)

static void layers(tf_layer_desc out[3]) {
    out[0] = (tf_layer_desc){TF_LAYER_LSTM, TF_ACT_NONE, INPUT, HIDDEN, w0, r0, b0};
    out[1] = (tf_layer_desc){TF_LAYER_LSTM, TF_ACT_NONE, HIDDEN, HIDDEN, w1, r1, b1};
    out[2] = (tf_layer_desc){TF_LAYER_DENSE, TF_ACT_SOFTMAX, HIDDEN, OUTPUT, w2, NULL, b2};
}

static void *block(size_t bytes) { return aligned_alloc(64, (bytes + 63) / 64 * 64); }

static void step(const tf_model *model, tf_session *session, int t) {
    memcpy(tf_session_input(session), x + t * INPUT, INPUT * sizeof *x);
    tf_session_finish(model, session);
    tf_session_prepare(model, session);
}

static void test_refusals(void) {
    tf_layer_desc l[3];
    tf_model *model = (tf_model *)&l;
    int32_t bad = 7;
    layers(l);
    CHECK(tf_model_create(l, 0, &model, &bad) == TF_ERR_ARGUMENT && model == NULL && bad == -1);
    CHECK(tf_model_create(l, 257, &model, NULL) == TF_ERR_ARGUMENT);
    CHECK(tf_model_create(NULL, 1, &model, NULL) == TF_ERR_ARGUMENT);
    CHECK(tf_model_create(l, 3, NULL, NULL) == TF_ERR_ARGUMENT);
    CHECK(tf_model_create_for(l, 3, TF_ISA_COUNT, &model, NULL) == TF_ERR_ISA);
    l[1].input = HIDDEN + 1;
    CHECK(tf_model_create(l, 3, &model, &bad) == TF_ERR_SHAPE && bad == 1 && model == NULL);
    layers(l), l[0].output = 0;
    CHECK(tf_model_create(l, 3, &model, &bad) == TF_ERR_SHAPE && bad == 0);
    layers(l), l[0].input = INT32_MAX;
    CHECK(tf_model_create(l, 3, &model, &bad) == TF_ERR_SHAPE && bad == 0);
    layers(l), l[0].input = -1;
    CHECK(tf_model_create(l, 3, &model, &bad) == TF_ERR_SHAPE && bad == 0);
    layers(l), l[2].kind = 9;
    CHECK(tf_model_create(l, 3, &model, &bad) == TF_ERR_ARGUMENT && bad == 2);
    layers(l), l[2].activation = 5;
    CHECK(tf_model_create(l, 3, &model, &bad) == TF_ERR_ARGUMENT && bad == 2);
    layers(l), l[1].activation = TF_ACT_RELU;
    CHECK(tf_model_create(l, 3, &model, &bad) == TF_ERR_ARGUMENT && bad == 1);
    layers(l), l[1].r = NULL;
    CHECK(tf_model_create(l, 3, &model, &bad) == TF_ERR_ARGUMENT && bad == 1);
    layers(l), b1[3] = NAN;
    CHECK(tf_model_create(l, 3, &model, &bad) == TF_ERR_NONFINITE && bad == 1 && model == NULL);
    b1[3] = 0.1f, r1[0] = INFINITY;
    CHECK(tf_model_create(l, 3, &model, &bad) == TF_ERR_NONFINITE && bad == 1);
    r1[0] = 0.1f;
    tf_model_free(NULL);
}

static void test_model(tf_isa isa) {
    tf_layer_desc l[3];
    tf_model *model;
    tf_session *session, *other;
    layers(l);
    CHECK(tf_model_create_for(l, 3, isa, &model, NULL) == TF_OK);
    CHECK(tf_model_isa(model) == isa && tf_model_input_size(model) == INPUT && tf_model_output_size(model) == OUTPUT);
    const size_t bytes = tf_model_session_bytes(model), saved = tf_session_state_bytes(model);
    char *memory = block(bytes), *second = block(bytes), *state = malloc(saved), *state2 = malloc(saved);
    CHECK(tf_session_init(model, memory + 4, bytes, &session) == TF_ERR_ARGUMENT && session == NULL);
    CHECK(tf_session_init(model, memory, bytes - 1, &session) == TF_ERR_MEMORY);
    CHECK(tf_session_init(NULL, memory, bytes, &session) == TF_ERR_ARGUMENT);
    CHECK(tf_session_init(model, memory, bytes, &session) == TF_OK && (char *)session == memory);
    CHECK(tf_model_run_window(model, second, bytes, x, STEPS, y) == TF_OK);
    CHECK(tf_model_run_window(model, second, bytes - 1, x, STEPS, y) == TF_ERR_MEMORY);
    CHECK(tf_model_run_window(model, second, bytes, NULL, STEPS, y) == TF_ERR_ARGUMENT);
    CHECK(tf_model_run_window(model, second, bytes, x, -1, y) == TF_ERR_ARGUMENT);
    CHECK(tf_model_run_window(model, second, bytes, NULL, 0, NULL) == TF_OK);

    for (int t = 0; t < STEPS; t++) { /* stream = window; a memcpy, and a save and load, carry on exactly */
        if (t % 3 == 1) {
            memcpy(second, memory, bytes);
            memset(memory, 0x5A, bytes);
            char *swap = memory;
            memory = second, second = swap;
            session = (tf_session *)memory;
        } else if (t % 3 == 2) {
            CHECK(tf_session_save(model, session, state, saved) == TF_OK);
            CHECK(tf_session_init(model, second, bytes, &other) == TF_OK);
            CHECK(tf_session_load(model, other, state, saved) == TF_OK);
            CHECK(tf_session_save(model, other, state2, saved) == TF_OK && memcmp(state, state2, saved) == 0);
            char *swap = memory;
            memory = second, second = swap;
            session = other;
        }
        step(model, session, t);
        CHECK(memcmp(tf_session_output(session), y + t * OUTPUT, OUTPUT * sizeof *y) == 0);
        float sum = 0;
        for (int i = 0; i < OUTPUT; i++) sum += y[t * OUTPUT + i];
        CHECK(fabsf(sum - 1) < 1e-5f);
    }
    CHECK(tf_session_save(model, session, state, saved - 1) == TF_ERR_MEMORY);
    CHECK(tf_session_save(model, session, state, saved) == TF_OK);
    for (size_t i = 0; i < saved; i++) {
        state[i] ^= 4;
        CHECK(tf_session_load(model, session, state, saved) == TF_ERR_FORMAT);
        state[i] ^= 4;
    }
    for (size_t n = 0; n < saved; n++) CHECK(tf_session_load(model, session, state, n) == TF_ERR_FORMAT);
    CHECK(tf_session_save(model, session, state2, saved) == TF_OK && memcmp(state, state2, saved) == 0);

    tf_model *stranger;
    b2[0] += 1;
    CHECK(tf_model_create_for(l, 3, isa, &stranger, NULL) == TF_OK);
    b2[0] -= 1;
    CHECK(tf_model_hash(stranger) != tf_model_hash(model));
    CHECK(tf_session_init(stranger, second, bytes, &other) == TF_OK);
    CHECK(tf_session_load(stranger, other, state, saved) == TF_ERR_FORMAT);
    CHECK(tf_session_load(model, other, state, saved) == TF_ERR_ARGUMENT);
    tf_model_free(stranger);

    tf_session_reset(session);
    const long before = atomic_load(&allocations);
    for (int t = 0; t < 100000; t++) step(model, session, t % STEPS);
    tf_session_reset(session);
    CHECK(tf_model_run_window(model, second, bytes, x, STEPS, y2) == TF_OK);
    CHECK(tf_session_save(model, session, state, saved) == TF_OK && tf_session_load(model, session, state, saved) == TF_OK);
    CHECK(atomic_load(&allocations) == before);
    CHECK(memcmp(y, y2, sizeof y) == 0);
    free(memory), free(second), free(state), free(state2);
    tf_model_free(model);
}

int main(void) {
    unsigned seed = 42;
    FILL(w0), FILL(r0), FILL(b0), FILL(w1), FILL(r1), FILL(b1), FILL(w2), FILL(b2), FILL(x);
    const long start = atomic_load(&allocations);
    void *volatile probe = malloc(1); /* volatile: or the pair would be optimised away */
    free(probe);
    CHECK(atomic_load(&allocations) == start + 2); /* the counter does count */
    CHECK(tf_isa_select(NULL) == TF_OK);
    test_refusals();
    for (int isa = 0; isa < TF_ISA_COUNT; isa++)
        if (tf_isa_available((tf_isa)isa)) test_model((tf_isa)isa);
    return done("test_nn");
}
