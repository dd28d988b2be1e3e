/* Which side started a trade. What the venue says counts. Where it says nothing, Lee and Ready (1991): a trade above
 * the mid of the book before it is a buy, below it a sell, and at the mid, or without a book, the tick test decides:
 * above the price before a buy, below it a sell, at the same price the side of the last change. They lag quotes by five
 * seconds for the reporting delays of 1988; event times need no lag. 0 while nothing tells. */
#ifndef TENGRI_FEATURES_TRADE_SIDE_H
#define TENGRI_FEATURES_TRADE_SIDE_H

#include "machine.h"

typedef struct tf_tick_test {
    double price; /* of the trade before; 0: none */
    double direction; /* of the last change of price */
} tf_tick_test;

static inline double trade_side(tf_tick_test *test, const tf_features *f, int infer) {
    const double price = f->trade.price;
    if (test->price > 0.0 && price != test->price) test->direction = price > test->price ? 1.0 : -1.0;
    test->price = price;
    if (f->trade.aggressor != 0) return (double)f->trade.aggressor;
    if (!infer) return 0.0;
    if (f->has_top && price != f->book.mid) return price > f->book.mid ? 1.0 : -1.0;
    return test->direction;
}

static inline int tick_test_sound(const tf_tick_test *test) {
    return isfinite(test->price) && isfinite(test->direction);
}

#endif
