/* A team gives the bits of one thread: big models of several shapes in every format, one to three helpers, awake,
 * asleep, waking; several models and sessions in turn on one team; a model with nothing to share. Under
 * ThreadSanitizer (make tsan) no access is unordered. */
#define _GNU_SOURCE
#include "check.h"
#include "networks.h"

#include "nn/team.h"

#include <sched.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STEPS = 12 };

/* What the shared networks are too small for: LSTM with a last odd block of units, GRU, dense layers with ReLU, a
 * residual sum and an int8 copy behind the product, a softmax head. */
static void build(network *n, int32_t kind, int32_t format) {
    memset(n, 0, sizeof *n);
    snprintf(n->name, sizeof n->name, "big_%d_%d", (int)kind, (int)format);
    n->net.nodes = n->node;
    n->format = format;
    n->seed = 21u + (unsigned)(16 * kind + format);
    n->net.input = 40;
    int32_t x = TF_MODEL_INPUT;
    if (kind == 0) {
        x = network_lstm(n, 200, 200, x);
        x = network_lstm(n, 256, 256, x);
        x = network_lstm(n, 216, 96, x);
        network_dense(n, 3, x, TF_ACT_SOFTMAX);
    } else if (kind == 1) {
        x = network_gru(n, 208, x, 1);
        x = network_gru(n, 176, x, 0);
        network_dense(n, 2, x, TF_ACT_TANH);
    } else if (kind == 2) {
        x = network_dense(n, 360, x, TF_ACT_RELU);
        const int32_t y = network_dense(n, 360, x, TF_ACT_RELU);
        const int32_t z = network_dense(n, 360, y, TF_ACT_NONE);
        x = network_two(n, TF_OP_ADD, x, z, TF_ACT_RELU);
        x = network_dense(n, 500, x, TF_ACT_GELU);
        x = network_norm(n, x, TF_NORM_LAYER);
        network_dense(n, 330, x, TF_ACT_SIGMOID);
    } else if (kind == 3) { /* rings and strides around big products */
        x = network_conv(n, 320, x, (int32_t[7]){2, 1, 1, 1, 1, 1, 1}, TF_ACT_RELU);
        x = network_conv(n, 320, x, (int32_t[7]){3, 2, 1, 1, 1, 1, 1}, TF_ACT_NONE);
        x = network_conv(n, 320, x, (int32_t[7]){2, 1, 2, 1, 1, 1, 1}, TF_ACT_NONE);
        network_dense(n, 320, x, TF_ACT_NONE);
    } else {
        x = network_dense(n, 320, x, TF_ACT_NONE);
        x = network_block(n, x, 4, 4, 20, TF_POSITION_ROPE, TF_NORM_LAYER);
        network_dense(n, 3, x, TF_ACT_NONE);
    }
}

typedef struct twin {
    tf_model *model;
    size_t in, out, saved;
    void *memory[2];
    tf_session *team, *alone;
    char *state[2];
    unsigned seed;
} twin;

static int start(twin *t, const network *n, tf_isa isa) {
    tf_fault fault = {0, ""};
    memset(t, 0, sizeof *t);
    const tf_status status = tf_model_create(&n->net, isa, &t->model, &fault);
    CHECK(status == TF_OK);
    if (status != TF_OK) {
        printf("  %s: node %d: %s\n", n->name, (int)fault.node, fault.rule);
        return 0;
    }
    t->in = (size_t)tf_model_input_size(t->model);
    t->out = (size_t)tf_model_output_size(t->model);
    t->saved = tf_session_state_bytes(t->model);
    t->seed = 8;
    const size_t bytes = tf_model_session_bytes(t->model);
    tf_session **const session[2] = {&t->team, &t->alone};
    for (int i = 0; i < 2; i++) {
        t->memory[i] = network_block_of(bytes);
        t->state[i] = malloc(t->saved);
        if (t->state[i] == NULL) abort();
        CHECK(tf_session_init(t->model, t->memory[i], bytes, session[i]) == TF_OK);
    }
    return 1;
}

static void stop(twin *t) {
    tf_model_free(t->model);
    for (int i = 0; i < 2; i++) free(t->memory[i]), free(t->state[i]);
}

static void step(tf_team *team, twin *t, int prepare) {
    float *a = tf_session_input(t->team), *b = tf_session_input(t->alone);
    for (size_t j = 0; j < t->in; j++) a[j] = b[j] = noise(&t->seed);
    tf_team_finish(team, t->model, t->team);
    tf_session_finish(t->model, t->alone);
    CHECK(memcmp(tf_session_output(t->team), tf_session_output(t->alone), t->out * sizeof(float)) == 0);
    if (!prepare) return;
    tf_team_prepare(team, t->model, t->team);
    tf_session_prepare(t->model, t->alone);
    CHECK(tf_session_save(t->model, t->team, t->state[0], t->saved) == TF_OK);
    CHECK(tf_session_save(t->model, t->alone, t->state[1], t->saved) == TF_OK);
    CHECK(memcmp(t->state[0], t->state[1], t->saved) == 0);
}

static void nap(long ns) { nanosleep(&(struct timespec){.tv_nsec = ns}, NULL); }

static void test_model(tf_team *team, const network *n, tf_isa isa) {
    twin t;
    if (!start(&t, n, isa)) return;
    for (int32_t i = 0; i < STEPS; i++) {
        step(team, &t, i % 4 != 3);
        if (i == STEPS / 2) nap(3000000); /* let helpers with little patience fall asleep */
    }
    float *a = tf_session_input(t.team), *b = tf_session_input(t.alone);
    for (size_t j = 0; j < t.in; j++) a[j] = b[j] = NAN;
    tf_team_finish(team, t.model, t.team);
    tf_session_finish(t.model, t.alone);
    for (size_t j = 0; j < t.out; j++) {
        const float u = tf_session_output(t.team)[j], v = tf_session_output(t.alone)[j];
        CHECK((u != u) == (v != v) && (u != u || memcmp(&u, &v, sizeof u) == 0));
    }
    tf_session_reset(t.team), tf_session_reset(t.alone);
    step(team, &t, 1);
    stop(&t);
}

/* The schedule itself: what is worth sharing is shared, small things are not, and each share is whole panels. */
static void test_schedule(void) {
    static network n;
    static tf_schedule s;
    tf_model *model = NULL;
    build(&n, 0, TF_FORMAT_F32);
    CHECK(tf_model_create(&n.net, TF_ISA_SCALAR, &model, NULL) == TF_OK);
    tf_schedule_make(model, TF_FINISH, &s);
    int32_t shared = 0, covered = 0;
    for (int32_t i = 0; i < s.count; i++) {
        shared += s.stage[i].shared;
        CHECK(s.stage[i].first == covered);
        covered += s.stage[i].count;
        CHECK(s.stage[i].caller <= i && s.stage[i].others <= i);
    }
    CHECK(shared == 3 && covered == model->code_count[TF_FINISH] && s.first >= 0 && s.last < s.count);
    tf_schedule_make(model, TF_DERIVE, &s);
    int32_t meetings = 0;
    for (int32_t i = 0; i < s.count; i++) meetings += s.stage[i].meet;
    CHECK(s.first >= 0 && meetings == 0); /* R h of all layers needs nobody else */
    tf_model_free(model);
    network_free(&n);
    network_build(&n, 0, TF_FORMAT_F32, 1);
    CHECK(tf_model_create(&n.net, TF_ISA_SCALAR, &model, NULL) == TF_OK);
    tf_schedule_make(model, TF_FINISH, &s);
    CHECK(s.first < 0 && s.last < 0);
    tf_model_free(model);
    network_free(&n);
}

/* More threads than cores: the caller goes on alone, and now and then tries again. */
static void test_crowd(const network *n) {
#ifdef __linux__
    cpu_set_t ours, one;
    if (sched_getaffinity(0, sizeof ours, &ours) != 0) return;
    CPU_ZERO(&one);
    for (size_t cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &ours)) CPU_SET(cpu, &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0); /* helpers inherit it */
    tf_team *team = NULL;
    twin t;
    CHECK(tf_team_create(3, NULL, UINT64_C(1000000000), &team) == TF_OK);
    if (team != NULL && start(&t, n, tf_isa_active())) {
        for (int32_t i = 0; i < 400; i++) step(team, &t, i % 4 != 3);
        stop(&t);
    }
    tf_team_free(team);
    CHECK(sched_setaffinity(0, sizeof ours, &ours) == 0);
#else
    (void)n;
#endif
}

/* A child of fork has no helpers: it steps alone, and frees the team without waiting for them. */
static void test_fork(const network *n) {
    tf_team *team = NULL;
    twin t;
    if (!start(&t, n, tf_isa_active())) return;
    CHECK(tf_team_create(1, NULL, UINT64_C(1000000000), &team) == TF_OK);
    for (int32_t i = 0; i < 4; i++) step(team, &t, 1);
    const pid_t child = fork();
    if (child == 0) {
        alarm(20); /* whoever waits for a helper would wait for ever */
        const int before = failures;
        for (int32_t i = 0; i < 4; i++) step(team, &t, 1);
        tf_team_free(team);
        _exit(failures == before ? 0 : 1);
    }
    int how = 1;
    CHECK(child > 0 && waitpid(child, &how, 0) == child && how == 0);
    for (int32_t i = 0; i < 4; i++) step(team, &t, 1);
    tf_team_free(team);
    stop(&t);
}

/* Padding lanes of an LSTM are NaN after an infinite input; no share of its row may see them. */
static void test_padding(void) {
    static network n;
    tf_team *team = NULL;
    twin t;
    build(&n, 0, TF_FORMAT_F32);
    n.net.count = 0;
    const int32_t x = network_lstm(&n, 250, 250, TF_MODEL_INPUT);
    n.format = TF_FORMAT_I8;
    network_dense(&n, 3, x, TF_ACT_NONE);
    CHECK(tf_team_create(2, NULL, UINT64_C(1000000000), &team) == TF_OK);
    float *w = (float *)(uintptr_t)n.node[x].w.data;
    for (int32_t i = 0; i < 4 * 250 * n.net.input; i++) w[i] = 1.0f; /* a negative one would meet +inf: NaN by right */
    if (start(&t, &n, tf_isa_active())) {
        for (size_t j = 0; j < t.in; j++) tf_session_input(t.team)[j] = tf_session_input(t.alone)[j] = INFINITY;
        tf_team_finish(team, t.model, t.team);
        tf_session_finish(t.model, t.alone);
        for (size_t j = 0; j < t.out; j++) {
            CHECK(isfinite(tf_session_output(t.team)[j]));
            CHECK(tf_session_output(t.team)[j] - tf_session_output(t.alone)[j] == 0.0f);
        }
        stop(&t);
    }
    tf_team_free(team);
    network_free(&n);
}

static void test_arguments(void) {
    tf_team *team = (tf_team *)&team;
    CHECK(tf_team_create(0, NULL, 0, &team) == TF_ERR_ARGUMENT && team == NULL);
    CHECK(tf_team_create(64, NULL, 0, &team) == TF_ERR_ARGUMENT);
    CHECK(tf_team_create(1, NULL, 0, NULL) == TF_ERR_ARGUMENT);
    const int32_t nowhere[1] = {-1}, far[1] = {1023};
    CHECK(tf_team_create(1, nowhere, 0, &team) == TF_ERR_ARGUMENT && team == NULL);
    CHECK(tf_team_create(1, far, 0, &team) == TF_ERR_ARGUMENT && team == NULL);
    tf_team_free(NULL);
    for (int32_t i = 0; i < 20; i++) { /* born and gone without work */
        CHECK(tf_team_create(1 + i % 3, NULL, i % 2 ? 0 : 2000000, &team) == TF_OK);
        if (i % 5 == 0) nap(1000000);
        tf_team_free(team);
    }
}

int main(void) {
    static network n;
    CHECK(tf_isa_select(NULL) == TF_OK);
    test_arguments();
    test_schedule();
    test_padding();
    build(&n, 0, TF_FORMAT_F32);
    test_crowd(&n);
    test_fork(&n);
    network_free(&n);
    const int32_t cpu[1] = {0};
    static const uint64_t PATIENCE[3] = {2000000000, 200000, 0};
    for (int isa = 0; isa < TF_ISA_COUNT; isa++) {
        if (!tf_isa_available((tf_isa)isa)) {
            printf("test_team: %s is not available here\n", tf_isa_name((tf_isa)isa));
            continue;
        }
        for (int32_t round = 0; round < 3; round++) {
            tf_team *team = NULL;
            if (tf_team_create(1 + round, round == 0 ? cpu : NULL, PATIENCE[round], &team) != TF_OK)
                CHECK(tf_team_create(1 + round, NULL, PATIENCE[round], &team) == TF_OK); /* CPU 0 is not ours */
            for (int32_t kind = 0; kind < 5; kind++)
                for (int32_t format = 0; format < NETWORK_FORMATS; format++) {
                    if (isa == TF_ISA_SCALAR && (kind + format + round) % 3 != 0) continue; /* slow */
                    build(&n, kind, format);
                    test_model(team, &n, (tf_isa)isa);
                    network_free(&n);
                }
            network_build(&n, 5, TF_FORMAT_F32, 1); /* nothing to share */
            test_model(team, &n, (tf_isa)isa);
            network_free(&n);
            tf_team_free(team);
        }
    }
    return done("test_team");
}
