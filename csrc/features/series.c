/* Clocks: samples of the event clock, and bars built from ticks (tf_clock_kind says when each closes).
 *
 * A bar in the making lies in tf_bar_state.bar; `ticks` counts the events that gave it a price. What is traded while
 * a bar of mids has no price yet counts for the bar that comes. Traded volume is summed per bar and starts at zero
 * in each, so it does not drift. */
#include <string.h>

#include "plan.h"

/* Imbalance bars: the threshold would run away (its expectations are made of the bars it makes), so both factors are
 * bounded: the expected number of trades between a quarter and four times the given one, |drift| at least this. */
#define DRIFT_FLOOR 0.1
#define BARS_RATE (2.0 / 21.0) /* expected trades per bar: exponential mean over about 20 bars */

static tf_bar_state *bar_of(const tf_features *f, uint32_t series) {
    return (tf_bar_state *)tf_at(f, f->bars_at) + series;
}

static const tf_series *series_of(const tf_features *f, uint32_t series) {
    return (const tf_series *)tf_at(f, f->series_at) + series;
}

void tf_series_reset(tf_features *f) {
    for (uint32_t i = 0; i < f->series; i++) {
        const tf_clock *clock = &series_of(f, i)->clock;
        if (clock->kind == TF_CLOCK_IMBALANCE) bar_of(f, i)->expected = clock->size;
    }
}

static int sample_sound(const tf_sample *s) {
    const double *x = &s->open;
    for (int i = 0; i < 9; i++) {
        if (!isfinite(x[i])) return 0;
    }
    return 1;
}

int tf_series_sound(const tf_features *f) {
    for (uint32_t i = 0; i < f->series; i++) {
        const tf_bar_state *b = bar_of(f, i);
        if (!sample_sound(&b->bar) || !sample_sound(&b->last)) return 0;
        if (!isfinite(b->imbalance) || !isfinite(b->expected) || !isfinite(b->drift)) return 0;
        if (!isfinite(b->last_price) || !isfinite(b->last_sign)) return 0;
    }
    return 1;
}

/* The sample goes out, machines and held columns of the clock see it, and an empty bar begins. */
static void close_bar(tf_features *f, uint32_t series) {
    const tf_series *s = series_of(f, series);
    tf_bar_state *b = bar_of(f, series);
    b->bar.previous = b->last.close;
    b->bar.count = b->last.count + 1;
    b->last = b->bar;
    memset(&b->bar, 0, sizeof b->bar);
    b->ticks = 0;
    tf_step(f, s->first_call, s->calls, &b->last);
    tf_hold(f, s->first_held, s->helds);
}

static void price(tf_bar_state *b, double open, double high, double low, double close) {
    if (b->ticks == 0) {
        b->bar.open = open;
        b->bar.high = high;
        b->bar.low = low;
    } else {
        if (high > b->bar.high) b->bar.high = high;
        if (low < b->bar.low) b->bar.low = low;
    }
    b->bar.close = close;
    b->ticks++;
}

/* First multiple of the size after `time`; the end of time where there is none. */
static uint64_t end_of(uint64_t time, double size) {
    const uint64_t span = (uint64_t)size, begin = time - time % span;
    return begin > UINT64_MAX - span ? UINT64_MAX : begin + span;
}

void tf_series_time(tf_features *f, int ended) {
    for (uint32_t i = 1; i < f->series; i++) {
        tf_bar_state *b = bar_of(f, i);
        if (series_of(f, i)->clock.kind != TF_CLOCK_TIME || b->ticks == 0 || f->clock < b->end) continue;
        if (!ended || f->clock > b->end) close_bar(f, i);
    }
}

void tf_series_book(tf_features *f, const tf_bar *bar) {
    const double mid = f->book.mid;
    tf_bar_state *tick = bar_of(f, 0);
    if (bar == NULL) {
        tick->bar.open = tick->bar.high = tick->bar.low = tick->bar.close = mid;
    } else { /* the bar's own volume is all that is known to have been traded */
        tick->bar = (tf_sample){.open = bar->open, .high = bar->high, .low = bar->low, .close = bar->close};
        tick->bar.volume = bar->volume;
        tick->bar.notional = bar->volume * ((bar->high + bar->low + bar->close) / 3.0);
    }
    close_bar(f, 0);
    for (uint32_t i = 1; i < f->series; i++) {
        const tf_clock *clock = &series_of(f, i)->clock;
        if (clock->trades || (clock->kind != TF_CLOCK_TIME && clock->kind != TF_CLOCK_TICKS)) continue;
        tf_bar_state *b = bar_of(f, i);
        const int timed = clock->kind == TF_CLOCK_TIME;
        /* A bar's time is its end: what it tells happened before. */
        if (b->ticks == 0 && timed) b->end = end_of(bar != NULL && f->clock > 0 ? f->clock - 1 : f->clock, clock->size);
        if (bar == NULL) {
            price(b, mid, mid, mid, mid);
        } else {
            price(b, bar->open, bar->high, bar->low, bar->close);
            b->bar.volume += bar->volume;
            b->bar.notional += bar->volume * ((bar->high + bar->low + bar->close) / 3.0);
        }
        if (timed ? bar != NULL && f->clock >= b->end : (double)b->ticks >= clock->size) close_bar(f, i);
    }
}

/* Sign of a trade: its aggressor, or where that is unknown the tick rule (the last change of price). */
static double sign_of(tf_bar_state *b, const tf_trade *trade) {
    if (b->last_price > 0.0 && trade->price != b->last_price) b->last_sign = trade->price > b->last_price ? 1.0 : -1.0;
    b->last_price = trade->price;
    return trade->aggressor != 0 ? trade->aggressor : b->last_sign;
}

static int imbalanced(tf_bar_state *b, const tf_trade *trade, double size) {
    const double sign = sign_of(b, trade);
    b->imbalance += sign;
    b->drift += 2.0 / (size + 1.0) * (sign - b->drift);
    if (fabs(b->imbalance) < b->expected * fmax(DRIFT_FLOOR, fabs(b->drift))) return 0;
    b->expected += BARS_RATE * ((double)b->ticks - b->expected);
    b->expected = fmin(4.0 * size, fmax(0.25 * size, b->expected));
    b->imbalance = 0.0;
    return 1;
}

void tf_series_trade(tf_features *f) {
    const tf_trade *trade = &f->trade;
    const double notional = trade->price * trade->size;
    for (uint32_t i = 0; i < f->series; i++) {
        const tf_clock *clock = &series_of(f, i)->clock;
        if (clock->kind == TF_CLOCK_BARS) continue;
        tf_bar_state *b = bar_of(f, i);
        b->bar.volume += trade->size;
        b->bar.notional += notional;
        if (trade->aggressor > 0) b->bar.bought += trade->size;
        if (trade->aggressor < 0) b->bar.sold += trade->size;
        b->bar.trades++;
        if (!clock->trades) continue;
        if (b->ticks == 0 && clock->kind == TF_CLOCK_TIME) b->end = end_of(f->clock, clock->size);
        price(b, trade->price, trade->price, trade->price, trade->price);
        int full = 0;
        switch (clock->kind) {
        case TF_CLOCK_TICKS: full = (double)b->ticks >= clock->size; break;
        case TF_CLOCK_VOLUME: full = b->bar.volume >= clock->size; break;
        case TF_CLOCK_NOTIONAL: full = b->bar.notional >= clock->size; break;
        case TF_CLOCK_IMBALANCE: full = imbalanced(b, trade, clock->size); break;
        default: break;
        }
        if (full) close_bar(f, i);
    }
}

void tf_series_bar(tf_features *f, const tf_bar *bar) {
    for (uint32_t i = 1; i < f->series; i++) {
        if (series_of(f, i)->clock.kind != TF_CLOCK_BARS) continue;
        tf_bar_state *b = bar_of(f, i);
        price(b, bar->open, bar->high, bar->low, bar->close);
        b->bar.volume = bar->volume;
        b->bar.notional = bar->volume * ((bar->high + bar->low + bar->close) / 3.0);
        close_bar(f, i);
    }
}
