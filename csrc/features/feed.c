/* Events into the plan, rows out of it. Rules common to all columns are stated in tengri/features.h, those of one
 * column in its row of the table, the order of things in machine.h. Everything stays in double; float32 is the last
 * cast in emit. */
#include <float.h>
#include <string.h>

#include "plan.h"

static int price_fits(double x) { return x >= TF_VALUE_MIN && x <= TF_VALUE_MAX; } /* false for NaN */
static int size_fits(double x) { return x == 0.0 || price_fits(x); }

static int drop(uint64_t *counter) {
    (*counter)++;
    return 0;
}

/* --- columns --- */

static const tf_column *column_of(const tf_features *f, int32_t index) {
    return (const tf_column *)tf_at(f, f->columns_at) + index;
}

static const unsigned char *latched_of(const tf_features *f) { return tf_at(f, f->latched_at); }

int tf_features_ready_at(const tf_features *f, int32_t index) {
    const tf_column *c = column_of(f, index);
    if (latched_of(f)[index]) return 1;
    if (c->held != 0) return (int)((const tf_held *)tf_at(f, c->held))->ready;
    return tf_impl(c->spec.kind)->ready(f, c) != 0;
}

int tf_features_ready(const tf_features *f) { return f->all_ready; }

/* Asks the columns that still wait; whoever is ready is never asked again. */
static void note_ready(tf_features *f) {
    uint32_t *waiting = tf_at(f, f->waiting_at);
    unsigned char *latched = tf_at(f, f->latched_at);
    uint32_t left = 0;
    for (uint32_t i = 0; i < f->waiting; i++) {
        const uint32_t column = waiting[i];
        if (tf_features_ready_at(f, (int32_t)column)) latched[column] = 1;
        else waiting[left++] = column;
    }
    f->waiting = left;
    f->all_ready = left == 0;
}

static inline double value_of(const tf_features *f, const tf_column *c, int ready) {
    if (c->held != 0) return ((const tf_held *)tf_at(f, c->held))->value;
    const tf_feature_impl *impl = tf_impl(c->spec.kind);
    return ready || impl->ready(f, c) ? impl->value(f, c) : 0.0;
}

void tf_features_row(const tf_features *f, double *out) {
    const tf_column *c = column_of(f, 0);
    const unsigned char *latched = latched_of(f);
    for (int32_t i = 0; i < f->width; i++) out[i] = value_of(f, &c[i], latched[i]);
}

static inline float normalise(const tf_feature_spec *spec, double value, int *finite) {
    double x = (value - spec->mean) / spec->scale;
    if (spec->clip > 0.0) x = fmin(spec->clip, fmax(-spec->clip, x));
    if (!(fabs(x) <= FLT_MAX)) {
        *finite = 0;
        x = isnan(x) ? 0.0 : copysign(FLT_MAX, x);
    }
    return (float)x;
}

int tf_features_emit(const tf_features *f, float *out) {
    int finite = 1;
    const tf_column *c = column_of(f, 0);
    const unsigned char *latched = latched_of(f);
    for (int32_t i = 0; i < f->width; i++) out[i] = normalise(&c[i].spec, value_of(f, &c[i], latched[i]), &finite);
    return finite;
}

int tf_features_normalise(const tf_features *f, const double *row, float *out) {
    int finite = 1;
    const tf_column *c = column_of(f, 0);
    for (int32_t i = 0; i < f->width; i++) out[i] = normalise(&c[i].spec, row[i], &finite);
    return finite;
}

double tf_features_mid(const tf_features *f) { return f->book.mid; }
double tf_features_spread(const tf_features *f) { return f->book.ask - f->book.bid; }
void tf_features_counters(const tf_features *f, tf_feature_counters *out) { *out = f->counters; }

/* --- machinery --- */

void tf_step(tf_features *f, uint32_t first_call, uint32_t calls, const tf_sample *sample) {
    const uint32_t *call = (const uint32_t *)tf_at(f, f->calls_at) + first_call;
    const tf_machine *machines = tf_at(f, f->machines_at);
    for (uint32_t i = 0; i < calls; i++) {
        const tf_machine *m = &machines[call[i]];
        if (m->type >= TF_FEATURE_USER) tf_user_step(f, m, sample);
        else tf_types[m->type]->update(tf_at(f, m->offset), f, sample);
    }
}

static void hold(tf_features *f, const tf_column *c) {
    const tf_feature_impl *impl = tf_impl(c->spec.kind);
    if (!impl->ready(f, c)) return;
    double x = impl->value(f, c);
    int ready = 1;
    for (uint32_t i = 0; i < c->spec.stages; i++) {
        const tf_stage *stage = &c->spec.stage[i];
        const tf_stage_type *type = tf_stages[stage->kind];
        void *state = tf_at(f, c->stage[i]);
        x = type->push(state, stage->param, x, f);
        if (!type->ready(state, stage->param)) { /* a later stage sees only what the one before it means */
            ready = 0;
            break;
        }
    }
    tf_held *held = tf_at(f, c->held);
    held->value = ready ? x : 0.0;
    held->ready = (uint64_t)ready;
}

void tf_hold(tf_features *f, uint32_t first_held, uint32_t helds) {
    const uint32_t *number = (const uint32_t *)tf_at(f, f->helds_at) + first_held;
    for (uint32_t i = 0; i < helds; i++) hold(f, column_of(f, (int32_t)number[i]));
}

static void run_feed(tf_features *f, enum tf_feed feed) { tf_step(f, f->feed_call[feed], f->feed_calls[feed], NULL); }
static void hold_feed(tf_features *f, enum tf_feed feed) { tf_hold(f, f->feed_held[feed], f->feed_helds[feed]); }

/* Moves the clock (never back) and lets every time window lose what has become too old, whatever kind of event came.
 * `ended` as in tf_series_time. */
static void advance(tf_features *f, uint64_t time, int ended) {
    f->counters.accepted++;
    if (!f->started) {
        f->started = 1;
        f->first = f->clock = time;
        return;
    }
    if (time <= f->clock) return;
    f->clock = time;
    const uint32_t *call = (const uint32_t *)tf_at(f, f->calls_at) + f->expire_call;
    const tf_machine *machines = tf_at(f, f->machines_at);
    for (uint32_t i = 0; i < f->expire_calls; i++) {
        const tf_machine *m = &machines[call[i]];
        tf_types[m->type]->expire(tf_at(f, m->offset), time);
    }
    if (f->series > 1) tf_series_time(f, ended);
}

static int finish(tf_features *f) {
    if (!f->all_ready) note_ready(f);
    return 1;
}

/* --- events --- */

static void take_book(tf_features *f, double bid, double ask, double bid_size, double ask_size) {
    f->before = f->book;
    f->book = (tf_top){bid, ask, bid_size, ask_size, 0.5 * (bid + ask)};
    const double change = f->book.mid - f->before.mid;
    if (f->book_events++ == 0) {
        f->first_book = f->clock;
    } else if (change != 0.0) {
        f->move_sign = change > 0.0 ? 1.0 : -1.0;
        f->move_time = f->clock;
    }
}

static void run_book(tf_features *f, const tf_bar *bar) {
    run_feed(f, TF_FEED_BOOK);
    hold_feed(f, TF_FEED_BOOK);
    tf_series_book(f, bar);
}

int tf_features_on_quote(tf_features *f, const tf_quote *quote) {
    if (!price_fits(quote->bid_price) || !price_fits(quote->ask_price) || !size_fits(quote->bid_size) ||
        !size_fits(quote->ask_size))
        return drop(&f->counters.invalid);
    if (f->has_top && quote->ts_event < f->book_time) return drop(&f->counters.backward);
    if (quote->bid_price > quote->ask_price) return drop(&f->counters.crossed);
    advance(f, quote->ts_event, 0);
    f->has_top = 1;
    f->book_time = quote->ts_event;
    take_book(f, quote->bid_price, quote->ask_price, quote->bid_size, quote->ask_size);
    run_book(f, NULL);
    return finish(f);
}

/* How many levels one side has, or -1 if it is not a book: prices out of order, holes, values out of bounds. */
static int side_levels(const double *price, const double *size, uint32_t levels, double direction) {
    int count = 0;
    for (uint32_t i = 0; i < levels; i++) {
        if (price[i] == 0.0 && size[i] == 0.0) continue;
        if ((uint32_t)count != i || !price_fits(price[i]) || !size_fits(size[i])) return -1;
        if (i > 0 && (price[i] - price[i - 1]) * direction <= 0.0) return -1;
        count++;
    }
    return count;
}

int tf_features_on_depth(tf_features *f, const tf_depth10 *depth) {
    if (depth->levels < 1 || depth->levels > TF_DEPTH_LEVELS) return drop(&f->counters.invalid);
    const int bids = side_levels(depth->bid_price, depth->bid_size, depth->levels, -1.0);
    const int asks = side_levels(depth->ask_price, depth->ask_size, depth->levels, 1.0);
    if (bids < 1 || asks < 1) return drop(&f->counters.invalid);
    if (f->has_top && depth->ts_event < f->book_time) return drop(&f->counters.backward);
    if (depth->bid_price[0] > depth->ask_price[0]) return drop(&f->counters.crossed);
    advance(f, depth->ts_event, 0);
    f->has_top = 1;
    f->book_time = depth->ts_event;
    take_book(f, depth->bid_price[0], depth->ask_price[0], depth->bid_size[0], depth->ask_size[0]);
    f->depth_before = f->depth;
    f->depth_events++;
    memset(&f->depth, 0, sizeof f->depth); /* what stands beyond the given levels must not count */
    for (uint32_t i = 0; i < depth->levels; i++) {
        f->depth.bid_price[i] = depth->bid_price[i];
        f->depth.bid_size[i] = depth->bid_size[i];
        f->depth.ask_price[i] = depth->ask_price[i];
        f->depth.ask_size[i] = depth->ask_size[i];
    }
    f->depth.ts_event = depth->ts_event;
    f->depth.ts_init = depth->ts_init;
    f->depth.levels = depth->levels;
    run_feed(f, TF_FEED_DEPTH);
    hold_feed(f, TF_FEED_DEPTH);
    run_book(f, NULL);
    return finish(f);
}

int tf_features_on_trade(tf_features *f, const tf_trade *trade) {
    if (!price_fits(trade->price) || !price_fits(trade->size) || trade->aggressor < -1 || trade->aggressor > 1)
        return drop(&f->counters.invalid);
    if (f->trade_events > 0 && trade->ts_event < f->trade_time) return drop(&f->counters.backward);
    advance(f, trade->ts_event, 0);
    f->trade_time = trade->ts_event;
    f->trade_events++;
    f->trade = *trade;
    run_feed(f, TF_FEED_TRADE);
    hold_feed(f, TF_FEED_TRADE);
    tf_series_trade(f);
    return finish(f);
}

int tf_features_on_bar(tf_features *f, const tf_bar *bar) {
    if (!price_fits(bar->open) || !price_fits(bar->high) || !price_fits(bar->low) || !price_fits(bar->close) ||
        !size_fits(bar->volume) || bar->high < bar->low)
        return drop(&f->counters.invalid);
    if (f->has_bar && bar->ts_event < f->bar_time) return drop(&f->counters.backward);
    advance(f, bar->ts_event, !f->has_top);
    f->has_bar = 1;
    f->bar_time = bar->ts_event;
    if (!f->has_top) {
        take_book(f, bar->close, bar->close, 0.0, 0.0);
        run_book(f, bar);
    }
    if (f->series > 1) tf_series_bar(f, bar);
    return finish(f);
}

int tf_features_on_leg(tf_features *f, uint32_t leg, const tf_quote *quote) {
    if (leg >= f->legs || !price_fits(quote->bid_price) || !price_fits(quote->ask_price))
        return drop(&f->counters.invalid);
    tf_leg *l = (tf_leg *)tf_at(f, f->legs_at) + leg;
    if (l->count > 0 && quote->ts_event < l->time) return drop(&f->counters.backward);
    if (quote->bid_price > quote->ask_price) return drop(&f->counters.crossed);
    advance(f, quote->ts_event, 0);
    *l = (tf_leg){quote->bid_price, quote->ask_price, 0.5 * (quote->bid_price + quote->ask_price), quote->ts_event,
                  l->count + 1};
    return finish(f);
}

static int reads_source(const tf_column *c, uint32_t source) {
    const tf_feature_info *info = tf_feature_describe((int32_t)c->spec.kind);
    for (int i = 0; i < TF_FEATURE_PARAMS; i++) {
        if (info->param[i].type == TF_PARAM_SOURCE) return (uint32_t)c->spec.param[i] == source;
    }
    return 0;
}

int tf_features_on_external(tf_features *f, const tf_external *event) {
    if (event->slot >= f->sources || !(fabs(event->value[0]) <= TF_VALUE_MAX)) return drop(&f->counters.invalid);
    for (int i = 1; i < TF_EXTERNAL_VALUES; i++) { /* NaN: there is none */
        if (fabs(event->value[i]) > TF_VALUE_MAX) return drop(&f->counters.invalid);
    }
    tf_observation *o = (tf_observation *)tf_at(f, f->sources_at) + event->slot;
    if (o->count > 0 && event->ts_event < o->time) return drop(&f->counters.backward);
    advance(f, event->ts_event, 0);
    memcpy(o->value, event->value, sizeof o->value);
    o->time = event->ts_event;
    o->count++;
    f->external = *event;
    run_feed(f, TF_FEED_EXTERNAL);
    const uint32_t *number = (const uint32_t *)tf_at(f, f->helds_at) + f->feed_held[TF_FEED_EXTERNAL];
    for (uint32_t i = 0; i < f->feed_helds[TF_FEED_EXTERNAL]; i++) {
        const tf_column *c = column_of(f, (int32_t)number[i]);
        if (reads_source(c, event->slot)) hold(f, c);
    }
    return finish(f);
}
