#include "lanes_i8_avx2.h"

void tf_lstm_gates_i8_avx2(const float *z, float *c, float *h, int32_t blocks) {
    for (int32_t b = 0; b < blocks; b++, z += 64, c += 16, h += 16) {
        tf_gates_i8_avx2(z, c, h);
        tf_gates_i8_avx2(z + 8, c + 8, h + 8);
    }
}
