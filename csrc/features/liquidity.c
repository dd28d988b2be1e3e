/* What the book holds: one machine per view of the ladder, stepped at depth events and read for nothing in between.
 *
 * Distances are measured from the mid in bps, so that a ladder at 65,000 and one at 1e-12 are alike. A level that is
 * absent has size 0 and counts nowhere. The values hold between depth events.
 *
 *   weighted mid          Gatheral and Oomen (2010); each side may stand at its volume-weighted price
 *   weights by distance   Cao, Hansch and Wang (2009) weight by step of the ladder; here scale / (scale + distance)
 *   slope                 Kalay et al. (2004): cumulated size against price; Naes and Skjeltorp (2006) on its
 *                         use. Least squares through the mid: sum(x Q) / sum(x^2), x the distance and Q the cumulated
 *                         size of each level */
#include "machine.h"

/* --- the mid and the queues: no state --- */

static int book_ready(const tf_features *f, const tf_column *c) {
    (void)c;
    return f->book_events >= 1;
}

static int depth_ready(const tf_features *f, const tf_column *c) {
    (void)c;
    return f->depth_events >= 1;
}

static void one_event(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    (void)param;
    *samples = 1;
    *nanoseconds = 0;
}

static double mid_value(const tf_features *f, const tf_column *c) {
    (void)c;
    return f->book.mid;
}

static double microprice_value(const tf_features *f, const tf_column *c) {
    (void)c;
    return f->book.mid + 0.5 * (f->book.ask - f->book.bid) * tf_share(f->book.bid_size, f->book.ask_size);
}

static double queue_imbalance_value(const tf_features *f, const tf_column *c) {
    const int level = (int)c->spec.param[0] - 1;
    return tf_share(f->depth.bid_size[level], f->depth.ask_size[level]);
}

const tf_feature_impl tf_feature_MID = {TF_FEED_BOOK, NULL, NULL, one_event, book_ready, mid_value};
const tf_feature_impl tf_feature_MICROPRICE = {TF_FEED_BOOK, NULL, NULL, one_event, book_ready, microprice_value};
const tf_feature_impl tf_feature_QUEUE_IMBALANCE = {TF_FEED_DEPTH, NULL,        NULL,
                                                    one_event,     depth_ready, queue_imbalance_value};

/* --- two numbers per ladder: what a machine of depth keeps --- */

typedef struct ladder_state {
    double bid;
    double ask;
} ladder_state;

static int ladder_sound(const void *state, const double *param) {
    (void)param;
    const ladder_state *s = state;
    return isfinite(s->bid) && isfinite(s->ask);
}

/* `side` is 1 for bids, -1 for asks, 0 for both. */
static double ladder_total(const ladder_state *s, double side) {
    return side > 0.0 ? s->bid : side < 0.0 ? s->ask : s->bid + s->ask;
}

static double ladder_logged(const ladder_state *s, double side, double logged) {
    const double total = ladder_total(s, side);
    return logged != 0.0 ? log1p(total) : total;
}

/* The machines do not know their parameters at an update: those that need one keep it in front of the two numbers. */
typedef struct tuned_state {
    ladder_state ladder;
    double param;
} tuned_state;

static size_t tuned_bytes(const double *param) {
    (void)param;
    return sizeof(tuned_state);
}

static void tuned_reset(void *state, const double *param) {
    *(tuned_state *)state = (tuned_state){{0.0, 0.0}, param[0]};
}

static int tuned_sound(const void *state, const double *param) {
    const tuned_state *s = state;
    return ladder_sound(state, param) && s->param == param[0];
}

/* --- size to a number of levels --- */

static void depth_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    tuned_state *s = state;
    const int levels = (int)s->param;
    double bid = 0.0, ask = 0.0;
    for (int i = 0; i < levels; i++) {
        bid += f->depth.bid_size[i];
        ask += f->depth.ask_size[i];
    }
    s->ladder = (ladder_state){bid, ask};
}

const tf_machine_type tf_machine_LADDER_DEPTH = {.name = "ladder_depth",
                                                 .feed = TF_FEED_DEPTH,
                                                 .bytes = tuned_bytes,
                                                 .reset = tuned_reset,
                                                 .update = depth_update,
                                                 .sound = tuned_sound};

static int32_t depth_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_LADDER_DEPTH, {param[0]}};
    return 1;
}

static double depth_value(const tf_features *f, const tf_column *c) {
    return ladder_logged(tf_state(f, c, 0), c->spec.param[1], c->spec.param[2]);
}

const tf_feature_impl tf_feature_DEPTH = {TF_FEED_DEPTH, NULL, depth_machines, one_event, depth_ready, depth_value};

/* --- size within a distance of the mid --- */

static void band_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    tuned_state *s = state;
    const double mid = f->book.mid, reach = s->param / TF_BPS * mid;
    double bid = 0.0, ask = 0.0;
    for (int i = 0; i < TF_DEPTH_LEVELS; i++) { /* an absent level adds its size of zero */
        if (mid - f->depth.bid_price[i] <= reach) bid += f->depth.bid_size[i];
        if (f->depth.ask_price[i] - mid <= reach) ask += f->depth.ask_size[i];
    }
    s->ladder = (ladder_state){bid, ask};
}

const tf_machine_type tf_machine_LADDER_BAND = {.name = "ladder_band",
                                                .feed = TF_FEED_DEPTH,
                                                .bytes = tuned_bytes,
                                                .reset = tuned_reset,
                                                .update = band_update,
                                                .sound = tuned_sound};

static int32_t band_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_LADDER_BAND, {param[0]}};
    return 1;
}

static double band_imbalance_value(const tf_features *f, const tf_column *c) {
    const ladder_state *s = tf_state(f, c, 0);
    return tf_share(s->bid, s->ask);
}

const tf_feature_impl tf_feature_DEPTH_WITHIN = {TF_FEED_DEPTH, NULL,        band_machines,
                                                 one_event,     depth_ready, depth_value};
const tf_feature_impl tf_feature_IMBALANCE_WITHIN = {TF_FEED_DEPTH, NULL,        band_machines,
                                                     one_event,     depth_ready, band_imbalance_value};

/* --- weights by distance --- */

static void pressure_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    tuned_state *s = state;
    const double mid = f->book.mid, scale = s->param / TF_BPS * mid;
    double bid = 0.0, ask = 0.0;
    for (int i = 0; i < TF_DEPTH_LEVELS; i++) {
        bid += f->depth.bid_size[i] * (scale / (scale + (mid - f->depth.bid_price[i])));
        if (f->depth.ask_price[i] > 0.0)
            ask += f->depth.ask_size[i] * (scale / (scale + (f->depth.ask_price[i] - mid)));
    }
    s->ladder = (ladder_state){bid, ask};
}

const tf_machine_type tf_machine_LADDER_PRESSURE = {.name = "ladder_pressure",
                                                    .feed = TF_FEED_DEPTH,
                                                    .bytes = tuned_bytes,
                                                    .reset = tuned_reset,
                                                    .update = pressure_update,
                                                    .sound = tuned_sound};

static int32_t pressure_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_LADDER_PRESSURE, {param[0]}};
    return 1;
}

const tf_feature_impl tf_feature_BOOK_PRESSURE = {TF_FEED_DEPTH, NULL,        pressure_machines,
                                                  one_event,     depth_ready, band_imbalance_value};

/* --- slope --- */

static double slope_side(const double *price, const double *size, int levels, double mid, double direction) {
    const double per_bps = direction * TF_BPS / mid;
    double cumulated = 0.0, product = 0.0, square = 0.0;
    for (int i = 0; i < levels && price[i] > 0.0; i++) {
        const double x = (price[i] - mid) * per_bps;
        cumulated += size[i];
        product += x * cumulated;
        square += x * x;
    }
    return square > 0.0 ? product / square : 0.0;
}

static void slope_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    tuned_state *s = state;
    const int levels = (int)s->param;
    s->ladder.bid = slope_side(f->depth.bid_price, f->depth.bid_size, levels, f->book.mid, -1.0);
    s->ladder.ask = slope_side(f->depth.ask_price, f->depth.ask_size, levels, f->book.mid, 1.0);
}

const tf_machine_type tf_machine_LADDER_SLOPE = {.name = "ladder_slope",
                                                 .feed = TF_FEED_DEPTH,
                                                 .bytes = tuned_bytes,
                                                 .reset = tuned_reset,
                                                 .update = slope_update,
                                                 .sound = tuned_sound};

static int32_t slope_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_LADDER_SLOPE, {param[0]}};
    return 1;
}

static double slope_value(const tf_features *f, const tf_column *c) {
    const ladder_state *s = tf_state(f, c, 0);
    const double side = c->spec.param[1];
    const double slope = side == 0.0 ? 0.5 * (s->bid + s->ask) : ladder_total(s, side);
    return c->spec.param[2] != 0.0 ? log1p(slope) : slope;
}

const tf_feature_impl tf_feature_BOOK_SLOPE = {TF_FEED_DEPTH, NULL,        slope_machines,
                                               one_event,     depth_ready, slope_value};
const tf_feature_impl tf_feature_BOOK_SLOPE_IMBALANCE = {TF_FEED_DEPTH, NULL,        slope_machines,
                                                         one_event,     depth_ready, band_imbalance_value};

/* --- weighted mid of several levels --- */

typedef struct depth_price_state {
    double value; /* bps from the mid */
    double levels;
} depth_price_state;

static size_t depth_price_bytes(const double *param) {
    (void)param;
    return sizeof(depth_price_state);
}

static void depth_price_reset(void *state, const double *param) {
    *(depth_price_state *)state = (depth_price_state){0.0, param[0]};
}

/* Offsets from the mid are what is averaged: prices of 65,000 would leave no digits. */
static void depth_price_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    depth_price_state *s = state;
    const double mid = f->book.mid;
    const int levels = (int)s->levels;
    double bid = 0.0, ask = 0.0, bid_offset = 0.0, ask_offset = 0.0;
    for (int i = 0; i < levels; i++) {
        bid += f->depth.bid_size[i];
        ask += f->depth.ask_size[i];
        bid_offset += f->depth.bid_size[i] * (f->depth.bid_price[i] - mid);
        ask_offset += f->depth.ask_size[i] * (f->depth.ask_price[i] - mid);
    }
    s->value = 0.0;
    if (bid > 0.0 && ask > 0.0)
        s->value = TF_BPS / mid * ((ask * (bid_offset / bid) + bid * (ask_offset / ask)) / (bid + ask));
}

static int depth_price_sound(const void *state, const double *param) {
    const depth_price_state *s = state;
    return isfinite(s->value) && s->levels == param[0];
}

const tf_machine_type tf_machine_DEPTH_PRICE = {.name = "depth_price",
                                                .feed = TF_FEED_DEPTH,
                                                .bytes = depth_price_bytes,
                                                .reset = depth_price_reset,
                                                .update = depth_price_update,
                                                .sound = depth_price_sound};

static int32_t depth_price_machines(const double *param, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){TF_MACHINE_DEPTH_PRICE, {param[0]}};
    return 1;
}

static double depth_price_value(const tf_features *f, const tf_column *c) {
    return ((const depth_price_state *)tf_state(f, c, 0))->value;
}

const tf_feature_impl tf_feature_DEPTH_PRICE_DEVIATION = {TF_FEED_DEPTH, NULL,        depth_price_machines,
                                                          one_event,     depth_ready, depth_price_value};
