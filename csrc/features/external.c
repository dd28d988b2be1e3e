/* External sources: prediction markets, news and macroeconomic releases.
 *
 * An observation exists from its publication, which moves the clock; so nothing can be seen before it was public.
 * Columns are always ready (external.def says why); before the first observation and past max_age they give 0.
 * Where a number is missing in an observation it is NaN, and the rule of the row says what stands for it. Held
 * columns are evaluated at book events, so that a value also ages while its source is silent. */
#include "machine.h"

#include "window.h"

#define DIGITS 1e-150 /* sums of weights below count as none */

static int32_t one(uint32_t type, double source, double p1, double p2, tf_machine_ref *out) {
    out[0] = (tf_machine_ref){type, {source, p1, p2, 0.0}};
    return 1;
}

static void no_lookback(const double *param, uint64_t *samples, uint64_t *nanoseconds) {
    (void)param;
    *samples = 0;
    *nanoseconds = 0;
}

static int always(const tf_features *f, const tf_column *c) {
    (void)f;
    (void)c;
    return 1;
}

/* The last observation if there is one and it is young enough, else NULL. The source is parameter 0. */
static const tf_observation *present(const tf_features *f, const tf_column *c, int age_param) {
    const tf_observation *o = tf_observation_of(f, (uint32_t)c->spec.param[0]);
    const uint64_t max_age = (uint64_t)c->spec.param[age_param];
    return o->count == 0 || (max_age > 0 && f->clock > o->time && f->clock - o->time > max_age) ? NULL : o;
}

static int given(double x) { return fabs(x) <= TF_VALUE_MAX; } /* false for NaN */

static double cut(double x, double low, double high) { return fmin(high, fmax(low, x)); }

/* --- any source --- */

static double available_value(const tf_features *f, const tf_column *c) { return present(f, c, 1) != NULL; }

static double number_value(const tf_features *f, const tf_column *c) {
    const tf_observation *o = present(f, c, 2);
    if (o == NULL) return 0.0;
    const double x = o->value[(int)c->spec.param[1]];
    return given(x) ? x : 0.0;
}

static double age_value(const tf_features *f, const tf_column *c) {
    const tf_observation *o = tf_observation_of(f, (uint32_t)c->spec.param[0]);
    return o->count > 0 ? tf_log1p(tf_seconds(f->clock, o->time)) : 0.0;
}

const tf_feature_impl tf_feature_EXTERNAL_AVAILABLE = {TF_FEED_BOOK, NULL, NULL, no_lookback, always, available_value};
const tf_feature_impl tf_feature_EXTERNAL_VALUE = {TF_FEED_BOOK, NULL, NULL, no_lookback, always, number_value};
const tf_feature_impl tf_feature_ODDS_AGE = {TF_FEED_BOOK, NULL, NULL, no_lookback, always, age_value};
const tf_feature_impl tf_feature_NEWS_AGE = {TF_FEED_BOOK, NULL, NULL, no_lookback, always, age_value};
const tf_feature_impl tf_feature_MACRO_AGE = {TF_FEED_BOOK, NULL, NULL, no_lookback, always, age_value};

/* --- odds: value = bid, ask --- */

static double probability(const double *value) {
    const double bid = cut(value[0], 0.0, 1.0);
    return given(value[1]) ? 0.5 * (bid + cut(value[1], 0.0, 1.0)) : bid;
}

static double probability_value(const tf_features *f, const tf_column *c) {
    const tf_observation *o = present(f, c, 1);
    return o != NULL ? probability(o->value) : 0.0;
}

static double odds_spread_value(const tf_features *f, const tf_column *c) {
    const tf_observation *o = present(f, c, 1);
    if (o == NULL || !given(o->value[1])) return 0.0;
    return fmax(0.0, cut(o->value[1], 0.0, 1.0) - cut(o->value[0], 0.0, 1.0));
}

/* param: source, window, capacity. A ring of observations; `left` is the last one as old as the window. */

typedef struct odds_state {
    uint64_t source;
    uint64_t seen;
    tf_window window;
} odds_state;

static uint32_t places(const double *param) { return (uint32_t)(param[1] < 0.0 ? -param[1] : param[2]); }

static size_t odds_bytes(const double *param) { return offsetof(odds_state, window) + window_bytes(places(param)); }

static void odds_reset(void *state, const double *param) {
    odds_state *s = state;
    s->source = (uint64_t)param[0];
    s->seen = 0;
    s->window.by_event = param[1] < 0.0;
    s->window.span = (uint64_t)fabs(param[1]);
    s->window.capacity = places(param);
    window_reset(&s->window);
}

static void odds_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    odds_state *s = state;
    if (f->external.slot != s->source) return;
    const uint64_t key = s->window.by_event ? ++s->seen : f->clock;
    window_expire(&s->window, key, 0);
    f->counters.overflow += (uint64_t)window_push(&s->window, key, probability(f->external.value), 0.0, 0);
}

static void odds_expire(void *state, uint64_t clock) {
    odds_state *s = state;
    if (!s->window.by_event) window_expire(&s->window, clock, 0);
}

static int odds_sound(const void *state, const double *param) {
    const odds_state *s = state;
    const tf_window *w = &s->window;
    if ((double)s->source != param[0] || w->by_event != (uint32_t)(param[1] < 0.0)) return 0;
    if (w->span != (uint64_t)fabs(param[1]) || w->capacity != places(param)) return 0;
    if (w->tail >= w->capacity || w->count > w->capacity || !(w->left >= 0.0 && w->left <= 1.0)) return 0;
    for (uint32_t i = 0; i < w->count; i++) {
        const uint32_t at = w->tail + i;
        const double x = w->entry[at >= w->capacity ? at - w->capacity : at].value[0];
        if (!(x >= 0.0 && x <= 1.0)) return 0;
    }
    return 1;
}

const tf_machine_type tf_machine_ODDS_WINDOW = {"odds of a window", TF_FEED_EXTERNAL, odds_bytes, odds_reset,
                                                odds_update,        odds_expire,      odds_sound};

static int32_t odds_machines(const double *param, tf_machine_ref *out) {
    return one(TF_MACHINE_ODDS_WINDOW, param[0], param[1], param[1] < 0.0 ? 0.0 : param[3], out);
}

static double odds_change_value(const tf_features *f, const tf_column *c) {
    const tf_observation *o = present(f, c, 2);
    const tf_window *w = &((const odds_state *)tf_state(f, c, 0))->window;
    return o != NULL && w->seen ? probability(o->value) - w->left : 0.0;
}

const tf_feature_impl tf_feature_ODDS_PROBABILITY = {TF_FEED_BOOK, NULL, NULL, no_lookback, always, probability_value};
const tf_feature_impl tf_feature_ODDS_SPREAD = {TF_FEED_BOOK, NULL, NULL, no_lookback, always, odds_spread_value};
const tf_feature_impl tf_feature_ODDS_CHANGE = {TF_FEED_BOOK, NULL,   odds_machines,
                                                no_lookback,  always, odds_change_value};

/* --- news: value = sentiment, novelty, relevance ---
 *
 * param: source, half_life. Sums as they were at `time`; all decay alike, so means do not depend on how long ago
 * that was. */

typedef struct news_state {
    uint64_t source;
    uint64_t time;
    double rate;      /* ln 2 / half_life, per ns */
    double sentiment; /* times weight */
    double weight;    /* novelty times relevance */
    double novelty;
    double count;
} news_state;

static size_t news_bytes(const double *param) {
    (void)param;
    return sizeof(news_state);
}

static void news_reset(void *state, const double *param) {
    *(news_state *)state = (news_state){.source = (uint64_t)param[0], .rate = TF_LN2 / param[1]};
}

static void news_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    news_state *s = state;
    if (f->external.slot != s->source) return;
    const double *value = f->external.value;
    const double keep = tf_decay(f->clock, s->time, s->rate);
    const double novelty = given(value[1]) ? cut(value[1], 0.0, 1.0) : 1.0;
    const double weight = novelty * (given(value[2]) ? cut(value[2], 0.0, 1.0) : 1.0);
    s->sentiment = s->sentiment * keep + cut(value[0], -1.0, 1.0) * weight;
    s->weight = s->weight * keep + weight;
    s->novelty = s->novelty * keep + novelty;
    s->count = s->count * keep + 1.0;
    s->time = f->clock;
}

static int news_sound(const void *state, const double *param) {
    const news_state *s = state;
    if ((double)s->source != param[0] || s->rate != TF_LN2 / param[1]) return 0;
    return fabs(s->sentiment) <= TF_VALUE_MAX && s->weight >= 0.0 && s->weight <= TF_VALUE_MAX && s->novelty >= 0.0 &&
           s->novelty <= TF_VALUE_MAX && s->count >= 0.0 && s->count <= TF_VALUE_MAX;
}

const tf_machine_type tf_machine_NEWS_DECAY = {"decayed news", TF_FEED_EXTERNAL, news_bytes, news_reset, news_update,
                                               NULL,           news_sound};

static int32_t news_machines(const double *param, tf_machine_ref *out) {
    return one(TF_MACHINE_NEWS_DECAY, param[0], param[1], 0.0, out);
}

/* A sum as it is now. */
static double decayed(const tf_features *f, const news_state *s, double sum) {
    return sum * tf_decay(f->clock, s->time, s->rate);
}

static double sentiment_value(const tf_features *f, const tf_column *c) {
    const news_state *s = tf_state(f, c, 0);
    return present(f, c, 2) != NULL ? decayed(f, s, s->sentiment) : 0.0;
}

static double tone_value(const tf_features *f, const tf_column *c) {
    const news_state *s = tf_state(f, c, 0);
    return present(f, c, 2) != NULL && s->weight > DIGITS ? cut(s->sentiment / s->weight, -1.0, 1.0) : 0.0;
}

static double news_count_value(const tf_features *f, const tf_column *c) {
    const news_state *s = tf_state(f, c, 0);
    return present(f, c, 2) != NULL ? decayed(f, s, s->count) : 0.0;
}

static double novelty_value(const tf_features *f, const tf_column *c) {
    const news_state *s = tf_state(f, c, 0);
    return present(f, c, 2) != NULL && s->count > DIGITS ? cut(s->novelty / s->count, 0.0, 1.0) : 0.0;
}

const tf_feature_impl tf_feature_NEWS_SENTIMENT = {TF_FEED_BOOK, NULL,   news_machines,
                                                   no_lookback,  always, sentiment_value};
const tf_feature_impl tf_feature_NEWS_TONE = {TF_FEED_BOOK, NULL, news_machines, no_lookback, always, tone_value};
const tf_feature_impl tf_feature_NEWS_COUNT = {TF_FEED_BOOK, NULL,   news_machines,
                                               no_lookback,  always, news_count_value};
const tf_feature_impl tf_feature_NEWS_NOVELTY = {TF_FEED_BOOK, NULL, news_machines, no_lookback, always, novelty_value};

/* --- macro: value = actual, forecast, previous, standard deviation of past surprises ---
 *
 * param: source, threshold. What the releases so far say beyond the last one. */

typedef struct releases_state {
    uint64_t source;
    uint64_t releases;
    uint64_t surprises; /* releases with a forecast */
    double threshold;
    double actual;   /* of the last release */
    double change;   /* of it */
    double surprise; /* of it, in standard deviations */
    double square;   /* mean square of all surprises */
    double regime;
} releases_state;

static size_t releases_bytes(const double *param) {
    (void)param;
    return sizeof(releases_state);
}

static void releases_reset(void *state, const double *param) {
    *(releases_state *)state = (releases_state){.source = (uint64_t)param[0], .threshold = param[1]};
}

static void releases_update(void *state, tf_features *f, const tf_sample *sample) {
    (void)sample;
    releases_state *s = state;
    if (f->external.slot != s->source) return;
    const double actual = f->external.value[0], forecast = f->external.value[1], previous = f->external.value[2];
    s->change = given(previous) ? actual - previous : s->releases > 0 ? actual - s->actual : 0.0;
    if (s->change > s->threshold) s->regime = 1.0;
    if (s->change < -s->threshold) s->regime = -1.0;
    s->surprise = 0.0;
    if (given(forecast)) {
        const double miss = actual - forecast, spread = f->external.value[3];
        const double scale = given(spread) && spread > 0.0 ? spread : sqrt(s->square);
        if (scale > 0.0) s->surprise = cut(miss / scale, -TF_VALUE_MAX, TF_VALUE_MAX);
        s->surprises++;
        s->square += (miss * miss - s->square) / (double)s->surprises;
    }
    s->actual = actual;
    s->releases++;
}

static int releases_sound(const void *state, const double *param) {
    const releases_state *s = state;
    if ((double)s->source != param[0] || s->threshold != param[1]) return 0;
    if (!given(s->actual) || !(fabs(s->change) <= 2.0 * TF_VALUE_MAX) || !given(s->surprise)) return 0;
    if (!(s->square >= 0.0 && s->square <= 4.0 * TF_VALUE_MAX * TF_VALUE_MAX)) return 0;
    return s->regime == 0.0 || fabs(s->regime) == 1.0;
}

const tf_machine_type tf_machine_RELEASES = {
    "releases", TF_FEED_EXTERNAL, releases_bytes, releases_reset, releases_update, NULL, releases_sound};

static int32_t release_machines(const double *param, tf_machine_ref *out) {
    return one(TF_MACHINE_RELEASES, param[0], 0.0, 0.0, out);
}

static int32_t regime_machines(const double *param, tf_machine_ref *out) {
    return one(TF_MACHINE_RELEASES, param[0], param[1], 0.0, out);
}

static double macro_value(const tf_features *f, const tf_column *c) {
    const tf_observation *o = present(f, c, 1);
    return o != NULL ? o->value[0] : 0.0;
}

static double surprise_value(const tf_features *f, const tf_column *c) {
    return present(f, c, 1) != NULL ? ((const releases_state *)tf_state(f, c, 0))->surprise : 0.0;
}

static double change_value(const tf_features *f, const tf_column *c) {
    return present(f, c, 1) != NULL ? ((const releases_state *)tf_state(f, c, 0))->change : 0.0;
}

static double regime_value(const tf_features *f, const tf_column *c) {
    return present(f, c, 2) != NULL ? ((const releases_state *)tf_state(f, c, 0))->regime : 0.0;
}

const tf_feature_impl tf_feature_MACRO_VALUE = {TF_FEED_BOOK, NULL, NULL, no_lookback, always, macro_value};
const tf_feature_impl tf_feature_MACRO_SURPRISE = {TF_FEED_BOOK, NULL,   release_machines,
                                                   no_lookback,  always, surprise_value};
const tf_feature_impl tf_feature_MACRO_CHANGE = {TF_FEED_BOOK, NULL,   release_machines,
                                                 no_lookback,  always, change_value};
const tf_feature_impl tf_feature_MACRO_REGIME = {TF_FEED_BOOK, NULL,   regime_machines,
                                                 no_lookback,  always, regime_value};
