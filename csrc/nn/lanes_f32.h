/* Sums over a row in a fixed order, the same on every instruction set: element i belongs to lane i mod 16 (softmax,
 * attention) or i mod 64 (norms), each lane is summed front to back, and the lanes are folded in halves, 32, 16, 8, 4,
 * 2, 1: lane j takes lane j + width. */
#ifndef TF_NN_LANES_F32_H
#define TF_NN_LANES_F32_H

/* `lanes` is 16 or 64; the sum is also left in values[0]. */
static inline float tf_fold_lanes_f32(float *values, int lanes) {
    for (int width = lanes / 2; width >= 1; width /= 2)
        for (int j = 0; j < width; j++) values[j] += values[j + width];
    return values[0];
}

#endif
