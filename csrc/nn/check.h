/* Rules for node descriptions, shared by check.c and model.c. */
#ifndef TF_NN_CHECK_H
#define TF_NN_CHECK_H

#include "plan.h"

enum {
    TF_MAX_WIDTH = 1 << 20, /* of a row, in floats */
    TF_MAX_PERIOD = 1 << 30
};

/* The shape of a CONV node, from its description and the width of its input. */
typedef struct tf_conv {
    int32_t taps, dilation, stride, levels, kernel, level_stride;
    int32_t in_channels, out_channels, out_levels;
    int32_t depthwise; /* one channel a group, in and out: element by element */
    /* The product of one tap: `count` slices, each rows x k; slice i reads x + i x_step and writes y + i y_step
     * (floats). Groups are merged until a slice fills whole vectors; the merged matrix is block diagonal. */
    int32_t count, rows, k, x_step, y_step, shared; /* shared: all slices have the same weights (levels) */
    int32_t group_rows, group_k;
} tf_conv;
void tf_conv_shape(const tf_plain *node, int32_t in_width, tf_conv *conv);

static inline int tf_is_integer(int32_t format) { return format == TF_FORMAT_I8 || format == TF_FORMAT_I8A16; }
static inline int32_t tf_width_of(const tf_plain *nodes, int32_t input, int32_t model_input) {
    return input == TF_MODEL_INPUT ? model_input : nodes[input].width;
}

void tf_plain_from_desc(const tf_node_desc *desc, tf_plain *plain);
/* Arrays that are there and finite; after tf_plain_check. */
tf_status tf_weights_check(const tf_network *network, const tf_plain *nodes, tf_fault *fault);

#endif
