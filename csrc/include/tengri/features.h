/* The feature plan: a list of specs compiled into one block of state and one output row. */
#ifndef TENGRI_FEATURES_H
#define TENGRI_FEATURES_H

#include "events.h"
#include "isa.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TF_FEATURE_PARAMS 4
#define TF_FEATURE_STAGES 3
#define TF_MAX_LEGS 32
#define TF_MAX_SOURCES 32
/* Raised whenever a feature's number changes for the same input; part of the plan hash and of saved state. */
#define TF_FEATURE_ENGINE_VERSION 2u
/* Prices and sizes outside these bounds are invalid: inside them no ratio of two of them can leave the double range. */
#define TF_VALUE_MIN 1e-18
#define TF_VALUE_MAX 1e18

/* How a parameter is written and checked. A window is nanoseconds when positive and a count of events when negative. */
typedef enum tf_param_type {
    TF_PARAM_NONE = 0,
    TF_PARAM_COUNT = 1,    /* whole number */
    TF_PARAM_NUMBER = 2,   /* any number in range */
    TF_PARAM_WINDOW = 3,   /* duration or count of events */
    TF_PARAM_DURATION = 4, /* nanoseconds; 0 means off where the range allows it */
    TF_PARAM_FLAG = 5,     /* 0 or 1 */
    TF_PARAM_LEG = 6,      /* another instrument: its number in the plan, from 0 */
    TF_PARAM_LEGS = 7,     /* several of them: the sum of 2^number */
    TF_PARAM_SOURCE = 8    /* an external source: its number in the plan, from 0 */
} tf_param_type;

typedef struct tf_feature_param {
    const char *name;
    tf_param_type type;
    double initial;
    double low;
    double high;
} tf_feature_param;

/* One row of the feature table (csrc/features/features.def). */
typedef struct tf_feature_info {
    const char *name;
    const char *unit;
    const char *needs; /* events it is fed by */
    tf_feature_param param[TF_FEATURE_PARAMS];
    const char *lookback;
    const char *rule; /* what happens when there is nothing to divide by, no event yet, a full ring ... */
    const char *source;
    const char *description;
} tf_feature_info;

int32_t tf_feature_kinds(void);
const tf_feature_info *tf_feature_describe(int32_t kind); /* NULL outside the table */

/* The clock of a column. On TF_CLOCK_EVENT a feature of prices steps at every book event and others at their own
 * events. On the others it is fed by bars that the engine builds: features of prices step once per bar, the others
 * are sampled when the bar closes and hold their value until the next.
 *
 * Time bars are aligned to multiples of `size` since 1970 and close when the first event at or after their end
 * arrives, before that event counts; an interval without an event makes no bar. A bar that makes the book bears the
 * time of its end: it belongs to the interval that ends then, and closes it. Tick, volume, notional and imbalance
 * bars close with the event that fills them, which belongs to them whole. */
typedef enum tf_clock_kind {
    TF_CLOCK_EVENT = 0,
    TF_CLOCK_TIME = 1, /* size in ns */
    TF_CLOCK_TICKS = 2, /* size in book events, or in trades */
    TF_CLOCK_VOLUME = 3, /* size in traded units */
    TF_CLOCK_NOTIONAL = 4, /* size in price times traded units */
    TF_CLOCK_IMBALANCE =
        5, /* size: expected number of trades at the start (Lopez de Prado 2018, tick imbalance bars) */
    TF_CLOCK_BARS = 6 /* bars given from outside */
} tf_clock_kind;

typedef struct tf_clock {
    uint32_t kind;
    uint32_t trades; /* 1: prices of trades make the bar; 0: mids (time and tick bars only) */
    double size;
} tf_clock;

/* A step of normalisation that a column's value passes, in order; rows of csrc/features/stages.def. */
typedef struct tf_stage {
    uint32_t kind;
    uint32_t reserved;
    double param[2];
} tf_stage;

/* One column of the row. `kind` is a row of the feature table; unused parameters are zero. A column with stages, or
 * a feature of ticks on a bar clock, is evaluated at its beat and holds that value until the next. At last the value
 * becomes clip((value - mean) / scale, -clip, +clip), with clip = 0 meaning none. */
typedef struct tf_feature_spec {
    uint32_t kind;
    uint32_t stages;
    double param[TF_FEATURE_PARAMS];
    tf_clock clock;
    tf_stage stage[TF_FEATURE_STAGES];
    double mean;
    double scale;
    double clip;
} tf_feature_spec;

/* One row of the stage table. */
typedef struct tf_stage_info {
    const char *name;
    tf_feature_param param[2];
    const char *lookback;
    const char *rule;
    const char *source;
    const char *description;
} tf_stage_info;

int32_t tf_stage_kinds(void);
const tf_stage_info *tf_stage_describe(int32_t kind); /* NULL outside the table */

typedef struct tf_features tf_features; /* position independent: memcpy of the block is an exact copy */

/* Samples of the column's clock (after its stages) and nanoseconds that must pass before it is ready (either may be
 * zero). */
tf_status tf_feature_lookback(const tf_feature_spec *spec, uint64_t *events, uint64_t *nanoseconds);

tf_status tf_features_size(const tf_feature_spec *specs, int32_t count, size_t *bytes);
/* Builds plan and reset state inside `memory` (64-byte aligned, at least the size above). No allocation. */
tf_status tf_features_init(void *memory, size_t bytes, const tf_feature_spec *specs, int32_t count, tf_features **out);
void tf_features_reset(tf_features *features);
int32_t tf_features_width(const tf_features *features);

/* Clock: event time. A quote or depth earlier than the last book event, a trade earlier than the last trade and a bar
 * earlier than the last bar are backward. Streams may interleave late: such an event counts at the clock's latest time.
 * Locked books (bid = ask) are accepted. Bars make the book (bid = ask = close, no sizes) until a quote or depth came.
 * 1: accepted. 0: held or dropped by the stated rule (crossed, backward, non-finite, non-positive); a counter rises. */
int tf_features_on_quote(tf_features *features, const tf_quote *quote);
int tf_features_on_trade(tf_features *features, const tf_trade *trade);
int tf_features_on_bar(tf_features *features, const tf_bar *bar);
int tf_features_on_depth(tf_features *features, const tf_depth10 *depth);
/* A quote of another instrument: leg number `leg` of the plan. It moves the clock; its mid is seen by the next own
 * event. */
int tf_features_on_leg(tf_features *features, uint32_t leg, const tf_quote *quote);
/* An observation of source number `event->slot`. */
int tf_features_on_external(tf_features *features, const tf_external *event);

/* 1 when every feature has seen its lookback. */
int tf_features_ready(const tf_features *features);
/* Raw values in double; not-ready features give 0. */
void tf_features_row(const tf_features *features, double *out);
/* Normalised, clipped, cast to float32 last; written straight into a model's input. Returns 1 if all finite. */
int tf_features_emit(const tf_features *features, float *out);

/* Last accepted top of book, for whoever needs mid and spread without keeping a second copy. */
double tf_features_mid(const tf_features *features);
double tf_features_spread(const tf_features *features);

typedef struct tf_feature_counters {
    uint64_t accepted;
    uint64_t crossed;
    uint64_t backward;
    uint64_t invalid;
    uint64_t overflow; /* entries that left a full ring before their window ended */
} tf_feature_counters;
void tf_features_counters(const tf_features *features, tf_feature_counters *out);

/* 1 when one feature has seen its lookback. */
int tf_features_ready_at(const tf_features *features, int32_t index);
/* The arithmetic of tf_features_emit applied to a row of raw values. Returns 1 if nothing had to be saturated. */
int tf_features_normalise(const tf_features *features, const double *row, float *out);
size_t tf_features_bytes(const tf_features *features);
/* TF_OK when `memory` holds a state of the same plan as `like`, made by this version, with every index in range. */
tf_status tf_features_check(const tf_features *like, const void *memory, size_t bytes);

/* What the plan shares: machines are pieces of state that columns read, each updated once however many read it. */
typedef struct tf_machine_info {
    const char *name;
    tf_clock clock;
    double param[TF_FEATURE_PARAMS];
    size_t bytes;
    int32_t columns; /* that read it */
} tf_machine_info;
int32_t tf_features_machines(const tf_features *features);
int tf_features_machine(const tf_features *features, int32_t index, tf_machine_info *out); /* 0 outside */

/* Features of the user. `update` gets the state and a view of the latest event; `value` reads the state. Both must
 * be pure functions of their arguments. Registered for the life of the process; kinds count from TF_FEATURE_USER. */
#define TF_FEATURE_USER 0x10000u
#define TF_USER_LIMIT 256
enum tf_user_view {
    TF_VIEW_OPEN,
    TF_VIEW_HIGH,
    TF_VIEW_LOW,
    TF_VIEW_CLOSE,
    TF_VIEW_VOLUME, /* of the clock's sample */
    TF_VIEW_BID,
    TF_VIEW_ASK,
    TF_VIEW_BID_SIZE,
    TF_VIEW_ASK_SIZE,
    TF_VIEW_TRADE_PRICE,
    TF_VIEW_TRADE_SIZE,
    TF_VIEW_AGGRESSOR, /* of the last trade; 0 before the first */
    TF_VIEW_SECONDS, /* event time since the first event */
    TF_VIEW_COUNT, /* samples so far, this one included */
    TF_VIEW_SIZE = 16
};
typedef struct tf_user_feature {
    const char *name;
    uint32_t doubles; /* of state, zero at the start; at most 1,000,000 */
    uint32_t lookback; /* samples before it is ready */
    uint32_t on_trades; /* 1: on the event clock it steps at trades instead of book events */
    uint32_t reserved;
    void (*update)(double *state, const double *view, const double *param);
    double (*value)(const double *state, const double *param);
} tf_user_feature;
/* The kind of the new feature, or -1 when a rule is broken, the table is full or the name is taken with other
 * functions. */
int32_t tf_feature_register(const tf_user_feature *feature);
/* The table of registered features. A program that holds this library more than once (static copies in several shared
 * objects) lets all of them adopt the table of one. */
void *tf_feature_registry(void);
void tf_feature_adopt(void *registry);

#ifdef __cplusplus
}
#endif
#endif
