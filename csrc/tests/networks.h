/* Networks for the tests and the soak: together they hold every operation, in every number format. Weights are random
 * and small enough for outputs to stay finite. */
#ifndef TF_TESTS_NETWORKS_H
#define TF_TESTS_NETWORKS_H

#include "check.h"

#include "tengri/nn.h"

#include <math.h>

enum { NETWORK_NODES = 32, NETWORK_BLOCKS = 160, NETWORK_KINDS = 8, NETWORK_FORMATS = 5 };

typedef struct network {
    char name[32];
    tf_network net;
    tf_node_desc node[NETWORK_NODES];
    void *memory[NETWORK_BLOCKS];
    int32_t blocks;
    int32_t format; /* of the nodes that have a choice */
    unsigned seed;
} network;

static inline float *network_floats(network *n, size_t count, float size, float middle) {
    float *p = malloc(count * sizeof *p);
    if (p == NULL || n->blocks == NETWORK_BLOCKS) abort();
    n->memory[n->blocks++] = p;
    for (size_t i = 0; i < count; i++) p[i] = middle + size * noise(&n->seed);
    return p;
}

/* noise() is uniform in [-2, 2): 0.866 / sqrt(k) keeps the size of a row of k inputs. */
static inline tf_matrix network_matrix(network *n, int32_t rows, int32_t k) {
    const float size = 0.866f / sqrtf((float)k);
    const size_t count = (size_t)rows * (size_t)k;
    if (n->format < TF_FORMAT_I8) return (tf_matrix){network_floats(n, count, size, 0.0f), NULL};
    int8_t *q = malloc(count);
    if (q == NULL || n->blocks == NETWORK_BLOCKS) abort();
    n->memory[n->blocks++] = q;
    for (size_t i = 0; i < count; i++) q[i] = (int8_t)(63.5f * noise(&n->seed));
    float *scale = network_floats(n, (size_t)rows, 0.0f, 2.0f * size / 127.0f);
    for (int32_t i = 0; i < rows; i++) scale[i] *= 1.0f + 0.1f * (float)(i % 7);
    return (tf_matrix){q, scale};
}

static inline int32_t network_width(const network *n, int32_t input) {
    return input == TF_MODEL_INPUT ? n->net.input : n->node[input].width;
}

static inline tf_node_desc *network_node(network *n, int32_t op, int32_t width, int32_t input) {
    if (n->net.count == NETWORK_NODES) abort();
    tf_node_desc *d = &n->node[n->net.count++];
    memset(d, 0, sizeof *d);
    d->op = op;
    d->width = width;
    d->inputs = 1;
    d->input[0] = input;
    n->net.output = n->net.count - 1;
    return d;
}

/* Scales of int8 and int16 inputs: a row reaches about 4, a state stays within 1. */
static inline void network_scales(const network *n, tf_node_desc *d) {
    d->format = n->format;
    if (n->format < TF_FORMAT_I8) return;
    const float levels = n->format == TF_FORMAT_I8 ? 127.0f : 32767.0f;
    d->value[0] = 4.0f / levels;
    d->value[1] = d->value[2] = 1.0f / levels;
}

static inline int32_t network_dense(network *n, int32_t width, int32_t input, int32_t activation) {
    const int32_t k = network_width(n, input);
    tf_node_desc *d = network_node(n, TF_OP_DENSE, width, input);
    d->activation = activation;
    d->w = network_matrix(n, width, k);
    d->bias = network_floats(n, (size_t)width, 0.1f, 0.0f);
    network_scales(n, d);
    return n->net.output;
}

/* With a projection when width differs from hidden. */
static inline int32_t network_lstm(network *n, int32_t hidden, int32_t width, int32_t input) {
    const int32_t k = network_width(n, input);
    tf_node_desc *d = network_node(n, TF_OP_LSTM, width, input);
    d->size[0] = hidden;
    d->w = network_matrix(n, 4 * hidden, k);
    d->r = network_matrix(n, 4 * hidden, width);
    if (width != hidden) d->p = network_matrix(n, width, hidden);
    d->bias = network_floats(n, 4 * (size_t)hidden, 0.1f, 0.0f);
    network_scales(n, d);
    return n->net.output;
}

static inline int32_t network_gru(network *n, int32_t hidden, int32_t input, int32_t reset_after) {
    const int32_t k = network_width(n, input);
    tf_node_desc *d = network_node(n, TF_OP_GRU, hidden, input);
    d->size[0] = hidden;
    d->size[1] = reset_after;
    d->w = network_matrix(n, 3 * hidden, k);
    d->r = network_matrix(n, 3 * hidden, hidden);
    d->bias = network_floats(n, 3 * (size_t)hidden, 0.1f, 0.0f);
    d->rbias = network_floats(n, 3 * (size_t)hidden, 0.1f, 0.0f);
    network_scales(n, d);
    return n->net.output;
}

/* size: taps, dilation, stride, groups, levels, kernel, level stride. */
static inline int32_t network_conv(network *n, int32_t channels, int32_t input, const int32_t size[7],
                                   int32_t activation) {
    const int32_t in = network_width(n, input) / size[4];
    const int32_t out_levels = (size[4] - size[5]) / size[6] + 1, k = size[5] * in / size[3];
    tf_node_desc *d = network_node(n, TF_OP_CONV, out_levels * channels, input);
    memcpy(d->size, size, 7 * sizeof *size);
    d->activation = activation;
    d->w = network_matrix(n, size[0] * channels, k);
    d->bias = network_floats(n, (size_t)channels, 0.1f, 0.0f);
    network_scales(n, d);
    return n->net.output;
}

static inline int32_t network_two(network *n, int32_t op, int32_t a, int32_t b, int32_t activation) {
    tf_node_desc *d = network_node(n, op, network_width(n, a), a);
    d->inputs = 2;
    d->input[1] = b;
    d->activation = activation;
    return n->net.output;
}

static inline int32_t network_norm(network *n, int32_t input, int32_t kind) {
    const int32_t width = network_width(n, input);
    tf_node_desc *d = network_node(n, TF_OP_NORM, width, input);
    d->size[0] = kind;
    d->value[3] = 1e-5f;
    d->extra = network_floats(n, (size_t)width, 0.1f, 1.0f);
    if (kind == TF_NORM_LAYER) d->bias = network_floats(n, (size_t)width, 0.1f, 0.0f);
    return n->net.output;
}

static inline int32_t network_attention(network *n, int32_t q, int32_t k, int32_t v, int32_t heads, int32_t kv_heads,
                                        int32_t window, int32_t position) {
    const int32_t dim = network_width(n, q) / heads, value_dim = network_width(n, v) / kv_heads;
    tf_node_desc *d = network_node(n, TF_OP_ATTENTION, heads * value_dim, q);
    d->inputs = 3;
    d->input[1] = k;
    d->input[2] = v;
    d->size[0] = heads;
    d->size[1] = kv_heads;
    d->size[2] = window;
    d->size[3] = position;
    d->value[3] = 1.0f / sqrtf((float)dim);
    if (position == TF_POSITION_ROPE || position == TF_POSITION_ROPE_INTERLEAVED) d->value[4] = 10000.0f;
    if (position == TF_POSITION_ALIBI) {
        float *slope = network_floats(n, (size_t)heads, 0.0f, 0.0f);
        for (int32_t i = 0; i < heads; i++) slope[i] = exp2f(-(float)(i + 1));
        d->extra = slope;
    }
    if (n->format == TF_FORMAT_I8) {
        d->format = TF_FORMAT_I8;
        d->value[0] = d->value[1] = d->value[2] = 4.0f / 127.0f;
    }
    return n->net.output;
}

/* A pre-norm block of a causal Transformer. */
static inline int32_t network_block(network *n, int32_t x, int32_t heads, int32_t kv_heads, int32_t window,
                                    int32_t position, int32_t norm) {
    const int32_t width = network_width(n, x), dim = width / heads;
    const int32_t a = network_norm(n, x, norm);
    const int32_t q = network_dense(n, heads * dim, a, TF_ACT_NONE);
    const int32_t k = network_dense(n, kv_heads * dim, a, TF_ACT_NONE);
    const int32_t v = network_dense(n, kv_heads * dim, a, TF_ACT_NONE);
    const int32_t y = network_attention(n, q, k, v, heads, kv_heads, window, position);
    x = network_two(n, TF_OP_ADD, x, network_dense(n, width, y, TF_ACT_NONE), TF_ACT_NONE);
    const int32_t f = network_dense(n, 2 * width, network_norm(n, x, norm), TF_ACT_GELU);
    return network_two(n, TF_OP_ADD, x, network_dense(n, width, f, TF_ACT_NONE), TF_ACT_NONE);
}

/* `kind` in [0, NETWORK_KINDS). `size` >= 1 scales the shapes: 1 for tests, more for measurements. */
static inline void network_build(network *n, int32_t kind, int32_t format, int32_t size) {
    static const char *const FORMAT[NETWORK_FORMATS] = {"f32", "f16", "bf16", "i8", "i8a16"};
    static const char *const NAME[NETWORK_KINDS] = {"lstm",        "gru", "tcn",  "attention",
                                                    "transformer", "mlp", "book", "parts"};
    memset(n, 0, sizeof *n);
    snprintf(n->name, sizeof n->name, "%s_%s", NAME[kind], FORMAT[format]);
    n->net.nodes = n->node;
    n->format = format;
    n->seed = 77u + (unsigned)(kind * 16 + format);
    n->net.input = 5 + 11 * (size - 1);
    int32_t x = TF_MODEL_INPUT;
    switch (kind) {
    case 0: /* odd sizes: rows that do not fill their blocks */
        x = network_lstm(n, 19 * size, 19 * size, x);
        x = network_lstm(n, 16 * size, 16 * size, x);
        x = network_lstm(n, 13 * size, 7 * size, x);
        network_dense(n, 3, x, TF_ACT_SOFTMAX);
        break;
    case 1:
        x = network_gru(n, 17 * size, x, 1);
        x = network_gru(n, 9 * size, x, 0);
        network_dense(n, 2, x, TF_ACT_TANH);
        break;
    case 2: { /* residual blocks of dilated convolutions, then a pool */
        x = network_conv(n, 16 * size, x, (int32_t[7]){1, 1, 1, 1, 1, 1, 1}, TF_ACT_NONE);
        for (int32_t dilation = 1; dilation <= 4; dilation *= 2) {
            const int32_t y = network_conv(n, 16 * size, x, (int32_t[7]){3, dilation, 1, 1, 1, 1, 1}, TF_ACT_RELU);
            const int32_t z =
                network_conv(n, 16 * size, y, (int32_t[7]){2, dilation, 1, 4, 1, 1, 1}, TF_ACT_LEAKY_RELU);
            n->node[z].value[7] = 0.1f;
            x = network_two(n, TF_OP_ADD, x, z, TF_ACT_RELU);
        }
        tf_node_desc *pool = network_node(n, TF_OP_POOL, network_width(n, x), x);
        pool->size[0] = 6;
        pool->size[1] = TF_POOL_MEAN;
        pool->size[2] = 1;
        network_dense(n, 3, n->net.output, TF_ACT_NONE);
        break;
    }
    case 3: /* keys shared by heads, positions by ALiBi */
        x = network_dense(n, 32 * size, x, TF_ACT_NONE);
        network_block(n, x, 4, 2, 24, TF_POSITION_ALIBI, TF_NORM_RMS);
        break;
    case 4: { /* learned positions, then two blocks with RoPE */
        x = network_dense(n, 32 * size, x, TF_ACT_NONE);
        x = network_block(n, x, 4, 4, 17, TF_POSITION_ROPE, TF_NORM_LAYER);
        x = network_block(n, x, 2, 1, 8, TF_POSITION_ROPE_INTERLEAVED, TF_NORM_LAYER);
        network_dense(n, 3, x, TF_ACT_SOFTMAX);
        break;
    }
    case 5:
        x = network_dense(n, 24 * size, x, TF_ACT_GELU_TANH);
        x = network_dense(n, 24 * size, x, TF_ACT_SILU);
        network_dense(n, 6, x, TF_ACT_SOFTMAX);
        n->node[n->net.output].size[7] = 2; /* two horizons of three classes */
        break;
    case 6: { /* DeepLOB style: convolution over ten levels of four numbers, over time, then an LSTM */
        n->net.input = 40;
        x = network_conv(n, 8, x, (int32_t[7]){1, 1, 1, 1, 10, 2, 2}, TF_ACT_LEAKY_RELU);
        n->node[x].value[7] = 0.01f;
        x = network_conv(n, 8, x, (int32_t[7]){4, 1, 1, 1, 5, 5, 1}, TF_ACT_RELU);
        x = network_lstm(n, 16 * size, 16 * size, x);
        network_dense(n, 3, x, TF_ACT_SOFTMAX);
        break;
    }
    default: { /* what the others leave out */
        const int32_t a = network_dense(n, 12, x, TF_ACT_SIGMOID);
        tf_node_desc *affine = network_node(n, TF_OP_AFFINE, n->net.input, TF_MODEL_INPUT);
        affine->extra = network_floats(n, (size_t)n->net.input, 0.1f, 1.0f);
        affine->bias = network_floats(n, (size_t)n->net.input, 0.1f, 0.0f);
        const int32_t scaled = n->net.output;
        tf_node_desc *concat = network_node(n, TF_OP_CONCAT, 12 + n->net.input, a);
        concat->inputs = 2;
        concat->input[1] = scaled;
        const int32_t joined = n->net.output;
        tf_node_desc *slice = network_node(n, TF_OP_SLICE, 12, joined);
        slice->size[0] = 3;
        const int32_t part = n->net.output;
        const int32_t product = network_two(n, TF_OP_MUL, a, part, TF_ACT_NONE);
        tf_node_desc *position = network_node(n, TF_OP_POSITION, 12, product);
        position->size[0] = 50;
        position->extra = network_floats(n, 50 * 12, 0.1f, 0.0f);
        tf_node_desc *activation = network_node(n, TF_OP_ACTIVATION, 12, n->net.output);
        activation->activation = TF_ACT_TANH;
        tf_node_desc *pool = network_node(n, TF_OP_POOL, 12, n->net.output);
        pool->size[0] = 5;
        pool->size[1] = TF_POOL_MAX;
        x = network_conv(n, 12, n->net.output, (int32_t[7]){3, 1, 2, 12, 1, 1, 1},
                         TF_ACT_NONE); /* depthwise, strided */
        network_dense(n, 2, x, TF_ACT_NONE);
        break;
    }
    }
    n->net.count = n->net.output + 1;
}

static inline void network_free(network *n) {
    for (int32_t i = 0; i < n->blocks; i++) free(n->memory[i]);
    n->blocks = 0;
}

static inline void *network_block_of(size_t bytes) {
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (memory == NULL) abort();
    return memory;
}

#endif
