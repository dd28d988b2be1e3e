/* What a network must be before anything is computed from it. Every rule is a sentence; the first broken one is
 * reported with its node. Descriptions may hold any bytes (they come from files too), so nothing is used before it was
 * bounded. */
#include "check.h"
#include "gemv_i8.h"

#include <math.h>
#include <string.h>

enum { MAX_TAPS = 1 << 16, MAX_SPAN = 1 << 20, MAX_HEADS = 1 << 12, MOST_MERGED = 4096 };

typedef struct verdict {
    tf_status status;
    const char *rule;
} verdict;

#define REQUIRE(condition, code, sentence)                                                                             \
    do {                                                                                                               \
        if (!(condition)) return (verdict){code, sentence};                                                            \
    } while (0)
#define PASSED ((verdict){TF_OK, NULL})

static int in_range(int32_t value, int32_t low, int32_t high) { return value >= low && value <= high; }
static int is_scale(float value) { return isfinite(value) && value > 0.0f && isfinite(1.0f / value); }

void tf_conv_shape(const tf_plain *node, int32_t in_width, tf_conv *conv) {
    const int32_t groups = node->size[3];
    memset(conv, 0, sizeof *conv);
    conv->taps = node->size[0];
    conv->dilation = node->size[1];
    conv->stride = node->size[2];
    conv->levels = node->size[4];
    conv->kernel = node->size[5];
    conv->level_stride = node->size[6];
    conv->in_channels = in_width / conv->levels;
    conv->out_levels = (conv->levels - conv->kernel) / conv->level_stride + 1;
    conv->out_channels = node->width / conv->out_levels;
    conv->group_rows = conv->out_channels / groups;
    conv->group_k = groups > 1 ? conv->in_channels / groups : conv->kernel * conv->in_channels;
    if (groups == 1) {
        conv->shared = 1;
        conv->count = conv->out_levels;
        conv->rows = conv->out_channels;
        conv->k = conv->group_k;
        conv->x_step = conv->level_stride * conv->in_channels;
        conv->y_step = conv->out_channels;
        return;
    }
    conv->depthwise = node->format == TF_FORMAT_F32 && conv->group_rows == 1 && conv->group_k == 1;
    int32_t merged = 1; /* a power of two, at most 16 */
    while (merged * (conv->group_rows % 16) % 16 != 0) merged *= 2;
    if (groups % merged != 0) merged = groups;
    conv->count = groups / merged;
    conv->rows = conv->y_step = merged * conv->group_rows;
    conv->k = conv->x_step = merged * conv->group_k;
}

static verdict check_activation(const tf_plain *node) {
    const int free_standing = node->op == TF_OP_DENSE || node->op == TF_OP_CONV || node->op == TF_OP_ADD ||
                              node->op == TF_OP_MUL || node->op == TF_OP_AFFINE || node->op == TF_OP_NORM ||
                              node->op == TF_OP_ACTIVATION;
    REQUIRE(in_range(node->activation, TF_ACT_NONE, TF_ACT_SILU), TF_ERR_ARGUMENT, "the activation is unknown");
    REQUIRE(node->activation == TF_ACT_NONE || free_standing, TF_ERR_ARGUMENT, "this operation takes no activation");
    if (node->activation == TF_ACT_SOFTMAX)
        REQUIRE(node->size[7] == 0 || (node->size[7] > 0 && node->width % node->size[7] == 0), TF_ERR_SHAPE,
                "size[7], the groups of softmax, must divide the width");
    if (node->activation == TF_ACT_LEAKY_RELU)
        REQUIRE(isfinite(node->value[7]), TF_ERR_NONFINITE, "value[7], the slope of leaky ReLU, must be finite");
    return PASSED;
}

static verdict check_scale(const tf_plain *node, int index, int32_t k) {
    if (!tf_is_integer(node->format)) return PASSED;
    REQUIRE(k <= TF_MOST_I8, TF_ERR_SHAPE, "int8 rows must have at most 65,536 columns");
    REQUIRE(is_scale(node->value[index]), TF_ERR_ARGUMENT, "scales of int8 inputs must be positive and finite");
    return PASSED;
}

static verdict check_recurrent(const tf_plain *node, int32_t width) {
    const int32_t hidden = node->size[0];
    REQUIRE(in_range(hidden, 1, TF_MAX_WIDTH), TF_ERR_SHAPE, "size[0], the units, must be in [1, 1,048,576]");
    const int projected = node->op == TF_OP_LSTM && (node->has & TF_HAS_PROJECTION);
    REQUIRE(projected || node->width == hidden, TF_ERR_SHAPE, "the width must equal size[0], the units");
    REQUIRE(node->op == TF_OP_LSTM || in_range(node->size[1], 0, 1), TF_ERR_ARGUMENT,
            "size[1], where the reset gate acts, must be 0 or 1");
    verdict v = check_scale(node, 0, width);
    if (v.status == TF_OK) v = check_scale(node, 1, node->width);
    if (v.status == TF_OK && projected) v = check_scale(node, 2, hidden);
    return v;
}

static verdict check_conv(const tf_plain *node, int32_t width) {
    const int32_t *size = node->size;
    REQUIRE(in_range(size[0], 1, MAX_TAPS), TF_ERR_SHAPE, "size[0], the taps, must be in [1, 65,536]");
    REQUIRE(in_range(size[1], 1, MAX_SPAN), TF_ERR_SHAPE, "size[1], the dilation, must be in [1, 1,048,576]");
    REQUIRE(in_range(size[2], 1, MAX_SPAN), TF_ERR_SHAPE, "size[2], the stride, must be in [1, 1,048,576]");
    REQUIRE(size[3] >= 1, TF_ERR_SHAPE, "size[3], the groups, must be at least 1");
    REQUIRE(size[4] >= 1 && width % size[4] == 0, TF_ERR_SHAPE, "size[4], the levels, must divide the input's width");
    REQUIRE(in_range(size[5], 1, size[4]), TF_ERR_SHAPE, "size[5], the level kernel, must be in [1, levels]");
    REQUIRE(in_range(size[6], 1, size[4]), TF_ERR_SHAPE, "size[6], the level stride, must be in [1, levels]");
    REQUIRE(size[3] == 1 || size[4] == 1, TF_ERR_SHAPE, "groups need a single level");
    const int32_t out_levels = (size[4] - size[5]) / size[6] + 1, channels = width / size[4];
    REQUIRE(node->width % out_levels == 0, TF_ERR_SHAPE, "the output levels must divide the width");
    REQUIRE(channels % size[3] == 0 && node->width / out_levels % size[3] == 0, TF_ERR_SHAPE,
            "the groups must divide the input's and the output's channels");
    tf_conv conv;
    tf_conv_shape(node, width, &conv);
    REQUIRE(size[3] == 1 || conv.depthwise || conv.count > 1 || conv.rows <= MOST_MERGED, TF_ERR_SHAPE,
            "beyond 4,096 channels the groups must come in numbers that fill 16 channels");
    return check_scale(node, 0, conv.k);
}

static verdict check_attention(const tf_plain *nodes, const tf_plain *node, int32_t input) {
    const int32_t heads = node->size[0], kv_heads = node->size[1], position = node->size[3];
    const int32_t q = tf_width_of(nodes, node->input[0], input), k = tf_width_of(nodes, node->input[1], input),
                  v = tf_width_of(nodes, node->input[2], input);
    REQUIRE(in_range(heads, 1, MAX_HEADS) && in_range(kv_heads, 1, MAX_HEADS), TF_ERR_SHAPE,
            "size[0] and size[1], the heads, must be in [1, 4,096]");
    REQUIRE(heads % kv_heads == 0, TF_ERR_SHAPE, "size[1], the key heads, must divide size[0], the heads");
    REQUIRE(q % heads == 0, TF_ERR_SHAPE, "the heads must divide the width of q");
    REQUIRE((int64_t)k == (int64_t)(q / heads) * kv_heads, TF_ERR_SHAPE, "k must have kv_heads * dim columns");
    REQUIRE(v % kv_heads == 0, TF_ERR_SHAPE, "the key heads must divide the width of v");
    REQUIRE((int64_t)node->width == (int64_t)(v / kv_heads) * heads, TF_ERR_SHAPE,
            "the width must be heads * value_dim");
    REQUIRE(in_range(node->size[2], 1, node->format == TF_FORMAT_I8 ? TF_MOST_I8 : MAX_SPAN), TF_ERR_SHAPE,
            "size[2], the window, must be in [1, 1,048,576], with int8 in [1, 65,536]");
    REQUIRE(in_range(position, TF_POSITION_NONE, TF_POSITION_ALIBI), TF_ERR_ARGUMENT,
            "size[3], the kind of positions, is unknown");
    const int rope = position == TF_POSITION_ROPE || position == TF_POSITION_ROPE_INTERLEAVED;
    REQUIRE(!rope || q / heads % 2 == 0, TF_ERR_SHAPE, "RoPE needs an even dim");
    REQUIRE(!rope || (isfinite(node->value[4]) && node->value[4] > 0.0f), TF_ERR_ARGUMENT,
            "value[4], the base of RoPE, must be positive and finite");
    REQUIRE(position != TF_POSITION_ALIBI || (node->has & TF_HAS_EXTRA), TF_ERR_ARGUMENT,
            "ALiBi needs its slopes in extra");
    REQUIRE(isfinite(node->value[3]), TF_ERR_NONFINITE, "value[3], the scale of scores, must be finite");
    verdict result = check_scale(node, 0, q / heads);
    if (result.status == TF_OK) result = check_scale(node, 1, q / heads);
    if (result.status == TF_OK) result = check_scale(node, 2, v / kv_heads);
    if (result.status == TF_OK && node->format == TF_FORMAT_I8) {
        const double score = (double)node->value[0] * (double)node->value[1] * fabs((double)node->value[3]);
        REQUIRE(score <= 1e37 && (score >= 1e-37 || !(score > 0.0)), TF_ERR_ARGUMENT,
                "scales of int8 queries, keys and scores must have a product that float32 can hold");
    }
    return result;
}

static verdict check_rest(const tf_plain *nodes, const tf_plain *node, int32_t input, int32_t width) {
    switch (node->op) {
    case TF_OP_DENSE: return check_scale(node, 0, width);
    case TF_OP_NORM:
        REQUIRE(in_range(node->size[0], TF_NORM_LAYER, TF_NORM_RMS), TF_ERR_ARGUMENT,
                "size[0], the kind of norm, is unknown");
        REQUIRE(isfinite(node->value[3]) && node->value[3] >= 0.0f, TF_ERR_ARGUMENT,
                "value[3], epsilon, must be finite and not negative");
        REQUIRE(node->has & TF_HAS_EXTRA, TF_ERR_ARGUMENT, "gamma is missing in extra");
        break;
    case TF_OP_AFFINE: REQUIRE(node->has & TF_HAS_EXTRA, TF_ERR_ARGUMENT, "the factors are missing in extra"); break;
    case TF_OP_POOL:
        REQUIRE(in_range(node->size[0], 1, MAX_SPAN), TF_ERR_SHAPE, "size[0], the window, must be in [1, 1,048,576]");
        REQUIRE(in_range(node->size[1], TF_POOL_MEAN, TF_POOL_SUM), TF_ERR_ARGUMENT,
                "size[1], the kind of pooling, is unknown");
        REQUIRE(in_range(node->size[2], 0, 1), TF_ERR_ARGUMENT, "size[2], what the mean divides by, must be 0 or 1");
        break;
    case TF_OP_POSITION:
        REQUIRE(in_range(node->size[0], 1, MAX_SPAN), TF_ERR_SHAPE, "size[0], the rows, must be in [1, 1,048,576]");
        REQUIRE(node->has & TF_HAS_EXTRA, TF_ERR_ARGUMENT, "the positions are missing in extra");
        break;
    case TF_OP_SLICE:
        REQUIRE(node->size[0] >= 0 && (int64_t)node->size[0] + node->width <= width, TF_ERR_SHAPE,
                "the slice must lie inside its input");
        return PASSED;
    case TF_OP_CONCAT: {
        int64_t sum = 0;
        for (int32_t i = 0; i < node->inputs; i++) sum += tf_width_of(nodes, node->input[i], input);
        REQUIRE(sum == node->width, TF_ERR_SHAPE, "the width must be the sum of the inputs' widths");
        return PASSED;
    }
    case TF_OP_ADD:
    case TF_OP_MUL:
        REQUIRE(tf_width_of(nodes, node->input[1], input) == width, TF_ERR_SHAPE, "both inputs must be equally wide");
        break;
    default: break;
    }
    REQUIRE(node->width == width, TF_ERR_SHAPE, "the width must be that of the input");
    return PASSED;
}

static verdict check_node(const tf_plain *nodes, int32_t index, int32_t input) {
    const tf_plain *node = &nodes[index];
    REQUIRE(in_range(node->op, TF_OP_LSTM, TF_OP_POSITION), TF_ERR_ARGUMENT, "the operation is unknown");
    REQUIRE(in_range(node->format, TF_FORMAT_F32, TF_FORMAT_I8A16), TF_ERR_ARGUMENT, "the format is unknown");
    REQUIRE(node->has < 16, TF_ERR_ARGUMENT, "unknown flags are set");
    REQUIRE(in_range(node->width, 1, TF_MAX_WIDTH), TF_ERR_SHAPE, "the width must be in [1, 1,048,576]");
    const int32_t least = node->op == TF_OP_ATTENTION                           ? 3
                          : node->op == TF_OP_ADD || node->op == TF_OP_MUL ? 2
                                                                            : 1;
    const int32_t most = node->op == TF_OP_CONCAT ? TF_MAX_INPUTS : least;
    REQUIRE(in_range(node->inputs, least, most), TF_ERR_ARGUMENT, "the number of inputs is not that of the operation");
    for (int32_t i = 0; i < node->inputs; i++)
        REQUIRE(in_range(node->input[i], TF_MODEL_INPUT, index - 1), TF_ERR_ARGUMENT,
                "inputs must be the model's input or earlier nodes");
    const int weighted = node->op == TF_OP_LSTM || node->op == TF_OP_GRU || node->op == TF_OP_DENSE ||
                         node->op == TF_OP_CONV || (node->op == TF_OP_ATTENTION && node->format == TF_FORMAT_I8);
    REQUIRE(weighted || node->format == TF_FORMAT_F32, TF_ERR_ARGUMENT, "this operation has no such format");
    const verdict v = check_activation(node);
    if (v.status != TF_OK) return v;
    const int32_t width = tf_width_of(nodes, node->input[0], input);
    switch (node->op) {
    case TF_OP_LSTM:
    case TF_OP_GRU: return check_recurrent(node, width);
    case TF_OP_CONV: return check_conv(node, width);
    case TF_OP_ATTENTION: return check_attention(nodes, node, input);
    default: return check_rest(nodes, node, input, width);
    }
}

static tf_status report(tf_fault *fault, int32_t node, verdict v) {
    if (fault != NULL) *fault = (tf_fault){node, v.rule};
    return v.status;
}

tf_status tf_plain_check(const tf_plain *nodes, int32_t count, int32_t input, int32_t output, tf_fault *fault) {
    if (fault != NULL) *fault = (tf_fault){-1, ""};
    if (count < 1 || count > TF_MAX_NODES)
        return report(fault, -1, (verdict){TF_ERR_ARGUMENT, "a network has 1 to 1,024 nodes"});
    if (input < 1 || input > TF_MAX_WIDTH)
        return report(fault, -1, (verdict){TF_ERR_SHAPE, "the input's width must be in [1, 1,048,576]"});
    if (output < 0 || output >= count)
        return report(fault, -1, (verdict){TF_ERR_ARGUMENT, "the output must be one of the nodes"});
    for (int32_t i = 0; i < count; i++) {
        const verdict v = check_node(nodes, i, input);
        if (v.status != TF_OK) return report(fault, i, v);
    }
    return TF_OK;
}

void tf_plain_from_desc(const tf_node_desc *desc, tf_plain *plain) {
    memset(plain, 0, sizeof *plain);
    plain->op = desc->op;
    plain->format = desc->format;
    plain->activation = desc->activation;
    plain->width = desc->width;
    plain->inputs = desc->inputs;
    memcpy(plain->input, desc->input, sizeof plain->input);
    memcpy(plain->size, desc->size, sizeof plain->size);
    memcpy(plain->value, desc->value, sizeof plain->value);
    plain->has = (desc->bias != NULL ? TF_HAS_BIAS : 0u) | (desc->rbias != NULL ? TF_HAS_RBIAS : 0u) |
                 (desc->extra != NULL ? TF_HAS_EXTRA : 0u) | (desc->p.data != NULL ? TF_HAS_PROJECTION : 0u);
}

static verdict check_matrix(const tf_matrix *matrix, int32_t format, size_t rows, size_t k) {
    REQUIRE(matrix->data != NULL, TF_ERR_ARGUMENT, "a weight matrix is missing");
    if (!tf_is_integer(format)) {
        const float *w = matrix->data;
        for (size_t i = 0; i < rows * k; i++) REQUIRE(isfinite(w[i]), TF_ERR_NONFINITE, "weights must be finite");
        return PASSED;
    }
    const int8_t *w = matrix->data;
    REQUIRE(matrix->scale != NULL, TF_ERR_ARGUMENT, "int8 weights need a scale per row");
    for (size_t i = 0; i < rows; i++)
        REQUIRE(is_scale(matrix->scale[i]), TF_ERR_ARGUMENT, "scales of int8 weights must be positive and finite");
    for (size_t i = 0; i < rows * k; i++)
        REQUIRE(w[i] >= -127, TF_ERR_ARGUMENT, "int8 weights must lie in [-127, 127]");
    return PASSED;
}

static verdict check_vector(const float *values, size_t n) {
    if (values != NULL)
        for (size_t i = 0; i < n; i++) REQUIRE(isfinite(values[i]), TF_ERR_NONFINITE, "weights must be finite");
    return PASSED;
}

static verdict check_arrays(const tf_node_desc *desc, const tf_plain *nodes, int32_t input) {
    const size_t width = (size_t)desc->width, units = (size_t)desc->size[0],
                 in = (size_t)tf_width_of(nodes, desc->input[0], input);
    verdict v = PASSED;
    size_t bias = width;
    if (desc->op == TF_OP_LSTM || desc->op == TF_OP_GRU) {
        const size_t rows = (desc->op == TF_OP_LSTM ? 4u : 3u) * units;
        v = check_matrix(&desc->w, desc->format, rows, in);
        if (v.status == TF_OK) v = check_matrix(&desc->r, desc->format, rows, width);
        if (v.status == TF_OK && desc->op == TF_OP_LSTM && desc->p.data != NULL)
            v = check_matrix(&desc->p, desc->format, width, units);
        if (v.status == TF_OK && desc->op == TF_OP_GRU) v = check_vector(desc->rbias, rows);
        bias = rows;
    } else if (desc->op == TF_OP_DENSE) {
        v = check_matrix(&desc->w, desc->format, width, in);
    } else if (desc->op == TF_OP_CONV) {
        tf_plain plain;
        tf_conv conv;
        tf_plain_from_desc(desc, &plain);
        tf_conv_shape(&plain, (int32_t)in, &conv);
        v = check_matrix(&desc->w, desc->format, (size_t)conv.taps * (size_t)conv.out_channels, (size_t)conv.group_k);
        bias = (size_t)conv.out_channels;
    }
    if (v.status == TF_OK) v = check_vector(desc->bias, bias);
    if (v.status != TF_OK || desc->extra == NULL) return v;
    switch (desc->op) {
    case TF_OP_ATTENTION: return check_vector(desc->extra, desc->size[3] == TF_POSITION_ALIBI ? units : 0);
    case TF_OP_NORM:
    case TF_OP_AFFINE: return check_vector(desc->extra, width);
    case TF_OP_POSITION: return check_vector(desc->extra, width * units);
    default: return v;
    }
}

tf_status tf_weights_check(const tf_network *network, const tf_plain *nodes, tf_fault *fault) {
    for (int32_t i = 0; i < network->count; i++) {
        const verdict v = check_arrays(&network->nodes[i], nodes, network->input);
        if (v.status != TF_OK) return report(fault, i, v);
    }
    return TF_OK;
}
