/* OpenVINO through its C API, timed call by call; the same face as ort_c.c. Built by bench/_rivals.py against the headers
 * that the openvino wheel carries. */
#include <openvino/c/openvino.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_TENSORS = 64 };

typedef struct rival {
    ov_infer_request_t *request[2]; /* of even and of odd calls: their states point at each other */
    float *x, *y;
    int32_t phase;
    char fault[256];
} rival;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int failed(rival *r, ov_status_e status) {
    if (status == OK) return 0;
    snprintf(r->fault, sizeof r->fault, "%s: %s", ov_get_error_info(status), ov_get_last_err_msg());
    return 1;
}

static ov_tensor_t *tensor(rival *r, float **data, const int64_t *dims, int32_t rank) {
    size_t count = 16;
    for (int32_t i = 0; i < rank; i++) count *= (size_t)dims[i];
    const size_t bytes = (count * sizeof(float) + 63) / 64 * 64;
    if (*data == NULL && (*data = aligned_alloc(64, bytes)) != NULL) memset(*data, 0, bytes);
    ov_shape_t shape;
    ov_tensor_t *out = NULL;
    if (failed(r, ov_shape_create(rank, dims, &shape)) ||
        failed(r, ov_tensor_create_from_host_ptr(F32, shape, *data, &out)))
        return NULL;
    return out;
}

const char *rival_fault(const rival *r) { return r->fault; }
float *rival_x(rival *r) { return r->x; }
float *rival_y(rival *r) { return r->y; }

/* As in ort_c.c; `library` is not used, `optimise` 1 lets it compute in a lower precision where the machine has one. */
rival *rival_open(const char *library, const char *model, int32_t tensors, const char *const *input_names,
                  const char *const *output_names, const int32_t *input_rank, const int64_t *input_dims,
                  const int32_t *output_rank, const int64_t *output_dims, int32_t optimise) {
    (void)library;
    rival *r = calloc(1, sizeof *r);
    if (r == NULL || tensors < 1 || tensors > MAX_TENSORS) return r;
    ov_core_t *core = NULL;
    ov_model_t *graph = NULL;
    ov_compiled_model_t *compiled = NULL;
    if (failed(r, ov_core_create(&core)) || failed(r, ov_core_read_model(core, model, NULL, &graph)) ||
        failed(r, ov_core_compile_model(core, graph, "CPU", 8, &compiled, "INFERENCE_NUM_THREADS", "1", "NUM_STREAMS", "1",
                                        "PERFORMANCE_HINT", "LATENCY", "INFERENCE_PRECISION_HINT",
                                        optimise ? "bf16" : "f32")) ||
        failed(r, ov_compiled_model_create_infer_request(compiled, &r->request[0])) ||
        failed(r, ov_compiled_model_create_infer_request(compiled, &r->request[1])))
        return r;
    for (int32_t i = 0; i < tensors; i++) {
        float *first = NULL, *second = NULL;
        ov_tensor_t *a = tensor(r, &first, input_dims, input_rank[i]), *b = NULL, *in[2], *out[2];
        if (i == 0) {
            b = tensor(r, &second, output_dims, output_rank[i]);
            in[0] = in[1] = a;
            out[0] = out[1] = b;
            r->x = first;
            r->y = second;
        } else {
            b = tensor(r, &second, input_dims, input_rank[i]);
            in[0] = out[1] = a;
            in[1] = out[0] = b;
        }
        if (a == NULL || b == NULL) return r;
        for (int p = 0; p < 2; p++)
            if (failed(r, ov_infer_request_set_tensor(r->request[p], input_names[i], in[p])) ||
                failed(r, ov_infer_request_set_tensor(r->request[p], output_names[i], out[p])))
                return r;
        input_dims += input_rank[i];
        output_dims += output_rank[i];
    }
    return r;
}

int32_t rival_step(rival *r) {
    const int32_t p = r->phase;
    r->phase ^= 1;
    return failed(r, ov_infer_request_infer(r->request[p]));
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
