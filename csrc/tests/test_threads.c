/* One model shared by eight threads, each with a session of its own: the answers are those of one thread, and (under
 * ThreadSanitizer, `make tsan`) no byte of the model is written while it is used. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"
#include "networks.h"

#include <pthread.h>
#include <stdatomic.h>

enum { THREADS = 8, STEPS = 60 };

typedef struct task {
    const tf_model *model;
    const float *x;
    const float *want;
    pthread_barrier_t *start;
    int32_t number;
    atomic_int *wrong;
} task;

static void *work(void *argument) {
    task *t = argument;
    const tf_model *model = t->model;
    const size_t in = (size_t)tf_model_input_size(model), out = (size_t)tf_model_output_size(model);
    const size_t bytes = tf_model_session_bytes(model), saved = tf_session_state_bytes(model);
    void *memory = network_block_of(bytes), *scratch = network_block_of(bytes), *state = malloc(saved);
    float *y = malloc(STEPS * out * sizeof *y);
    tf_session *session = NULL;
    int wrong = state == NULL || y == NULL || tf_session_init(model, memory, bytes, &session) != TF_OK;
    pthread_barrier_wait(t->start);
    for (int32_t round = 0; round < 3 && !wrong; round++) {
        tf_session_reset(session);
        for (int32_t i = 0; i < STEPS; i++) {
            memcpy(tf_session_input(session), t->x + (size_t)i * in, in * sizeof(float));
            tf_session_finish(model, session);
            wrong |= memcmp(tf_session_output(session), t->want + (size_t)i * out, out * sizeof(float)) != 0;
            if ((i + t->number) % 3 != 0) tf_session_prepare(model, session); /* else the next finish does it */
            if (i == 10 + t->number) {
                wrong |= tf_session_save(model, session, state, saved) != TF_OK;
                wrong |= tf_session_load(model, session, state, saved) != TF_OK;
            }
        }
        wrong |= tf_model_run_window(model, scratch, bytes, t->x, STEPS, y) != TF_OK;
        wrong |= memcmp(y, t->want, STEPS * out * sizeof(float)) != 0;
    }
    atomic_fetch_add(t->wrong, wrong);
    free(memory), free(scratch), free(state), free(y);
    return NULL;
}

static void test_shared_model(const network *n, tf_isa isa) {
    tf_model *model = NULL;
    tf_fault fault = {0, ""};
    const tf_status status = tf_model_create(&n->net, isa, &model, &fault);
    CHECK(status == TF_OK);
    if (status != TF_OK) {
        printf("  %s: node %d: %s\n", n->name, (int)fault.node, fault.rule);
        return;
    }
    const size_t in = (size_t)tf_model_input_size(model), out = (size_t)tf_model_output_size(model);
    float *x = malloc(STEPS * in * sizeof *x), *want = malloc(STEPS * out * sizeof *want);
    void *scratch = network_block_of(tf_model_session_bytes(model));
    unsigned seed = 5;
    for (size_t i = 0; i < STEPS * in; i++) x[i] = noise(&seed);
    CHECK(tf_model_run_window(model, scratch, tf_model_session_bytes(model), x, STEPS, want) == TF_OK);

    pthread_t thread[THREADS];
    task tasks[THREADS];
    pthread_barrier_t start;
    atomic_int wrong = 0;
    CHECK(pthread_barrier_init(&start, NULL, THREADS) == 0);
    for (int32_t i = 0; i < THREADS; i++) {
        tasks[i] = (task){model, x, want, &start, i, &wrong};
        if (pthread_create(&thread[i], NULL, work, &tasks[i]) != 0) abort();
    }
    for (int32_t i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
    CHECK(atomic_load(&wrong) == 0);
    if (atomic_load(&wrong) != 0) printf("  %s on %s\n", n->name, tf_isa_name(isa));
    pthread_barrier_destroy(&start);
    free(x), free(want), free(scratch);
    tf_model_free(model);
}

int main(void) {
    static network n;
    CHECK(tf_isa_select(NULL) == TF_OK);
    const tf_isa best = tf_isa_active();
    for (int32_t kind = 0; kind < NETWORK_KINDS; kind++)
        for (int32_t format = 0; format < NETWORK_FORMATS; format++) {
            network_build(&n, kind, format, 1);
            test_shared_model(&n, best);
            if (best != TF_ISA_SCALAR && format == TF_FORMAT_F32) test_shared_model(&n, TF_ISA_SCALAR);
            network_free(&n);
        }
    return done("test_threads");
}
