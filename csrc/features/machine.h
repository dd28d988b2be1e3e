/* Inside of the feature engine: what a machine is, what a feature is, and what both may read.
 *
 * A *machine* is a piece of state with an update. It is fed by one kind of event of one clock and is shared by every
 * column that asks for the same machine with the same parameters on the same clock (five Bollinger columns: one
 * machine). A *feature* is a row of features.def with an implementation: which machines it needs, when it is ready,
 * and what it reads out of them.
 *
 * Order at an accepted event: the clock moves; time windows expire; time bars that ended close; machines of the
 * event's own feed step (TF_FEED_BOOK, _DEPTH, _TRADE, _EXTERNAL); then samples are made, event clock first, bars
 * after, and machines of TF_FEED_SAMPLE on that clock step; at last columns that hold their value are evaluated. All
 * state is double, nothing allocates, no step walks a history. Updates must keep every stored number finite for any
 * input that passes the gates (prices and sizes in [1e-18, 1e18] or size 0). */
#ifndef TENGRI_FEATURES_MACHINE_H
#define TENGRI_FEATURES_MACHINE_H

#include <math.h>
#include <stddef.h>

#include "tengri/features.h"

#define TF_MAX_EVENTS 1048576.0
#define TF_MAX_NS 604800e9 /* a week */
#define TF_BPS 1e4
#define TF_NS_PER_SECOND 1e9
#define TF_LN2 0.693147180559945309417
#define TF_COLUMN_MACHINES 3
#define TF_MAX_SERIES 32

enum tf_feed {
    TF_FEED_SAMPLE = 0,
    TF_FEED_BOOK = 1,
    TF_FEED_DEPTH = 2,
    TF_FEED_TRADE = 3,
    TF_FEED_EXTERNAL = 4,
    TF_FEEDS = 5
};

typedef struct tf_top {
    double bid;
    double ask;
    double bid_size;
    double ask_size;
    double mid;
} tf_top;

/* What one clock tells its machines. On the event clock the four prices are the mid of the book event (or those of a
 * bar as long as no quote or depth was seen) and the traded numbers are of the trades since the sample before. */
typedef struct tf_sample {
    double open;
    double high;
    double low;
    double close;
    double volume;
    double notional; /* sum of price times size */
    double bought;   /* volume of buyers; sellers' is in `sold`, the rest is unknown */
    double sold;
    double previous; /* close of the sample before; 0 at the first */
    uint64_t trades;
    uint64_t count; /* samples so far, this one included */
} tf_sample;

typedef struct tf_leg {
    double bid;
    double ask;
    double mid;
    uint64_t time;
    uint64_t count; /* 0: never seen */
} tf_leg;

typedef struct tf_observation {
    double value[TF_EXTERNAL_VALUES];
    uint64_t time; /* of publication */
    uint64_t count;
} tf_observation;

typedef struct tf_series {
    tf_clock clock;
    uint32_t first_call; /* its machines of TF_FEED_SAMPLE among the calls */
    uint32_t calls;
    uint32_t first_held; /* columns that hold their value and are evaluated at its samples */
    uint32_t helds;
} tf_series;

typedef struct tf_machine {
    uint32_t type;
    uint32_t series;
    double param[TF_FEATURE_PARAMS];
    uint64_t offset; /* of its state, from the start of the block */
    uint64_t bytes;
} tf_machine;

typedef struct tf_held {
    double value;
    uint64_t ready;
} tf_held;

typedef struct tf_column {
    tf_feature_spec spec;
    uint32_t series;
    uint32_t machines;
    uint64_t machine[TF_COLUMN_MACHINES];     /* offsets of their states */
    uint64_t stage[TF_FEATURE_STAGES];        /* offsets of the stages' states */
    uint64_t held;                            /* offset of its tf_held; 0: the value is computed when it is read */
} tf_column;

typedef struct tf_bar_state {
    tf_sample bar;        /* in the making; count 0 in `trades` and `events`: nothing yet */
    tf_sample last;       /* closed last; count = bars so far */
    double imbalance;     /* imbalance bars: signed trades of this bar, */
    double expected;      /* expected trades per bar, */
    double drift;         /* expected sign of a trade */
    double last_price;    /* of the last trade, for the tick rule */
    double last_sign;
    uint64_t ticks;       /* events in the bar */
    uint64_t end;         /* time bars: when this one ends */
} tf_bar_state;

struct tf_features {
    /* --- unchanging: equal for two states of one plan --- */
    uint64_t magic;
    uint32_t version;
    int32_t width;
    uint64_t bytes;
    uint64_t plan_end;   /* the plan's arrays lie in [sizeof(tf_features), plan_end) */
    uint64_t columns_at; /* tf_column[width] */
    uint64_t machines_at;
    uint64_t calls_at;   /* uint32_t numbers of machines */
    uint64_t helds_at;   /* uint32_t numbers of columns */
    uint64_t series_at;
    uint64_t bars_at;    /* tf_bar_state[series] */
    uint64_t legs_at;    /* tf_leg[legs] */
    uint64_t sources_at; /* tf_observation[sources] */
    uint64_t waiting_at; /* uint32_t numbers of the columns that are not ready yet */
    uint64_t latched_at; /* unsigned char[width]: 1 once a column is ready; it then stays so until a reset */
    uint32_t machines;
    uint32_t series;     /* the first is the event clock */
    uint32_t legs;
    uint32_t sources;
    uint32_t feed_call[TF_FEEDS]; /* calls of each feed; TF_FEED_SAMPLE stands in the series */
    uint32_t feed_calls[TF_FEEDS];
    uint32_t feed_held[TF_FEEDS]; /* columns that hold, on the event clock, by the feed of their feature */
    uint32_t feed_helds[TF_FEEDS];
    uint32_t expire_call;
    uint32_t expire_calls;
    /* --- state --- */
    tf_feature_counters counters;
    uint64_t first; /* event time of the first accepted event */
    uint64_t clock; /* latest event time */
    uint64_t first_book;
    uint64_t book_time;
    uint64_t trade_time;
    uint64_t bar_time;
    uint64_t move_time;
    uint64_t book_events;
    uint64_t depth_events;
    uint64_t trade_events;
    int32_t started;
    int32_t has_bar;
    int32_t has_top; /* a quote or depth was seen: bars no longer make the book */
    int32_t all_ready;
    uint32_t waiting; /* columns that are not ready yet */
    uint32_t reserved;
    double move_sign;
    tf_top book;
    tf_top before; /* the book before this one; mid 0 at the first */
    tf_trade trade; /* the last one */
    tf_external external; /* the last one */
    tf_depth10 depth;
    tf_depth10 depth_before;
};

typedef struct tf_machine_type {
    const char *name;
    uint32_t feed;
    size_t (*bytes)(const double *param);
    void (*reset)(void *state, const double *param);
    /* `sample` is that of the machine's clock for TF_FEED_SAMPLE and NULL for the other feeds, which find their
     * event in `f`. */
    void (*update)(void *state, tf_features *f, const tf_sample *sample);
    void (*expire)(void *state, uint64_t clock); /* NULL: nothing in it ages; else called when the clock has moved */
    int (*sound)(const void *state,
                 const double *param); /* 1 if indices are in range and numbers finite: it may come from a file */
} tf_machine_type;

typedef struct tf_machine_ref {
    uint32_t type;
    double param[TF_FEATURE_PARAMS];
} tf_machine_ref;

typedef struct tf_feature_impl {
    /* The feed at which a held column of this feature is evaluated on the event clock. */
    uint32_t beat;
    /* Rules between parameters beyond those of the table; NULL: none. 1 if they hold. */
    int (*check)(const double *param);
    /* Fills in the machines (at most TF_COLUMN_MACHINES) and says how many. NULL: none. */
    int32_t (*machines)(const double *param, tf_machine_ref *out);
    void (*lookback)(const double *param, uint64_t *samples, uint64_t *nanoseconds);
    int (*ready)(const tf_features *f, const tf_column *c);
    double (*value)(const tf_features *f, const tf_column *c); /* called only when ready */
} tf_feature_impl;

typedef struct tf_stage_type {
    size_t (*bytes)(const double *param);
    void (*reset)(void *state, const double *param);
    /* Takes x in and gives what becomes of it (`f` for the mid and the like); NaN never comes in and must never come
     * out. */
    double (*push)(void *state, const double *param, double x, const tf_features *f);
    int (*ready)(const void *state, const double *param);
    int (*sound)(const void *state, const double *param);
    uint64_t (*lookback)(const double *param); /* in pushes */
} tf_stage_type;

/* Machine types: the enum is the number in a block, so append only. */
#define TF_MACHINE(ID) TF_MACHINE_##ID,
enum tf_machine_kind {
#include "machines.def"
    TF_MACHINE_COUNT
};
#undef TF_MACHINE
#define TF_MACHINE(ID) extern const tf_machine_type tf_machine_##ID;
#include "machines.def"
#undef TF_MACHINE

/* One implementation per row of the table: `const tf_feature_impl tf_feature_RSI = {...};` in the file of its topic. */
#define TF_FEATURE(ID, name, unit, needs, p0, p1, p2, p3, lookback, rule, source, text)                                \
    extern const tf_feature_impl tf_feature_##ID;
#include "features.def"
#undef TF_FEATURE

/* `const tf_stage_type tf_stage_ZSCORE = {...};` in stages.c. */
#define TF_STAGE(ID, name, p0, p1, lookback, rule, source, text) extern const tf_stage_type tf_stage_##ID;
#include "stages.def"
#undef TF_STAGE

static inline void *tf_at(const tf_features *f, uint64_t offset) { return (char *)(uintptr_t)f + offset; }

/* State of machine number i of a column. */
static inline void *tf_state(const tf_features *f, const tf_column *c, int i) { return tf_at(f, c->machine[i]); }

/* Latest sample of the column's clock; count 0: none yet. */
static inline const tf_sample *tf_last(const tf_features *f, uint32_t series) {
    return &((const tf_bar_state *)tf_at(f, f->bars_at))[series].last;
}

static inline const tf_leg *tf_leg_of(const tf_features *f, uint32_t leg) {
    return (const tf_leg *)tf_at(f, f->legs_at) + leg;
}

static inline const tf_observation *tf_observation_of(const tf_features *f, uint32_t source) {
    return (const tf_observation *)tf_at(f, f->sources_at) + source;
}

/* Whether so much event time has passed since the first event. */
static inline int tf_elapsed(const tf_features *f, uint64_t nanoseconds) {
    return f->started && f->clock - f->first >= nanoseconds;
}

/* log(1 + x) by six terms, for |x| < 1e-3: exact to the last bit or two (the next term is below 1e-18 of the first). */
static inline double tf_log1p_small(double x) {
    const double y = x * x; /* pairs of terms, which do not wait for one another */
    return x * ((1.0 - x * (1.0 / 2)) + y * ((1.0 / 3 - x * (1.0 / 4)) + y * (1.0 / 5 - x * (1.0 / 6))));
}

/* log(now / before). The usual move is tiny, and there a few terms cost less than a call; log1p keeps the digits of
 * larger ones, and a really large one (bad data) must not reach log1p(-1). */
static inline double tf_log_ratio(double now, double before) {
    const double x = (now - before) / before;
    if (fabs(x) < 1e-3) return tf_log1p_small(x);
    return fabs(x) < 0.5 ? log1p(x) : log(now / before);
}

/* log(1 + x) for x >= 0, to 1e-13 of itself; libm's log costs half of its log1p. */
static inline double tf_log1p(double x) { return x < 1e-3 ? tf_log1p_small(x) : log(1.0 + x); }

/* 1 - exp(-x) for x >= 0: below 1/16 by nine terms (the next is below 1e-18 of the first). */
static inline double tf_decayed(double x) {
    if (x >= 0.0625) return -expm1(-x);
    const double y = x * x;
    const double low = (1.0 - x * (1.0 / 2)) + y * (1.0 / 6 - x * (1.0 / 24));
    const double high = (1.0 / 120 - x * (1.0 / 720)) + y * (1.0 / 5040 - x * (1.0 / 40320) + y * (1.0 / 362880));
    return x * (low + y * y * high);
}

static inline double tf_seconds(uint64_t now, uint64_t then) {
    return now > then ? (double)(now - then) / TF_NS_PER_SECOND : 0.0;
}

/* (a - b) / (a + b); 0 where nothing is on either side. */
static inline double tf_share(double a, double b) {
    const double sum = a + b;
    return sum > 0.0 ? (a - b) / sum : 0.0;
}

/* exp(-age * rate), with the rate per ns. */
static inline double tf_decay(uint64_t now, uint64_t then, double rate) {
    return now > then ? exp(-(double)(now - then) * rate) : 1.0;
}

#endif
