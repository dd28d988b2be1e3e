/* Row-major int8 weights to the packed layout of gemv_i8.h and lstm_i8.h. Runs at construction only. */
#include "gemv_i8.h"
#include "lstm_i8.h"

size_t tf_packed_i8(int32_t rows, int32_t k) {
    if (rows < 1 || k < 1 || k > TF_MOST_I8) return 0;
    return ((size_t)rows + 15) / 16 * 16 * (size_t)tf_up4(k);
}

void tf_pack_i8(const int8_t *w, int32_t rows, int32_t k, int32_t stride, int8_t *packed) {
    const int32_t groups = (rows + 15) / 16;
    for (int32_t first = 0, width; first < groups; first += width) {
        width = tf_panel_groups(groups - first);
        for (int32_t four = 0; four < k; four += 4)
            for (int32_t row = first * 16; row < (first + width) * 16; row++)
                for (int32_t column = four; column < four + 4; column++)
                    *packed++ = row < rows && column < k ? w[(size_t)row * (size_t)stride + (size_t)column] : 0;
    }
}

/* Row of the packed LSTM matrix -> row of [4H][k] (gates i, f, g, o), or -1 for padding. */
static int32_t lstm_row(int32_t row, int32_t hidden) {
    const int32_t unit = row / 64 * 16 + row % 16;
    return unit < hidden ? row / 16 % 4 * hidden + unit : -1;
}

void tf_pack_lstm_i8(const int8_t *w, int32_t hidden, int32_t k, int8_t *packed) {
    const int32_t groups = (hidden + 15) / 16 * 4;
    for (int32_t first = 0, width; first < groups; first += width) {
        width = tf_panel_groups(groups - first);
        for (int32_t four = 0; four < k; four += 4)
            for (int32_t row = first * 16; row < (first + width) * 16; row++)
                for (int32_t column = four; column < four + 4; column++) {
                    const int32_t from = lstm_row(row, hidden);
                    *packed++ = from >= 0 && column < k ? w[(size_t)from * (size_t)k + (size_t)column] : 0;
                }
    }
}

void tf_corr_i8(const int8_t *packed, int32_t rows, int32_t k, int32_t *corr) {
    const int32_t groups = (rows + 15) / 16;
    for (int32_t first = 0, width; first < groups; first += width) {
        width = tf_panel_groups(groups - first);
        for (int32_t lane = 0; lane < width * 16; lane++) corr[first * 16 + lane] = 0;
        for (int32_t four = 0; four < k; four += 4)
            for (int32_t lane = 0; lane < width * 16; lane++, packed += 4)
                corr[first * 16 + lane] -= 128 * (packed[0] + packed[1] + packed[2] + packed[3]);
    }
}

void tf_scale_i8(const float *scale, float activation, int32_t rows, float *packed) {
    for (int32_t row = 0; row < (rows + 15) / 16 * 16; row++) packed[row] = row < rows ? scale[row] * activation : 0.0f;
}

void tf_scale_lstm_i8(const float *scale, float activation, int32_t hidden, float *packed) {
    for (int32_t row = 0; row < (hidden + 15) / 16 * 64; row++) {
        const int32_t from = lstm_row(row, hidden);
        const double factor = row / 16 % 4 == 2 ? 2.0 * TF_LOG2E : -TF_LOG2E;
        packed[row] = from >= 0 ? (float)(factor * (double)scale[from] * (double)activation) : 0.0f;
    }
}
