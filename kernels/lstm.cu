// Fused LSTM step, batched over sessions. CUDA twin of the `lstm_step` row of csrc/kernels.def.
//
//     i, f, o = sigmoid(W x + R h + b)     g = tanh(W x + R h + b)
//     c' = f c + i g                       h' = o tanh(c')
//
// One block per session in a grid-stride loop, one thread per hidden unit. Weights are stored [input + hidden][4][H], so
// that the threads of a warp read consecutive floats and one pass over the row gives a thread its four gates. The input
// and the old hidden state wait in shared memory; the barrier before the update keeps h whole until all have read it.
#include "common.cuh"

extern "C" __global__ void tf_lstm_step_f32(const float *__restrict__ weights,  // [input + hidden][4][hidden], i f g o
                                            const float *__restrict__ bias,     // [4][hidden]
                                            const float *__restrict__ x,        // [sessions][input]
                                            float *__restrict__ h,              // [sessions][hidden], in and out
                                            float *__restrict__ c,              // [sessions][hidden], in and out
                                            int sessions, int input, int hidden) {
    TF_DYNAMIC_SHARED(float, row);  // x then h of this session
    const int width = input + hidden;
    for (int session = blockIdx.x; session < sessions; session += gridDim.x) {
        for (int k = threadIdx.x; k < width; k += blockDim.x) {
            row[k] = k < input ? x[session * input + k] : h[session * hidden + (k - input)];
        }
        __syncthreads();
        for (int unit = threadIdx.x; unit < hidden; unit += blockDim.x) {
            float zi = bias[unit];
            float zf = bias[hidden + unit];
            float zg = bias[2 * hidden + unit];
            float zo = bias[3 * hidden + unit];
            const float *w = weights + unit;
            for (int k = 0; k < width; ++k) {
                const float v = row[k];
                zi = fmaf(w[0], v, zi);
                zf = fmaf(w[hidden], v, zf);
                zg = fmaf(w[2 * hidden], v, zg);
                zo = fmaf(w[3 * hidden], v, zo);
                w += 4 * hidden;
            }
            const int at = session * hidden + unit;
            const float cell = tf::sigmoid(zf) * c[at] + tf::sigmoid(zi) * tanhf(zg);
            c[at] = cell;
            h[at] = tf::sigmoid(zo) * tanhf(cell);
        }
        // The next session of this block overwrites `row`.
        __syncthreads();
    }
}

#ifdef TF_HOST_SHIM
extern "C" const char *tf_host_lstm_step_f32(unsigned blocks, unsigned threads, const float *weights, const float *bias,
                                             const float *x, float *h, float *c, int sessions, int input, int hidden) {
    tf_shim::launch(dim3(blocks), dim3(threads), sizeof(float) * (input + hidden),
                    [=] { tf_lstm_step_f32(weights, bias, x, h, c, sessions, input, hidden); });
    return tf_shim::error();
}
#endif
