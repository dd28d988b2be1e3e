#include "lanes_i8_avx512.h"

void tf_lstm_gates_i8_avx512(const float *z, float *c, float *h, int32_t blocks) {
    for (int32_t b = 0; b < blocks; b++, z += 64, c += 16, h += 16)
        _mm512_storeu_ps(h, tf_gates_i8_avx512(_mm512_loadu_ps(z), _mm512_loadu_ps(z + 16), _mm512_loadu_ps(z + 32),
                                               _mm512_loadu_ps(z + 48), c));
}
