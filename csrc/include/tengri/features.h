/* The feature plan: a list of specs compiled into one block of state and one output row. */
#ifndef TENGRI_FEATURES_H
#define TENGRI_FEATURES_H

#include "events.h"
#include "isa.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TF_FEATURE_PARAMS 4
/* Raised whenever a feature's number changes for the same input; part of the plan hash and of saved state. */
#define TF_FEATURE_ENGINE_VERSION 1u
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
    TF_PARAM_FLAG = 5      /* 0 or 1 */
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

/* One column of the row. `kind` is a row of the feature table; unused parameters are zero. The normalised value is
 * clip((value - mean) / scale, -clip, +clip), with clip = 0 meaning none. */
typedef struct tf_feature_spec {
    uint32_t kind;
    uint32_t reserved;
    double param[TF_FEATURE_PARAMS];
    double mean;
    double scale;
    double clip;
} tf_feature_spec;

typedef struct tf_features tf_features; /* position independent: memcpy of the block is an exact copy */

/* Events and nanoseconds that must pass before the feature is ready (either may be zero). */
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
/* TF_OK when `memory` holds a block made by this version for exactly these specs, with every index in range. */
tf_status tf_features_check(const void *memory, size_t bytes, const tf_feature_spec *specs, int32_t count);

#ifdef __cplusplus
}
#endif
#endif
