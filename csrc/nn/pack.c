/* Row-major weights to the packed layout of gemv_f32.h and lstm_f32.h. Runs at construction only. */
#include "exp2_f32.h"
#include "gemv_f32.h"
#include "lstm_f32.h"

size_t tf_packed_floats(int32_t rows, int32_t k) { return (size_t)(rows + 15) / 16 * 16 * (size_t)k; }

void tf_pack_f32(const float *w, int32_t rows, int32_t k, int32_t stride, float *packed) {
    const int32_t groups = (rows + 15) / 16;
    for (int32_t first = 0; first < groups;) {
        const int32_t width = tf_panel_groups(groups - first);
        for (int32_t column = 0; column < k; column++)
            for (int32_t lane = 0; lane < width * 16; lane++) {
                const int32_t row = first * 16 + lane;
                *packed++ = row < rows ? w[(size_t)row * (size_t)stride + (size_t)column] : 0.0f;
            }
        first += width;
    }
}

void tf_pack_lstm_f32(const float *w, int32_t hidden, int32_t k, float *packed) {
    const int32_t blocks = (hidden + 15) / 16, groups = 4 * blocks;
    for (int32_t first = 0; first < groups;) {
        const int32_t width = tf_panel_groups(groups - first);
        for (int32_t column = 0; column < k; column++)
            for (int32_t lane = 0; lane < width * 16; lane++) {
                const int32_t group = first + lane / 16, gate = group % 4;
                const int32_t unit = group / 4 * 16 + lane % 16;
                const double scale = gate == 2 ? 2.0 * TF_LOG2E : -TF_LOG2E; /* see lstm_f32.h */
                const size_t row = (size_t)gate * (size_t)hidden + (size_t)unit;
                *packed++ = unit < hidden ? (float)(scale * (double)w[row * (size_t)k + (size_t)column]) : 0.0f;
            }
        first += width;
    }
}
