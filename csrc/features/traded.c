/* Prices and what was traded at them: on-balance volume, money flow, volume-weighted average prices.
 *
 * On the event clock what counts is traded since the book event before. Sums over a session and windows of time are
 * kept in two doubles (window.h); windows of samples with volume only are rings of suffixes (ring.h). */
#include "ring.h"
#include "technical.h"
#include "window.h"

#define TYPICAL_NOISE 1e-15 /* two equal sums of three prices, divided by three, may differ by so much of it */

/* --- on-balance volume --- */

typedef struct balance_state {
    tf_dd sum;
} balance_state;

static size_t balance_bytes(const double *param) {
    (void)param;
    return sizeof(balance_state);
}

static void balance_reset(void *state, const double *param) {
    (void)param;
    *(balance_state *)state = (balance_state){{0.0, 0.0}};
}

static double signed_volume(const tf_sample *s) {
    return s->close > s->previous ? s->volume : s->close < s->previous ? -s->volume : 0.0;
}

static void balance_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)f;
    dd_add(&((balance_state *)state)->sum, signed_volume(sample)); /* no close before the first: it counts as a rise */
}

static int balance_sound(const void *state, const double *param) {
    (void)param;
    const balance_state *s = state;
    return tf_sane(s->sum.high) && tf_sane(s->sum.low);
}

const tf_machine_type tf_machine_BALANCE = {"on-balance volume", TF_FEED_SAMPLE, balance_bytes, balance_reset,
                                            balance_update,      NULL,           balance_sound};

static int32_t obv_machines(const double *param, tf_machine_ref *out) {
    (void)param;
    return tf_one_machine(TF_MACHINE_BALANCE, 0.0, 0.0, 0.0, out);
}

static void obv_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    (void)param;
    tf_samples(1.0, samples, nanoseconds);
}

static int obv_ready(const tf_features *f, const tf_column *c) { return tf_seen(f, c, 1.0); }

static double obv_value(const tf_features *f, const tf_column *c) {
    return dd_value(&((const balance_state *)tf_state(f, c, 0))->sum);
}

const tf_feature_impl tf_feature_OBV = {TF_FEED_SAMPLE, NULL, obv_machines, obv_lookback, obv_ready, obv_value};

/* --- rising and falling volume of the latest samples: param period, 1 for money flow --- */

typedef struct flow_entry {
    double rising;
    double falling;
    double still;
} flow_entry;

typedef struct flow_state {
    flow_entry sum; /* of the window */
    flow_entry newer;
    double typical; /* of the sample before */
    uint32_t length;
    uint32_t at;
    uint64_t money;
    flow_entry entry[];
} flow_state;

static size_t flow_bytes(const double *param) { return sizeof(flow_state) + (size_t)param[0] * sizeof(flow_entry); }

static void flow_reset(void *state, const double *param) {
    flow_state *s = state;
    memset(s, 0, flow_bytes(param));
    s->length = (uint32_t)param[0];
    s->money = param[1] != 0.0;
}

static inline flow_entry flow_join(flow_entry a, flow_entry b) {
    return (flow_entry){a.rising + b.rising, a.falling + b.falling, a.still + b.still};
}

static void flow_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)f;
    flow_state *s = state;
    const double price = s->money ? tf_typical(sample) : sample->close;
    const double change = price - s->typical, amount = s->money ? price * sample->volume : sample->volume;
    const double noise = s->money ? TYPICAL_NOISE * price : 0.0;
    s->typical = price;
    if (sample->count == 1) return; /* nothing to compare with */
    const flow_entry x = {change > noise ? amount : 0.0, change < -noise ? amount : 0.0,
                          fabs(change) <= noise ? amount : 0.0};
    s->entry[s->at] = x;
    s->newer = flow_join(s->newer, x);
    if (++s->at == s->length) {
        flow_entry total = {0.0, 0.0, 0.0};
        for (uint32_t i = s->length; i-- > 0;) s->entry[i] = total = flow_join(total, s->entry[i]);
        s->newer = (flow_entry){0.0, 0.0, 0.0};
        s->at = 0;
    }
    s->sum = flow_join(s->newer, s->entry[s->at]);
}

static int flow_entry_sound(const flow_entry *e) {
    return tf_sane(e->rising) && tf_sane(e->falling) && tf_sane(e->still);
}

static int flow_sound(const void *state, const double *param) {
    const flow_state *s = state;
    if ((double)s->length != param[0] || s->at >= s->length || s->money != (param[1] != 0.0)) return 0;
    if (!flow_entry_sound(&s->sum) || !flow_entry_sound(&s->newer) || !tf_sane(s->typical)) return 0;
    for (uint32_t i = 0; i < s->length; i++) {
        if (!flow_entry_sound(&s->entry[i])) return 0;
    }
    return 1;
}

const tf_machine_type tf_machine_VOLUME_FLOW = {
    "rising and falling volume", TF_FEED_SAMPLE, flow_bytes, flow_reset, flow_update, NULL, flow_sound};

static int32_t obv_ratio_machines(const double *param, tf_machine_ref *out) {
    return tf_one_machine(TF_MACHINE_VOLUME_FLOW, param[0], 0.0, 0.0, out);
}

static int32_t mfi_machines(const double *param, tf_machine_ref *out) {
    return tf_one_machine(TF_MACHINE_VOLUME_FLOW, param[0], 1.0, 0.0, out);
}

static void flow_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    tf_samples(param[0] + 1.0, samples, nanoseconds);
}

static int flow_ready(const tf_features *f, const tf_column *c) { return tf_seen(f, c, c->spec.param[0] + 1.0); }

static double obv_ratio_value(const tf_features *f, const tf_column *c) {
    const flow_entry *sum = &((const flow_state *)tf_state(f, c, 0))->sum;
    const double volume = sum->rising + sum->falling + sum->still;
    return volume > 0.0 ? (sum->rising - sum->falling) / volume : 0.0;
}

static double mfi_value(const tf_features *f, const tf_column *c) {
    const flow_entry *sum = &((const flow_state *)tf_state(f, c, 0))->sum;
    const double moved = sum->rising + sum->falling;
    return moved > 0.0 ? 100.0 * (sum->rising / moved) : 50.0;
}

const tf_feature_impl tf_feature_OBV_RATIO = {TF_FEED_SAMPLE, NULL,       obv_ratio_machines,
                                              flow_lookback,  flow_ready, obv_ratio_value};
const tf_feature_impl tf_feature_MFI = {TF_FEED_SAMPLE, NULL, mfi_machines, flow_lookback, flow_ready, mfi_value};

/* --- volume-weighted average price of a session: param session in ns, 0 for none --- */

typedef struct session_state {
    tf_dd notional;
    tf_dd volume;
    uint64_t length;
    uint64_t index; /* of the session */
} session_state;

static size_t session_bytes(const double *param) {
    (void)param;
    return sizeof(session_state);
}

static void session_reset(void *state, const double *param) {
    session_state *s = state;
    memset(s, 0, sizeof *s);
    s->length = (uint64_t)param[0];
}

static void session_update(void *state, tf_features *f, const tf_sample *sample) {
    session_state *s = state;
    if (s->length > 0) { /* a bar that is stamped with the end of a session belongs to it */
        const uint64_t index = f->clock > 0 ? (f->clock - 1) / s->length : 0;
        if (index != s->index) {
            s->index = index;
            s->notional = s->volume = (tf_dd){0.0, 0.0};
        }
    }
    if (!(sample->volume > 0.0)) return;
    dd_add(&s->notional, sample->notional);
    dd_add(&s->volume, sample->volume);
}

static int dd_sound(const tf_dd *x) { return tf_sane(x->high) && tf_sane(x->low); }

static int session_sound(const void *state, const double *param) {
    const session_state *s = state;
    return s->length == (uint64_t)param[0] && dd_sound(&s->notional) && dd_sound(&s->volume);
}

const tf_machine_type tf_machine_SESSION_VOLUME = {
    "traded in the session", TF_FEED_SAMPLE, session_bytes, session_reset, session_update, NULL, session_sound};

static int32_t vwap_machines(const double *param, tf_machine_ref *out) {
    return tf_one_machine(TF_MACHINE_SESSION_VOLUME, param[0], 0.0, 0.0, out);
}

static double average_price(const tf_features *f, const tf_column *c, const tf_dd *notional, const tf_dd *volume) {
    const double traded = dd_value(volume);
    if (!(traded > 0.0)) return tf_close(f, c);
    /* What rounding leaves of a window of absurd sizes may be anything: it stays a price. */
    return fmin(TF_VALUE_MAX, fmax(TF_VALUE_MIN, dd_value(notional) / traded));
}

static double deviation(const tf_features *f, const tf_column *c, double average) {
    return TF_BPS * ((tf_close(f, c) - average) / average);
}

static double vwap_value(const tf_features *f, const tf_column *c) {
    const session_state *s = tf_state(f, c, 0);
    return average_price(f, c, &s->notional, &s->volume);
}

static double vwap_deviation_value(const tf_features *f, const tf_column *c) {
    return deviation(f, c, vwap_value(f, c));
}

const tf_feature_impl tf_feature_VWAP = {TF_FEED_SAMPLE, NULL, vwap_machines, obv_lookback, obv_ready, vwap_value};
const tf_feature_impl tf_feature_VWAP_DEVIATION = {TF_FEED_SAMPLE, NULL,      vwap_machines,
                                                   obv_lookback,   obv_ready, vwap_deviation_value};

/* --- the same over a rolling window: param window, capacity ---
 *
 * Samples without volume take no place in the window, so that an empty one is empty and its sums are 0. */

static uint32_t traded_capacity(const double *param) { return (uint32_t)(param[0] < 0.0 ? -param[0] : param[1]); }

static size_t traded_bytes(const double *param) { return window_bytes(traded_capacity(param)); }

static void traded_reset(void *state, const double *param) {
    tf_window *window = state;
    window->by_event = param[0] < 0.0;
    window->span = (uint64_t)fabs(param[0]);
    window->capacity = traded_capacity(param);
    window_reset(window);
}

static void traded_update(void *state, tf_features *f, const tf_sample *sample) {
    tf_window *window = state;
    const uint64_t key = window->by_event ? sample->count : f->clock;
    if (window->by_event) window_expire(window, key, 2);
    if (!(sample->volume > 0.0)) return;
    f->counters.overflow += (uint64_t)window_push(window, key, sample->notional, sample->volume, 2);
}

static void traded_expire(void *state, uint64_t clock) {
    tf_window *window = state;
    if (!window->by_event) window_expire(window, clock, 2);
}

static int traded_sound(const void *state, const double *param) {
    const tf_window *window = state;
    if (window->capacity != traded_capacity(param) || window->span != (uint64_t)fabs(param[0])) return 0;
    if (window->by_event != (uint32_t)(param[0] < 0.0)) return 0;
    if (window->tail >= window->capacity || window->count > window->capacity || window->unmarked > window->count)
        return 0;
    if (!tf_sane(window->left)) return 0;
    for (int i = 0; i < TF_WINDOW_VALUES; i++) {
        if (!dd_sound(&window->sum[i]) || !dd_sound(&window->fresh[i])) return 0;
    }
    for (uint32_t i = 0, at = window->tail; i < window->count; i++) {
        if (!tf_sane(window->entry[at].value[0]) || !tf_sane(window->entry[at].value[1])) return 0;
        if (++at == window->capacity) at = 0;
    }
    return 1;
}

const tf_machine_type tf_machine_TRADED_WINDOW = {"traded in a window", TF_FEED_SAMPLE, traded_bytes, traded_reset,
                                                  traded_update,        traded_expire,  traded_sound};

static int32_t rolling_vwap_machines(const double *param, tf_machine_ref *out) {
    return tf_one_machine(TF_MACHINE_TRADED_WINDOW, param[0], param[0] < 0.0 ? 0.0 : param[1], 0.0, out);
}

static void rolling_vwap_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    tf_samples(param[0] < 0.0 ? -param[0] : 1.0, samples, nanoseconds);
    if (param[0] > 0.0) *nanoseconds = (uint64_t)param[0];
}

static int rolling_vwap_ready(const tf_features *f, const tf_column *c) {
    const double window = c->spec.param[0];
    return window < 0.0 ? tf_seen(f, c, -window) : tf_seen(f, c, 1.0) && tf_elapsed(f, (uint64_t)window);
}

static double rolling_vwap_value(const tf_features *f, const tf_column *c) {
    const tf_window *window = tf_state(f, c, 0);
    return average_price(f, c, &window->sum[0], &window->sum[1]);
}

static double rolling_vwap_deviation_value(const tf_features *f, const tf_column *c) {
    return deviation(f, c, rolling_vwap_value(f, c));
}

const tf_feature_impl tf_feature_ROLLING_VWAP = {
    TF_FEED_SAMPLE, NULL, rolling_vwap_machines, rolling_vwap_lookback, rolling_vwap_ready, rolling_vwap_value};
const tf_feature_impl tf_feature_ROLLING_VWAP_DEVIATION = {TF_FEED_SAMPLE,        NULL,
                                                           rolling_vwap_machines, rolling_vwap_lookback,
                                                           rolling_vwap_ready,    rolling_vwap_deviation_value};
