/* A batch gives every session the bits of stepping it alone: every operation, format and instruction set, odd counts,
 * more sessions than the batch has room for at once, sessions at different steps and in different places of a stride,
 * some of them not prepared, and one that has read a NaN. */
#include "check.h"
#include "networks.h"

enum { MOST = 1000 };

typedef struct pair {
    tf_model *model;
    size_t in, out, bytes, saved;
    int32_t count;
    void *memory;                 /* batched, then single */
    tf_session *batched[MOST], *single[MOST];
    void *batch_memory;
    tf_batch *batch;
    char *state[2];
    unsigned seed;
} pair;

static int start(pair *p, const network *n, tf_isa isa, int32_t count, int32_t capacity) {
    tf_fault fault = {0, ""};
    memset(p, 0, sizeof *p);
    const tf_status status = tf_model_create(&n->net, isa, &p->model, &fault);
    CHECK(status == TF_OK);
    if (status != TF_OK) {
        printf("  %s: node %d: %s\n", n->name, (int)fault.node, fault.rule);
        return 0;
    }
    p->in = (size_t)tf_model_input_size(p->model);
    p->out = (size_t)tf_model_output_size(p->model);
    p->bytes = (tf_model_session_bytes(p->model) + 63) / 64 * 64;
    p->saved = tf_session_state_bytes(p->model);
    p->count = count;
    p->seed = 11u + (unsigned)count;
    p->memory = network_block_of(2 * p->bytes * (size_t)count);
    p->state[0] = malloc(2 * p->saved);
    if (p->state[0] == NULL) abort();
    p->state[1] = p->state[0] + p->saved;
    for (int32_t i = 0; i < count; i++) {
        char *at = (char *)p->memory + 2 * p->bytes * (size_t)i;
        CHECK(tf_session_init(p->model, at, p->bytes, &p->batched[i]) == TF_OK);
        CHECK(tf_session_init(p->model, at + p->bytes, p->bytes, &p->single[i]) == TF_OK);
    }
    const size_t batch_bytes = tf_batch_bytes(p->model, capacity);
    p->batch_memory = network_block_of(batch_bytes);
    CHECK(tf_batch_init(p->model, capacity, p->batch_memory, batch_bytes, &p->batch) == TF_OK);
    return 1;
}

static void stop(pair *p) {
    tf_model_free(p->model);
    free(p->memory), free(p->state[0]), free(p->batch_memory);
}

static void feed(pair *p, int32_t i) {
    float *a = tf_session_input(p->batched[i]), *b = tf_session_input(p->single[i]);
    for (size_t j = 0; j < p->in; j++) a[j] = b[j] = noise(&p->seed);
}

/* The same bits, or both NaN. */
static int same(const float *a, const float *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0 && !(a[i] != a[i] && b[i] != b[i])) return 0;
    return 1;
}

static int outputs_match(const pair *p) {
    int ok = 1;
    for (int32_t i = 0; i < p->count; i++)
        ok &= same(tf_session_output(p->batched[i]), tf_session_output(p->single[i]), p->out);
    return ok;
}

static int states_match(const pair *p) {
    int ok = 1;
    for (int32_t i = 0; i < p->count; i++) {
        ok &= tf_session_save(p->model, p->batched[i], p->state[0], p->saved) == TF_OK;
        ok &= tf_session_save(p->model, p->single[i], p->state[1], p->saved) == TF_OK;
        ok &= memcmp(p->state[0], p->state[1], p->saved) == 0;
        ok &= tf_session_steps(p->batched[i]) == tf_session_steps(p->single[i]);
    }
    return ok;
}

static void test_network(const network *n, tf_isa isa, int32_t count, int32_t capacity, int32_t steps) {
    static pair p;
    if (!start(&p, n, isa, count, capacity)) return;
    for (int32_t i = 0; i < count; i++) /* different pasts; every third one is left unprepared */
        for (int32_t t = 0; t < i % 7; t++) {
            feed(&p, i);
            tf_session_finish(p.model, p.batched[i]);
            tf_session_finish(p.model, p.single[i]);
            if (i % 3 != 0 || t < i % 7 - 1) {
                tf_session_prepare(p.model, p.batched[i]);
                tf_session_prepare(p.model, p.single[i]);
            }
        }
    int varies = 0;
    for (int32_t t = 0; t < steps; t++) {
        for (int32_t i = 0; i < count; i++) feed(&p, i);
        tf_batch_finish(p.batch, p.batched, count);
        for (int32_t i = 0; i < count; i++) tf_session_finish(p.model, p.single[i]);
        CHECK(outputs_match(&p));
        CHECK(states_match(&p));
        if (t % 4 == 3) continue; /* forgotten: the next finish does it */
        tf_batch_prepare(p.batch, p.batched, count);
        tf_batch_prepare(p.batch, p.batched, count); /* a second time does nothing */
        for (int32_t i = 0; i < count; i++) tf_session_prepare(p.model, p.single[i]);
        CHECK(states_match(&p));
        for (int32_t i = 1; i < count; i++)
            varies |= memcmp(tf_session_output(p.batched[i]), tf_session_output(p.batched[0]), p.out * 4) != 0;
    }
    CHECK(varies || count == 1);
    stop(&p);
}

static void test_nan(const network *n, tf_isa isa) {
    static pair p;
    if (!start(&p, n, isa, 9, 9)) return;
    for (int32_t t = 0; t < 5; t++) {
        for (int32_t i = 0; i < p.count; i++) feed(&p, i);
        if (t == 1) tf_session_input(p.batched[4])[0] = tf_session_input(p.single[4])[0] = NAN;
        tf_batch_finish(p.batch, p.batched, p.count);
        tf_batch_prepare(p.batch, p.batched, p.count);
        for (int32_t i = 0; i < p.count; i++) {
            tf_session_finish(p.model, p.single[i]);
            tf_session_prepare(p.model, p.single[i]);
        }
        CHECK(outputs_match(&p));
        for (int32_t i = 0; i < p.count; i++)
            if (i != 4) CHECK(isfinite(tf_session_output(p.batched[i])[0]));
    }
    stop(&p);
}

static void test_arguments(const network *n) {
    tf_model *model = NULL;
    tf_batch *batch = (tf_batch *)&model;
    CHECK(tf_model_create(&n->net, TF_ISA_SCALAR, &model, NULL) == TF_OK);
    const size_t bytes = tf_batch_bytes(model, 5);
    char *memory = network_block_of(bytes + 64);
    CHECK(bytes > 0 && tf_batch_bytes(model, 0) == 0 && tf_batch_bytes(NULL, 1) == 0);
    CHECK(tf_batch_bytes(model, INT32_MAX) == tf_batch_bytes(model, 100000));
    CHECK(tf_batch_init(model, 0, memory, bytes, &batch) == TF_ERR_ARGUMENT && batch == NULL);
    CHECK(tf_batch_init(model, 5, memory + 4, bytes, &batch) == TF_ERR_ARGUMENT && batch == NULL);
    CHECK(tf_batch_init(NULL, 5, memory, bytes, &batch) == TF_ERR_ARGUMENT);
    CHECK(tf_batch_init(model, 5, NULL, bytes, &batch) == TF_ERR_ARGUMENT);
    CHECK(tf_batch_init(model, 5, memory, bytes, NULL) == TF_ERR_ARGUMENT);
    CHECK(tf_batch_init(model, 5, memory, bytes - 1, &batch) == TF_ERR_MEMORY && batch == NULL);
    CHECK(tf_batch_init(model, 5, memory, bytes, &batch) == TF_OK && batch != NULL);
    tf_batch_finish(batch, NULL, 0);
    tf_batch_prepare(batch, NULL, 0);
    free(memory);
    tf_model_free(model);
}

int main(void) {
    static network n;
    for (int isa = 0; isa < TF_ISA_COUNT; isa++) {
        if (!tf_isa_available((tf_isa)isa)) {
            printf("test_batch: %s is not available here\n", tf_isa_name((tf_isa)isa));
            continue;
        }
        for (int32_t kind = 0; kind < NETWORK_KINDS; kind++)
            for (int32_t format = 0; format < NETWORK_FORMATS; format++) {
                network_build(&n, kind, format, 1);
                test_network(&n, (tf_isa)isa, 1, 1, 6);
                test_network(&n, (tf_isa)isa, 2, 1, 6);
                test_network(&n, (tf_isa)isa, 3, 8, 6);
                test_network(&n, (tf_isa)isa, 17, 17, 10);
                test_nan(&n, (tf_isa)isa);
                network_free(&n);
                network_build(&n, kind, format, 3); /* whole panels of weights */
                test_network(&n, (tf_isa)isa, 13, 13, 4);
                network_free(&n);
            }
        for (int32_t format = 0; format < NETWORK_FORMATS; format++) {
            network_build(&n, format == 1 ? 7 : 0, format, 1);
            test_network(&n, (tf_isa)isa, MOST, MOST, 3);
            network_free(&n);
        }
    }
    network_build(&n, 0, TF_FORMAT_F32, 1);
    test_arguments(&n);
    network_free(&n);
    return done("test_batch");
}
