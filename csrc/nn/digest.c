/* A 64-bit digest of a model: fast enough to check every byte of a file whenever it is opened.
 *
 * Sixteen lanes take 64-bit words in turn, h = (rotate(h, 23) ^ word) * P with an odd constant P. For a fixed h this
 * maps words one to one and for a fixed word it maps h one to one, so a change within one word always changes its lane,
 * and lanes are combined by the same one-to-one step: no single damaged word goes unnoticed; anything else passes with
 * probability 2^-64. Sixteen independent multiplications hide each other's latency (three cycles), which leaves memory
 * as the limit. The last step is the finaliser of SplitMix64 (Steele, Lea & Flood 2014). It guards against accidents
 * and stale files, not against forgers. Words are little endian. */
#include "plan.h"

#include <string.h>

enum { LANES = 16 };
#define PRIME UINT64_C(0x9E3779B97F4A7C15)

static uint64_t step(uint64_t h, uint64_t word) { return (((h << 23) | (h >> 41)) ^ word) * PRIME; }

static uint64_t load(const unsigned char *p) {
    uint64_t word;
    memcpy(&word, p, sizeof word);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

uint64_t tf_digest(uint64_t seed, const void *data, size_t bytes) {
    const unsigned char *p = data;
    uint64_t lane[LANES];
    for (int i = 0; i < LANES; i++) lane[i] = step(seed, (uint64_t)i);
    size_t left = bytes;
    for (; left >= LANES * 8; left -= LANES * 8, p += LANES * 8)
        for (int i = 0; i < LANES; i++) lane[i] = step(lane[i], load(p + i * 8));
    uint64_t h = step(seed, (uint64_t)bytes);
    for (int i = 0; i < LANES; i++) h = step(h, lane[i]);
    for (; left >= 8; left -= 8, p += 8) h = step(h, load(p));
    if (left > 0) {
        unsigned char last[8] = {0};
        memcpy(last, p, left);
        h = step(h, load(last));
    }
    h = (h ^ (h >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    h = (h ^ (h >> 27)) * UINT64_C(0x94D049BB133111EB);
    return h ^ (h >> 31);
}

uint64_t tf_model_digest(const tf_plain *nodes, int32_t count, int32_t input, int32_t output, const void *weights,
                         size_t weight_bytes) {
    const int32_t shape[3] = {count, input, output};
    uint64_t h = tf_digest(1, shape, sizeof shape);
    h = tf_digest(h, nodes, (size_t)count * sizeof *nodes);
    return tf_digest(h, weights, weight_bytes);
}
