/* ONNX Runtime through its C API, timed call by call: what a C++ trader would get from it, without Python's share.
 *
 * The API is a table of functions whose order never changes (it only grows), so this file needs the library and no
 * header. Built by bench/_rivals.py; loaded with ctypes. */
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { /* places in the table */
    API_VERSION = 1,
    GET_ERROR_MESSAGE = 2,
    CREATE_ENV = 3,
    CREATE_SESSION = 7,
    RUN = 9,
    CREATE_SESSION_OPTIONS = 10,
    SET_OPTIMISATION = 23,
    SET_INTRA_THREADS = 24,
    SET_INTER_THREADS = 25,
    CREATE_TENSOR_WITH_DATA = 49,
    CREATE_CPU_MEMORY_INFO = 69
};
enum { WARNING_LEVEL = 2, ARENA_ALLOCATOR = 1, DEFAULT_MEMORY = 0, TYPE_FLOAT = 1, MAX_TENSORS = 64 };

typedef void (*any_function)(void); /* cast to one of these: each returns NULL or an error to be shown */
typedef const char *(*text_of)(void *status);
typedef void *(*create_env)(int level, const char *name, void **out);
typedef void *(*create)(void **out);
typedef void *(*set_number)(void *options, int number);
typedef void *(*create_session)(void *env, const char *path, void *options, void **out);
typedef void *(*create_memory)(int allocator, int kind, void **out);
typedef void *(*create_tensor)(void *memory, void *data, size_t bytes, const int64_t *dims, size_t rank, int type,
                               void **out);
typedef void *(*run)(void *session, void *options, const char *const *inputs, void *const *in, size_t count,
                     const char *const *outputs, size_t output_count, void **out);
typedef struct base {
    const any_function *(*get_api)(uint32_t version);
    const char *(*version)(void);
} base;

typedef struct rival {
    const any_function *api;
    void *session;
    int32_t inputs, outputs;
    const char *input_names[MAX_TENSORS], *output_names[MAX_TENSORS];
    /* Two sets: what the step of an even call writes as states, the step of an odd call reads. */
    void *input[2][MAX_TENSORS], *output[2][MAX_TENSORS];
    float *x, *y;
    int32_t phase;
    char fault[256];
} rival;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int failed(rival *r, void *status) {
    if (status == NULL) return 0;
    const char *text = ((text_of)r->api[GET_ERROR_MESSAGE])(status);
    snprintf(r->fault, sizeof r->fault, "%s", text);
    return 1;
}

static void *tensor(rival *r, void *memory, float *data, const int64_t *dims, int32_t rank) {
    size_t count = 1;
    for (int32_t i = 0; i < rank; i++) count *= (size_t)dims[i];
    void *value = NULL;
    void *status = ((create_tensor)r->api[CREATE_TENSOR_WITH_DATA])(memory, data, count * sizeof(float), dims,
                                                                    (size_t)rank, TYPE_FLOAT, &value);
    return failed(r, status) ? NULL : value;
}

static float *zeros(const int64_t *dims, int32_t rank) {
    size_t count = 16;
    for (int32_t i = 0; i < rank; i++) count *= (size_t)dims[i];
    float *data = aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64);
    if (data != NULL) memset(data, 0, (count * sizeof(float) + 63) / 64 * 64);
    return data;
}

const char *rival_fault(const rival *r) { return r->fault; }
float *rival_x(rival *r) { return r->x; }
float *rival_y(rival *r) { return r->y; }

/* Input 0 is x and output 0 is y; input i and output i are a state, i > 0. `dims` holds rank after rank. */
rival *rival_open(const char *library, const char *model, int32_t tensors, const char *const *input_names,
                  const char *const *output_names, const int32_t *input_rank, const int64_t *input_dims,
                  const int32_t *output_rank, const int64_t *output_dims, int32_t optimise) {
    rival *r = calloc(1, sizeof *r);
    if (r == NULL || tensors < 1 || tensors > MAX_TENSORS) return r;
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        snprintf(r->fault, sizeof r->fault, "%s", dlerror());
        return r;
    }
    const base *(*get)(void);
    *(void **)&get = dlsym(handle, "OrtGetApiBase");
    r->api = get()->get_api(API_VERSION);
    void *env = NULL, *options = NULL, *memory = NULL;
    if (failed(r, ((create_env)r->api[CREATE_ENV])(WARNING_LEVEL, "bench", &env)) ||
        failed(r, ((create)r->api[CREATE_SESSION_OPTIONS])(&options)) ||
        failed(r, ((set_number)r->api[SET_OPTIMISATION])(options, optimise)) ||
        failed(r, ((set_number)r->api[SET_INTRA_THREADS])(options, 1)) ||
        failed(r, ((set_number)r->api[SET_INTER_THREADS])(options, 1)) ||
        failed(r, ((create_session)r->api[CREATE_SESSION])(env, model, options, &r->session)) ||
        failed(r, ((create_memory)r->api[CREATE_CPU_MEMORY_INFO])(ARENA_ALLOCATOR, DEFAULT_MEMORY, &memory)))
        return r;
    r->inputs = r->outputs = tensors;
    for (int32_t i = 0; i < tensors; i++) {
        r->input_names[i] = strdup(input_names[i]);
        r->output_names[i] = strdup(output_names[i]);
        float *first = zeros(input_dims, input_rank[i]), *second = i == 0 ? first : zeros(input_dims, input_rank[i]);
        if (i == 0) {
            r->x = first;
            r->y = zeros(output_dims, output_rank[i]);
            r->input[0][i] = r->input[1][i] = tensor(r, memory, first, input_dims, input_rank[i]);
            r->output[0][i] = r->output[1][i] = tensor(r, memory, r->y, output_dims, output_rank[i]);
        } else {
            r->input[0][i] = tensor(r, memory, first, input_dims, input_rank[i]);
            r->input[1][i] = tensor(r, memory, second, input_dims, input_rank[i]);
            r->output[0][i] = tensor(r, memory, second, output_dims, output_rank[i]);
            r->output[1][i] = tensor(r, memory, first, output_dims, output_rank[i]);
        }
        input_dims += input_rank[i];
        output_dims += output_rank[i];
        if (r->input[0][i] == NULL || r->input[1][i] == NULL || r->output[0][i] == NULL || r->output[1][i] == NULL)
            return r;
    }
    return r;
}

int32_t rival_step(rival *r) {
    const int32_t p = r->phase;
    r->phase ^= 1;
    return failed(r, ((run)r->api[RUN])(r->session, NULL, r->input_names, r->input[p], (size_t)r->inputs,
                                        r->output_names, (size_t)r->outputs, r->output[p]));
}

int32_t rival_time(rival *r, const float *x, int32_t rows, int32_t width, int32_t n, const char *evict,
                   size_t evict_bytes, double *ns) {
    unsigned sum = 0;
    for (int32_t i = 0; i < n; i++) {
        memcpy(r->x, x + (size_t)(i % rows) * (size_t)width, (size_t)width * sizeof(float));
        for (size_t at = 0; at < evict_bytes; at += 64) sum += (unsigned char)((volatile const char *)evict)[at];
        const uint64_t start = now_ns();
        if (rival_step(r)) return 1;
        ns[i] = (double)(now_ns() - start);
    }
    return sum == 1u && n < 0;
}
