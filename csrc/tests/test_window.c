/* A window's answer has the bits of a recomputation over its last rows, at every step from the first on: every
 * operation, format and instruction set, windows of 1, 2, 7 and 50 rows. Copies, saved states and resets in the middle
 * change nothing; damaged or forged states are refused and change nothing. */
#include "check.h"
#include "networks.h"

#include "nn/plan.h"

typedef struct bench {
    tf_model *model;
    size_t in, out, bytes, saved;
    int32_t rows, steps;
    float *x, *want;
    void *scratch, *memory;
    tf_window *window;
    char *state;
} bench;

static int start(bench *b, const network *n, tf_isa isa, int32_t rows, int32_t steps) {
    tf_fault fault = {0, ""};
    memset(b, 0, sizeof *b);
    const tf_status status = tf_model_create(&n->net, isa, &b->model, &fault);
    CHECK(status == TF_OK);
    if (status != TF_OK) {
        printf("  %s: node %d: %s\n", n->name, (int)fault.node, fault.rule);
        return 0;
    }
    b->in = (size_t)tf_model_input_size(b->model);
    b->out = (size_t)tf_model_output_size(b->model);
    b->rows = rows;
    b->steps = steps;
    b->bytes = tf_window_bytes(b->model, rows);
    b->memory = network_block_of(b->bytes);
    CHECK(tf_window_init(b->model, rows, b->memory, b->bytes, &b->window) == TF_OK);
    b->saved = tf_window_state_bytes(b->window);
    b->state = malloc(b->saved);
    b->x = malloc((size_t)steps * b->in * sizeof(float));
    b->want = malloc((size_t)steps * b->out * sizeof(float));
    b->scratch = network_block_of(tf_model_session_bytes(b->model));
    float *y = malloc((size_t)rows * b->out * sizeof(float));
    if (b->state == NULL || b->x == NULL || b->want == NULL || y == NULL) abort();
    unsigned seed = 5u + (unsigned)rows;
    for (size_t i = 0; i < (size_t)steps * b->in; i++) b->x[i] = noise(&seed);
    for (int32_t t = 0; t < steps; t++) { /* the oracle: all rows from zero state, again for each step */
        const int32_t seen = t + 1 < rows ? t + 1 : rows;
        CHECK(tf_model_run_window(b->model, b->scratch, tf_model_session_bytes(b->model),
                                  b->x + (size_t)(t + 1 - seen) * b->in, seen, y) == TF_OK);
        memcpy(b->want + (size_t)t * b->out, y + (size_t)(seen - 1) * b->out, b->out * sizeof(float));
    }
    free(y);
    return 1;
}

static void stop(bench *b) {
    tf_model_free(b->model);
    free(b->memory), free(b->state), free(b->x), free(b->want), free(b->scratch);
}

static int step(const bench *b, tf_window *window, int32_t t, int prepare) {
    memcpy(tf_window_input(window), b->x + (size_t)t * b->in, b->in * sizeof(float));
    tf_window_finish(window);
    const int ok = memcmp(tf_window_output(window), b->want + (size_t)t * b->out, b->out * sizeof(float)) == 0;
    if (prepare) tf_window_prepare(window);
    return ok;
}

static void test_stream(const network *n, tf_isa isa, int32_t rows, int32_t steps) {
    bench b;
    if (!start(&b, n, isa, rows, steps)) return;
    const float *const answer = tf_window_output(b.window);
    int varies = 0;
    for (int32_t t = 0; t < steps; t++) {
        CHECK(step(&b, b.window, t, t % 3 != 2)); /* now and then prepare is forgotten */
        if (t % 5 == 0) tf_window_prepare(b.window), tf_window_prepare(b.window);
        CHECK(tf_window_output(b.window) == answer);
        varies |= t > 0 && memcmp(b.want, b.want + (size_t)t * b.out, b.out * sizeof(float)) != 0;
    }
    CHECK(varies);
    tf_window_reset(b.window);
    for (int32_t t = 0; t < steps && t < rows + 2; t++) CHECK(step(&b, b.window, t, 1));
    stop(&b);
}

/* At each step, before and after prepare: a copy and a loaded state go on as the original does. */
static void test_copies(const network *n, tf_isa isa, int32_t rows, int32_t steps) {
    bench b;
    if (!start(&b, n, isa, rows, steps)) return;
    void *copied = network_block_of(b.bytes), *loaded = network_block_of(b.bytes);
    tf_window *copy = copied, *other = NULL;
    CHECK(tf_window_init(b.model, rows, loaded, b.bytes, &other) == TF_OK);
    for (int32_t t = 0; t + 1 < steps; t++) {
        CHECK(step(&b, b.window, t, 0));
        for (int prepared = 0; prepared < 2; prepared++) {
            if (prepared) tf_window_prepare(b.window);
            CHECK(tf_window_save(b.window, b.state, b.saved) == TF_OK);
            CHECK(tf_window_load(other, b.state, b.saved) == TF_OK);
            CHECK(memcmp(tf_window_output(other), tf_window_output(b.window), b.out * sizeof(float)) == 0);
            memcpy(copied, b.memory, b.bytes);
            for (int32_t u = t + 1; u < steps && u < t + 4; u++) CHECK(step(&b, other, u, 1) && step(&b, copy, u, 1));
        }
    }
    free(copied), free(loaded);
    stop(&b);
}

static void test_hostile(const network *n, tf_isa isa, int32_t rows) {
    bench b;
    if (!start(&b, n, isa, rows, rows + 5)) return;
    for (int32_t t = 0; t < rows + 2; t++) CHECK(step(&b, b.window, t, 1));
    char *bad = malloc(b.saved + 1), *now = malloc(b.saved);
    if (bad == NULL || now == NULL) abort();
    CHECK(tf_window_save(b.window, b.state, b.saved - 1) == TF_ERR_MEMORY);
    CHECK(tf_window_save(b.window, b.state, b.saved) == TF_OK);
    CHECK(tf_window_load(b.window, b.state, b.saved - 1) == TF_ERR_FORMAT);
    memcpy(bad, b.state, b.saved);
    bad[b.saved] = 0;
    CHECK(tf_window_load(b.window, bad, b.saved + 1) == TF_ERR_FORMAT);
    CHECK(tf_window_load(b.window, bad, 0) == TF_ERR_FORMAT);
    CHECK(tf_window_load(b.window, NULL, b.saved) == TF_ERR_ARGUMENT);
    CHECK(tf_window_load(NULL, bad, b.saved) == TF_ERR_ARGUMENT);
    unsigned seed = 3;
    for (size_t i = 0; i < b.saved; i += 1 + i / 64) {
        memcpy(bad, b.state, b.saved);
        bad[i] = (char)(bad[i] ^ (1 << i % 8));
        CHECK(tf_window_load(b.window, bad, b.saved) == TF_ERR_FORMAT);
        /* The same with a checksum that fits: the states inside have their own, the counters must agree with them. */
        uint64_t checksum = tf_digest(0, bad + 24, b.saved - 24);
        memcpy(bad + 16, &checksum, sizeof checksum);
        const tf_status status = tf_window_load(b.window, bad, b.saved);
        const size_t rows_at = 48, states_at = rows_at + (b.in + b.out) * sizeof(float);
        uint64_t counted;
        memcpy(&counted, bad + 24, sizeof counted);
        const int whole_turns = counted >= (uint64_t)rows && (counted - (uint64_t)rows - 2) % (uint64_t)rows == 0;
        if (i < 16 || (i >= 24 && i < rows_at && !whole_turns) || i >= states_at) CHECK(status == TF_ERR_FORMAT);
        if (status == TF_OK) CHECK(tf_window_load(b.window, b.state, b.saved) == TF_OK);
    }
    for (int round = 0; round < 50; round++) {
        for (size_t i = 0; i < b.saved; i++) bad[i] = (char)(int)(60.0f * noise(&seed));
        if (round % 2) memcpy(bad, b.state, 48);
        uint64_t checksum = tf_digest(0, bad + 24, b.saved - 24);
        memcpy(bad + 16, &checksum, sizeof checksum);
        CHECK(tf_window_load(b.window, bad, b.saved) == TF_ERR_FORMAT);
    }
    CHECK(tf_window_save(b.window, now, b.saved) == TF_OK);
    CHECK(memcmp(now, b.state, b.saved) == 0);
    for (int32_t t = rows + 2; t < rows + 5; t++) CHECK(step(&b, b.window, t, 1));

    tf_window *none = b.window;
    void *memory = network_block_of(b.bytes + 64);
    CHECK(tf_window_init(b.model, rows, (char *)memory + 4, b.bytes, &none) == TF_ERR_ARGUMENT && none == NULL);
    CHECK(tf_window_init(b.model, 0, memory, b.bytes, &none) == TF_ERR_ARGUMENT);
    CHECK(tf_window_init(b.model, rows, memory, b.bytes - 1, &none) == TF_ERR_MEMORY);
    CHECK(tf_window_init(NULL, rows, memory, b.bytes, &none) == TF_ERR_ARGUMENT);
    CHECK(tf_window_bytes(b.model, 0) == 0 && tf_window_bytes(NULL, 4) == 0 && tf_window_bytes(b.model, 70000) == 0);
    /* A window of another length, of the same model, takes no state of this one. */
    free(memory);
    memory = network_block_of(tf_window_bytes(b.model, rows + 1));
    CHECK(tf_window_init(b.model, rows + 1, memory, tf_window_bytes(b.model, rows + 1), &none) == TF_OK);
    CHECK(tf_window_load(none, b.state, b.saved) == TF_ERR_FORMAT);
    free(memory), free(bad), free(now);
    stop(&b);
}

int main(void) {
    static network n;
    for (int isa = 0; isa < TF_ISA_COUNT; isa++) {
        if (!tf_isa_available((tf_isa)isa)) {
            printf("test_window: %s is not available here\n", tf_isa_name((tf_isa)isa));
            continue;
        }
        for (int32_t kind = 0; kind < NETWORK_KINDS; kind++)
            for (int32_t format = 0; format < NETWORK_FORMATS; format++) {
                network_build(&n, kind, format, 1);
                test_stream(&n, (tf_isa)isa, 1, 5);
                test_stream(&n, (tf_isa)isa, 2, 9);
                test_stream(&n, (tf_isa)isa, 7, 24);
                if (format == kind % NETWORK_FORMATS) test_stream(&n, (tf_isa)isa, 50, 110);
                test_copies(&n, (tf_isa)isa, 3, 9);
                network_free(&n);
            }
        network_build(&n, 0, TF_FORMAT_I8, 1);
        test_hostile(&n, (tf_isa)isa, 4);
        network_free(&n);
        network_build(&n, 4, TF_FORMAT_F32, 1);
        test_hostile(&n, (tf_isa)isa, 2);
        network_free(&n);
    }
    return done("test_window");
}
