/* Millions of steps of each network: resident memory stays flat, nothing is allocated, the bytes of a session are
 * exact.
 *
 * soak_nn STEPS [SECONDS]     SECONDS bounds the whole run; each network still does as many steps as its share allows
 *
 * One line per network, `key=value` pairs. Exit status 0 when every line holds. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"
#include "networks.h"

#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

/* The linker sends the library's allocation calls here (-Wl,--wrap). */
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

enum { ROWS = 64, WARM = 2000, GUARD = 256, FILL = 0xA5, CHUNK = 10000, SESSIONS = 6, WINDOW = 8 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Resident memory without pages of files (of the program and its libraries, which the kernel maps sixteen at a time); 0
 * where there is no /proc. What stdio allocates happens inside libc, where the wrappers do not count. */
static long resident_bytes(void) {
    static const char path[] = "/proc/self/statm";
    char text[128];
    FILE *file = fopen(path, "rb");
    if (file == NULL) return 0;
    const size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = '\0';
    long total = 0, resident = 0, shared = 0;
    if (sscanf(text, "%ld %ld %ld", &total, &resident, &shared) != 3) return 0;
    return (resident - shared) * sysconf(_SC_PAGESIZE);
}

/* Batches and windows: the same promises, in the bytes that they ask for. */
static void run_groups(const tf_model *model, const float *x, size_t in) {
    const size_t batch_bytes = tf_batch_bytes(model, SESSIONS), window_bytes = tf_window_bytes(model, WINDOW);
    const size_t each = (tf_model_session_bytes(model) + 63) / 64 * 64;
    unsigned char *memory[2] = {network_block_of(batch_bytes + GUARD), network_block_of(window_bytes + GUARD)};
    unsigned char *block = network_block_of(SESSIONS * each);
    tf_session *session[SESSIONS];
    tf_batch *batch = NULL;
    tf_window *window = NULL;
    memset(memory[0] + batch_bytes, FILL, GUARD);
    memset(memory[1] + window_bytes, FILL, GUARD);
    CHECK(tf_batch_init(model, SESSIONS, memory[0], batch_bytes, &batch) == TF_OK);
    CHECK(tf_window_init(model, WINDOW, memory[1], window_bytes, &window) == TF_OK);
    for (size_t i = 0; i < SESSIONS; i++) CHECK(tf_session_init(model, block + i * each, each, &session[i]) == TF_OK);
    const long before = atomic_load(&allocations), resident = resident_bytes();
    const uint64_t limit = (uint64_t)tf_model_max_steps(model);
    for (uint64_t t = 0; t < WARM; t++) {
        for (size_t i = 0; i < SESSIONS; i++) {
            if (limit != 0 && t % limit == 0) tf_session_reset(session[i]);
            memcpy(tf_session_input(session[i]), x + (t + i) % ROWS * in, in * sizeof *x);
        }
        tf_batch_finish(batch, session, SESSIONS);
        tf_batch_prepare(batch, session, SESSIONS);
        memcpy(tf_window_input(window), x + t % ROWS * in, in * sizeof *x);
        tf_window_finish(window);
        tf_window_prepare(window);
    }
    CHECK(isfinite(tf_session_output(session[0])[0]) && isfinite(tf_window_output(window)[0]));
    CHECK(atomic_load(&allocations) == before);
    CHECK(resident_bytes() - resident < 64 * 1024); /* scratch that is touched late */
    for (size_t i = 0; i < GUARD; i++) CHECK(memory[0][batch_bytes + i] == FILL && memory[1][window_bytes + i] == FILL);
    free(memory[0]), free(memory[1]), free(block);
}

static void run(const network *n, uint64_t steps, double seconds) {
    tf_model *model = NULL;
    tf_fault fault = {0, ""};
    const tf_status status = tf_model_create(&n->net, tf_isa_active(), &model, &fault);
    CHECK(status == TF_OK);
    if (status != TF_OK) {
        printf("%s: node %d: %s\n", n->name, (int)fault.node, fault.rule);
        return;
    }
    const size_t bytes = tf_model_session_bytes(model), in = (size_t)tf_model_input_size(model);
    const size_t whole = (bytes + 63) / 64 * 64 + 64 + GUARD;
    unsigned char *memory = network_block_of(whole), *at = memory;
    float *x = network_block_of(ROWS * in * sizeof *x);
    unsigned seed = 3;
    for (size_t i = 0; i < ROWS * in; i++) x[i] = noise(&seed);
    memset(memory, FILL, whole);
    tf_session *session = NULL;
    CHECK(tf_session_init(model, at, bytes - 1, &session) == TF_ERR_MEMORY);
    CHECK(tf_session_init(model, at, bytes, &session) == TF_OK);
    CHECK(at[bytes - 1] != FILL); /* its last byte is used: the count is exact, not an upper bound */

    uint64_t done_steps = 0;
    const uint64_t limit = (uint64_t)tf_model_max_steps(model);
    long resident = 0, before = 0;
    int finite = 1;
    double start = 0.0;
    while (done_steps < WARM + steps && (seconds <= 0.0 || done_steps <= WARM || now() - start < seconds)) {
        const uint64_t chunk = done_steps == 0 ? WARM : CHUNK;
        for (uint64_t i = 0; i < chunk; i++) {
            if (limit != 0 && (done_steps + i) % limit == 0) tf_session_reset(session);
            memcpy(tf_session_input(session), x + (done_steps + i) % ROWS * in, in * sizeof *x);
            tf_session_finish(model, session);
            finite &= isfinite(tf_session_output(session)[0]) != 0;
            tf_session_prepare(model, session);
        }
        done_steps += chunk;
        if (done_steps == WARM) {
            resident = resident_bytes();
            before = atomic_load(&allocations);
            start = now();
        }
    }
    const double took = now() - start;
    const long allocated = atomic_load(&allocations) - before, grown = resident_bytes() - resident;
    int guarded = 1;
    for (size_t i = bytes; i < whole; i++) guarded &= at[i] == FILL;
    CHECK(finite);
    CHECK(allocated == 0);
    CHECK(guarded);
    CHECK(grown < 16 * 1024);
    printf("network=%s steps=%llu session_bytes=%zu model_bytes=%zu rss_growth_bytes=%ld allocations=%ld "
           "ns_per_step=%.1f\n",
           n->name, (unsigned long long)(done_steps - WARM), bytes, tf_model_bytes(model), grown, allocated,
           1e9 * took / (double)(done_steps - WARM));
    fflush(stdout);
    run_groups(model, x, in);
    free(memory), free(x);
    tf_model_free(model);
}

int main(int count, char **argument) {
    const double steps = count > 1 ? strtod(argument[1], NULL) : 10e6,
                 seconds = count > 2 ? strtod(argument[2], NULL) : 0;
    if (!(steps >= 1.0 && steps <= 1e15)) {
        fprintf(stderr, "STEPS must be from 1 to 1e15, was %s\n", argument[1]);
        return 2;
    }
    CHECK(tf_isa_select(NULL) == TF_OK);
    (void)resident_bytes(); /* what stdio takes, it takes now */
    static network n;
    for (int32_t kind = 0; kind < NETWORK_KINDS; kind++)
        for (int32_t format = TF_FORMAT_F32; format <= TF_FORMAT_I8; format += TF_FORMAT_I8) {
            network_build(&n, kind, format, 1);
            run(&n, (uint64_t)steps, seconds / (2 * NETWORK_KINDS));
            network_free(&n);
        }
    return done("soak_nn");
}
