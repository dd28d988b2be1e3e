/* What the parts of the feature engine call of one another; machine.h is for those who write features. */
#ifndef TENGRI_FEATURES_PLAN_H
#define TENGRI_FEATURES_PLAN_H

#include "machine.h"

/* plan.c: rows by number */
extern const uint32_t tf_kinds;
extern const tf_feature_impl *const tf_impls[];
extern const tf_machine_type *const tf_types[];
extern const tf_stage_type *const tf_stages[];

/* series.c: clocks. A close runs the machines of the clock and then its held columns. */
void tf_series_reset(tf_features *f);
int tf_series_sound(const tf_features *f);
/* The clock has moved. `ended`: by a bar that makes the book, whose time is its end and which belongs to what ends
 * then. */
void tf_series_time(tf_features *f, int ended);
void tf_series_book(tf_features *f, const tf_bar *bar); /* a new mid, or a bar that stands for one */
void tf_series_trade(tf_features *f);
void tf_series_bar(tf_features *f, const tf_bar *bar);

/* feed.c */
void tf_step(tf_features *f, uint32_t first_call, uint32_t calls, const tf_sample *sample);
void tf_hold(tf_features *f, uint32_t first_held, uint32_t helds);

/* user.c: features of the user; `kind` is at least TF_FEATURE_USER. */
const tf_feature_impl *tf_user_impl(uint32_t kind);
const char *tf_user_name(uint32_t kind);
size_t tf_user_bytes(uint32_t kind);
uint32_t tf_user_feed(uint32_t kind, int on_events);
void tf_user_lookback(uint32_t kind, uint64_t *samples, uint64_t *nanoseconds);
void tf_user_step(tf_features *f, const tf_machine *machine, const tf_sample *sample);

/* NULL where there is none. */
static inline const tf_feature_impl *tf_impl(uint32_t kind) {
    return kind < tf_kinds ? tf_impls[kind] : tf_user_impl(kind);
}

#endif
