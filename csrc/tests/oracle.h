/* What a network means, in double precision and without any thought of speed: every node from its definition in
 * tengri/nn.h, over the whole history of its inputs. Integer formats are followed by what they stand for (a row enters
 * as its quanta), so that what is compared is the engine and not the format. */
#ifndef TF_TESTS_ORACLE_H
#define TF_TESTS_ORACLE_H

#include "check.h"

#include "nn/halves.h"
#include "tengri/nn.h"

#include <math.h>

typedef struct oracle {
    const tf_network *net;
    int32_t steps;
    double *row[TF_MAX_NODES]; /* [local step][width] */
    double *input;             /* [step][input] */
    double *cell[TF_MAX_NODES];
    int32_t period[TF_MAX_NODES];
} oracle;

static inline int32_t oracle_width(const oracle *o, int32_t i) {
    return i == TF_MODEL_INPUT ? o->net->input : o->net->nodes[i].width;
}
static inline int32_t oracle_period(const oracle *o, int32_t i) { return i == TF_MODEL_INPUT ? 1 : o->period[i]; }

static inline void oracle_open(oracle *o, const tf_network *net, int32_t steps) {
    memset(o, 0, sizeof *o);
    o->net = net;
    o->steps = steps;
    o->input = calloc((size_t)steps * (size_t)net->input, sizeof(double));
    for (int32_t i = 0; i < net->count; i++) {
        const tf_node_desc *d = &net->nodes[i];
        int32_t period = 1;
        for (int32_t j = 0; j < d->inputs; j++) { /* lowest common multiple by trial: periods are small */
            const int32_t other = oracle_period(o, d->input[j]);
            int32_t both = period > other ? period : other;
            while (both % period != 0 || both % other != 0) both++;
            period = both;
        }
        o->period[i] = d->op == TF_OP_CONV ? period * d->size[2] : period;
        o->row[i] = calloc((size_t)steps * (size_t)d->width, sizeof(double));
        o->cell[i] = calloc((size_t)(d->op == TF_OP_LSTM ? d->size[0] : 1), sizeof(double));
    }
}

static inline void oracle_close(oracle *o) {
    for (int32_t i = 0; i < o->net->count; i++) free(o->row[i]), free(o->cell[i]);
    free(o->input);
}

/* A weight as the format holds it. */
static inline double oracle_weight(const tf_matrix *m, int32_t format, int64_t row, int32_t k, int32_t column) {
    const int64_t at = row * k + column;
    if (format == TF_FORMAT_F16) return (double)tf_f32_from_f16(tf_f16_from_f32(((const float *)m->data)[at]));
    if (format == TF_FORMAT_BF16) return (double)tf_f32_from_bf16(tf_bf16_from_f32(((const float *)m->data)[at]));
    if (format == TF_FORMAT_I8 || format == TF_FORMAT_I8A16)
        return (double)((const int8_t *)m->data)[at] * (double)m->scale[row];
    return (double)((const float *)m->data)[at];
}

/* The value that a number becomes on its way into a product. */
static inline double oracle_enter(double x, int32_t format, float scale) {
    if (format != TF_FORMAT_I8 && format != TF_FORMAT_I8A16) return x;
    const double low = format == TF_FORMAT_I8 ? -128 : -32767, high = format == TF_FORMAT_I8 ? 127 : 32767;
    const double v = nearbyint((double)((float)x * (1.0f / scale)));
    return (double)scale * (v < low ? low : v > high ? high : v);
}

/* Row `u` of what input `i` yields, NULL before the first. */
static inline const double *oracle_row(const oracle *o, int32_t i, int64_t u) {
    if (u < 0) return NULL;
    return i == TF_MODEL_INPUT ? o->input + u * o->net->input : o->row[i] + u * o->net->nodes[i].width;
}

static inline double oracle_sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

static inline void oracle_activate(const tf_node_desc *d, double *y) {
    const int32_t groups = d->size[7] > 0 ? d->size[7] : 1, each = d->width / groups;
    if (d->activation == TF_ACT_SOFTMAX) {
        for (int32_t g = 0; g < groups; g++, y += each) {
            double top = y[0], sum = 0;
            for (int32_t i = 1; i < each; i++) top = y[i] > top ? y[i] : top;
            for (int32_t i = 0; i < each; i++) sum += y[i] = exp(y[i] - top);
            for (int32_t i = 0; i < each; i++) y[i] /= sum;
        }
        return;
    }
    for (int32_t i = 0; i < d->width; i++) {
        const double x = y[i];
        switch (d->activation) {
        case TF_ACT_RELU: y[i] = x > 0 ? x : 0; break;
        case TF_ACT_TANH: y[i] = tanh(x); break;
        case TF_ACT_SIGMOID: y[i] = oracle_sigmoid(x); break;
        case TF_ACT_LEAKY_RELU: y[i] = x > 0 ? x : x * (double)d->value[7]; break;
        case TF_ACT_GELU: y[i] = 0.5 * x * (1 + erf(x / sqrt(2.0))); break;
        case TF_ACT_GELU_TANH: y[i] = 0.5 * x * (1 + tanh(0.79788456080286536 * (x + 0.044715 * x * x * x))); break;
        case TF_ACT_SILU: y[i] = x * oracle_sigmoid(x); break;
        default: break;
        }
    }
}

/* sum_j w[row][j] enter(x[j]); x NULL: a row of zeros. */
static inline double oracle_dot(const tf_matrix *m, int32_t format, int64_t row, int32_t k, const double *x,
                                float scale) {
    double sum = 0;
    for (int32_t j = 0; x != NULL && j < k; j++)
        sum += oracle_weight(m, format, row, k, j) * oracle_enter(x[j], format, scale);
    return sum;
}

static inline void oracle_lstm(oracle *o, int32_t i, const double *x, const double *h, double *y) {
    const tf_node_desc *d = &o->net->nodes[i];
    const int32_t hidden = d->size[0], in = oracle_width(o, d->input[0]);
    double *inner = calloc((size_t)hidden, sizeof *inner);
    for (int32_t u = 0; u < hidden; u++) {
        double z[4];
        for (int32_t g = 0; g < 4; g++)
            z[g] = (d->bias != NULL ? (double)d->bias[g * hidden + u] : 0.0) +
                   oracle_dot(&d->w, d->format, g * hidden + u, in, x, d->value[0]) +
                   oracle_dot(&d->r, d->format, g * hidden + u, d->width, h, d->value[1]);
        double *c = &o->cell[i][u];
        *c = oracle_sigmoid(z[1]) * *c + oracle_sigmoid(z[0]) * tanh(z[2]);
        inner[u] = oracle_sigmoid(z[3]) * tanh(*c);
    }
    for (int32_t u = 0; u < d->width; u++)
        y[u] = d->p.data != NULL ? oracle_dot(&d->p, d->format, u, hidden, inner, d->value[2]) : inner[u];
    free(inner);
}

static inline void oracle_gru(oracle *o, int32_t i, const double *x, const double *h, double *y) {
    const tf_node_desc *d = &o->net->nodes[i];
    const int32_t n = d->width, in = oracle_width(o, d->input[0]);
    double *zx = calloc(3 * (size_t)n, sizeof *zx), *zh = calloc(3 * (size_t)n, sizeof *zh),
           *rh = calloc((size_t)n, sizeof *rh);
    for (int32_t row = 0; row < 3 * n; row++) {
        zx[row] = (d->bias != NULL ? (double)d->bias[row] : 0.0) +
                  oracle_dot(&d->w, d->format, row, in, x, d->value[0]);
        zh[row] = (d->rbias != NULL ? (double)d->rbias[row] : 0.0) +
                  oracle_dot(&d->r, d->format, row, n, h, d->value[1]);
    }
    for (int32_t u = 0; u < n; u++) rh[u] = oracle_sigmoid(zx[u] + zh[u]) * (h != NULL ? h[u] : 0.0);
    for (int32_t u = 0; u < n; u++) {
        const double r = oracle_sigmoid(zx[u] + zh[u]), z = oracle_sigmoid(zx[n + u] + zh[n + u]);
        const double late = (d->rbias != NULL ? (double)d->rbias[2 * n + u] : 0.0) +
                            oracle_dot(&d->r, d->format, 2 * n + u, n, rh, d->value[1]);
        const double new = tanh(zx[2 * n + u] + (d->size[1] == 1 ? r * zh[2 * n + u] : late));
        y[u] = (1 - z) * new + z * (h != NULL ? h[u] : 0.0);
    }
    free(zx), free(zh), free(rh);
}

static inline void oracle_conv(oracle *o, int32_t i, int64_t newest, double *y) {
    const tf_node_desc *d = &o->net->nodes[i];
    const int32_t in = oracle_width(o, d->input[0]), channels = in / d->size[4], groups = d->size[3];
    const int32_t levels = (d->size[4] - d->size[5]) / d->size[6] + 1, out = d->width / levels;
    const int32_t k = d->size[5] * channels / groups;
    for (int32_t l = 0; l < levels; l++)
        for (int32_t c = 0; c < out; c++) {
            double sum = d->bias != NULL ? (double)d->bias[c] : 0.0;
            for (int32_t tap = 0; tap < d->size[0]; tap++) {
                const double *x = oracle_row(o, d->input[0], newest - (int64_t)tap * d->size[1]);
                if (x == NULL) continue;
                const int32_t first = groups > 1 ? c / (out / groups) * k : l * d->size[6] * channels;
                sum += oracle_dot(&d->w, d->format, (int64_t)tap * out + c, k, x + first, d->value[0]);
            }
            y[l * out + c] = sum;
        }
}

static inline double oracle_turned(const tf_node_desc *d, const double *row, int32_t dim, int32_t j, int64_t u) {
    if (d->size[3] != TF_POSITION_ROPE && d->size[3] != TF_POSITION_ROPE_INTERLEAVED) return row[j];
    const int interleaved = d->size[3] == TF_POSITION_ROPE_INTERLEAVED;
    const int32_t pair = interleaved ? j / 2 : j % (dim / 2), second = interleaved ? j % 2 : j / (dim / 2);
    const int32_t other = interleaved ? (second ? j - 1 : j + 1) : second ? j - dim / 2 : j + dim / 2;
    const double angle = (double)u * pow((double)d->value[4], -2.0 * pair / dim);
    return row[j] * cos(angle) + (second ? row[other] : -row[other]) * sin(angle);
}

static inline void oracle_attention(oracle *o, int32_t i, int64_t u, double *y) {
    const tf_node_desc *d = &o->net->nodes[i];
    const int32_t heads = d->size[0], group = heads / d->size[1], window = d->size[2];
    const int32_t dim = oracle_width(o, d->input[0]) / heads, value_dim = d->width / heads;
    double *p = calloc((size_t)window, sizeof *p);
    for (int32_t h = 0; h < heads; h++) {
        const double *q = oracle_row(o, d->input[0], u * o->period[i] / oracle_period(o, d->input[0])) + h * dim;
        const int64_t seen = u + 1 < window ? u + 1 : window;
        double top = -INFINITY, sum = 0;
        for (int64_t age = 0; age < seen; age++) {
            const int64_t at = (u - age) * o->period[i] / oracle_period(o, d->input[1]);
            const double *k = oracle_row(o, d->input[1], at) + h / group * dim;
            double score = 0;
            for (int32_t j = 0; j < dim; j++)
                score += oracle_enter(oracle_turned(d, q, dim, j, u), d->format, d->value[0]) *
                         oracle_enter(oracle_turned(d, k, dim, j, u - age), d->format, d->value[1]);
            const double slope = d->size[3] == TF_POSITION_ALIBI ? (double)d->extra[h] : 0.0;
            p[age] = score * (double)d->value[3] - slope * (double)age;
            top = p[age] > top ? p[age] : top;
        }
        for (int64_t age = 0; age < seen; age++) {
            p[age] = exp(p[age] - top);
            if (d->format == TF_FORMAT_I8) p[age] = nearbyint(255 * p[age]);
            sum += p[age];
        }
        for (int32_t j = 0; j < value_dim; j++) {
            double value = 0;
            for (int64_t age = 0; age < seen; age++) {
                const double *v = oracle_row(o, d->input[2], (u - age) * o->period[i] / oracle_period(o, d->input[2]));
                value += p[age] / sum * oracle_enter(v[h / group * value_dim + j], d->format, d->value[2]);
            }
            y[h * value_dim + j] = value;
        }
    }
    free(p);
}

static inline void oracle_norm(const tf_node_desc *d, const double *x, double *y) {
    const int32_t n = d->width;
    double mean = 0, square = 0;
    for (int32_t j = 0; j < n && d->size[0] == TF_NORM_LAYER; j++) mean += x[j] / n;
    for (int32_t j = 0; j < n; j++) square += (x[j] - mean) * (x[j] - mean) / n;
    for (int32_t j = 0; j < n; j++)
        y[j] = (x[j] - mean) / sqrt(square + (double)d->value[3]) * (double)d->extra[j] +
               (d->bias != NULL ? (double)d->bias[j] : 0.0);
}

static inline void oracle_pool(oracle *o, int32_t i, int64_t u, double *y) {
    const tf_node_desc *d = &o->net->nodes[i];
    const int64_t seen = u + 1 < d->size[0] ? u + 1 : d->size[0];
    for (int32_t j = 0; j < d->width; j++) {
        double value = d->size[1] == TF_POOL_MAX ? -INFINITY : 0.0;
        for (int64_t age = 0; age < seen; age++) {
            const double x = oracle_row(o, d->input[0], u - age)[j];
            value = d->size[1] != TF_POOL_MAX ? value + x : x > value ? x : value;
        }
        y[j] = d->size[1] != TF_POOL_MEAN ? value : value / (double)(d->size[2] == 1 ? seen : d->size[0]);
    }
}

/* One step: the answer [output width], which holds between two steps of a strided network. */
static inline const double *oracle_step(oracle *o, int32_t t, const float *x) {
    const tf_network *net = o->net;
    for (int32_t j = 0; j < net->input; j++) o->input[(int64_t)t * net->input + j] = (double)x[j];
    for (int32_t i = 0; i < net->count; i++) {
        const tf_node_desc *d = &net->nodes[i];
        if (t % o->period[i] != 0) continue;
        const int64_t u = t / o->period[i];
        double *y = o->row[i] + u * d->width;
        const double *in[TF_MAX_INPUTS] = {NULL}, *before = oracle_row(o, i, u - 1);
        for (int32_t j = 0; j < d->inputs; j++) in[j] = oracle_row(o, d->input[j], t / oracle_period(o, d->input[j]));
        const int32_t width = oracle_width(o, d->input[0]);
        switch (d->op) {
        case TF_OP_LSTM: oracle_lstm(o, i, in[0], before, y); break;
        case TF_OP_GRU: oracle_gru(o, i, in[0], before, y); break;
        case TF_OP_CONV: oracle_conv(o, i, t / oracle_period(o, d->input[0]), y); break;
        case TF_OP_ATTENTION: oracle_attention(o, i, u, y); break;
        case TF_OP_NORM: oracle_norm(d, in[0], y); break;
        case TF_OP_POOL: oracle_pool(o, i, u, y); break;
        case TF_OP_CONCAT:
            for (int32_t part = 0, at = 0; part < d->inputs; at += oracle_width(o, d->input[part]), part++)
                memcpy(y + at, in[part], (size_t)oracle_width(o, d->input[part]) * sizeof *y);
            break;
        default:
            for (int32_t j = 0; j < d->width; j++) {
                const double bias = d->bias != NULL ? (double)d->bias[j] : 0.0;
                switch (d->op) {
                case TF_OP_DENSE: y[j] = bias + oracle_dot(&d->w, d->format, j, width, in[0], d->value[0]); break;
                case TF_OP_AFFINE: y[j] = (double)d->extra[j] * in[0][j] + bias; break;
                case TF_OP_ADD: y[j] = in[0][j] + in[1][j]; break;
                case TF_OP_MUL: y[j] = in[0][j] * in[1][j]; break;
                case TF_OP_SLICE: y[j] = in[0][d->size[0] + j]; break;
                case TF_OP_POSITION:
                    y[j] = in[0][j] + (double)d->extra[(u < d->size[0] ? u : d->size[0] - 1) * d->width + j];
                    break;
                default: y[j] = in[0][j]; break; /* ACTIVATION */
                }
            }
        }
        oracle_activate(d, y);
    }
    return oracle_row(o, net->output, t / o->period[net->output]);
}

#endif
