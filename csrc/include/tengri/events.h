/* Market events as plain structs. Prices and sizes are double, times are UTC nanoseconds, slot numbers an
 * instrument. */
#ifndef TENGRI_EVENTS_H
#define TENGRI_EVENTS_H

#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tf_quote {
    double bid_price;
    double ask_price;
    double bid_size;
    double ask_size;
    uint64_t ts_event;
    uint64_t ts_init;
    uint32_t slot;
    uint32_t reserved;
} tf_quote;

typedef struct tf_trade {
    double price;
    double size;
    uint64_t ts_event;
    uint64_t ts_init;
    uint32_t slot;
    int32_t aggressor; /* +1 buyer, -1 seller, 0 unknown */
} tf_trade;

typedef struct tf_bar {
    double open;
    double high;
    double low;
    double close;
    double volume;
    uint64_t ts_event;
    uint64_t ts_init;
    uint32_t slot;
    uint32_t reserved;
} tf_bar;

#define TF_SLOT_UNKNOWN UINT32_C(0xffffffff) /* an instrument that is not registered */
#define TF_DEPTH_LEVELS 10

/* Best level first. Levels at and beyond `levels` are zero. */
typedef struct tf_depth10 {
    double bid_price[TF_DEPTH_LEVELS];
    double bid_size[TF_DEPTH_LEVELS];
    double ask_price[TF_DEPTH_LEVELS];
    double ask_size[TF_DEPTH_LEVELS];
    uint64_t ts_event;
    uint64_t ts_init;
    uint32_t slot;
    uint32_t levels;
} tf_depth10;

/* One change of an order book. With order ids (market by order) every order is a change of its own; without, a price
 * is. */
typedef enum tf_delta_action {
    TF_DELTA_ADD = 1,
    TF_DELTA_UPDATE = 2,
    TF_DELTA_DELETE = 3,
    TF_DELTA_CLEAR = 4
} tf_delta_action;

#define TF_FLAG_LAST 128u /* last change of one event: the book is whole again */
#define TF_FLAG_SNAPSHOT 32u /* the change belongs to a snapshot */

typedef struct tf_delta {
    double price;
    double size;
    uint64_t order_id; /* 0: none */
    uint64_t sequence; /* 0: none */
    uint64_t ts_event;
    uint64_t ts_init;
    uint32_t slot;
    uint8_t action; /* tf_delta_action */
    int8_t side; /* +1 bid, -1 ask, 0 none (clear) */
    uint8_t flags;
    uint8_t reserved;
} tf_delta;

#define TF_EXTERNAL_VALUES 4

/* An observation from outside the market. It exists from ts_event, the time of its publication, and not before.
 * value[0] is finite; the others may be NaN where there is none. `slot` is the plan's number of the source. */
typedef struct tf_external {
    double value[TF_EXTERNAL_VALUES];
    uint64_t ts_event;
    uint64_t ts_init;
    uint32_t slot;
    uint32_t reserved;
} tf_external;

/* A fixed-point number of scale 1e16 in 16 little-endian bytes, or of scale 1e9 in 8, to double. The integer is
 * rounded once (to nearest, ties to even) and then divided: that is what a cast from __int128 and a division give,
 * without the library call. Multiplying by 1e-16, or adding the two halves as doubles, differs in the last bit for
 * 12 % of values. */
static inline double tf_fixed128(const void *at) {
    uint64_t low, high;
    memcpy(&low, at, 8);
    memcpy(&high, (const char *)at + 8, 8);
    const int negative = (int64_t)high < 0;
    if (negative) {
        low = ~low + 1;
        high = ~high + (low == 0);
    }
    double value;
    if (high == 0) {
        value = (double)low;
    } else if (high >> 62) { /* 2^126 and more: the high word alone has bits enough to round once */
        value = (double)(high | (low != 0)) * 18446744073709551616.0;
    } else {
        const int shift = 65 - __builtin_clzll(high); /* 2..63: what is kept has 63 bits, a bit stands for the rest */
        const uint64_t kept = high << (64 - shift) | low >> shift;
        const uint64_t rest = low << (64 - shift);
        const uint64_t power = (uint64_t)(1023 + shift) << 52;
        double two_to_shift;
        memcpy(&two_to_shift, &power, 8);
        value = (double)(int64_t)(kept | (rest != 0)) * two_to_shift;
    }
    return (negative ? -value : value) / 1e16;
}

static inline double tf_fixed64(const void *at) {
    int64_t raw;
    memcpy(&raw, at, 8);
    return (double)raw / 1e9;
}

#ifdef __cplusplus
}
#endif
#endif
