/* Features of the user: a table of functions for the life of the process; their state is plain doubles inside the
 * block. */
#include <string.h>

#include "plan.h"

#define NAME_LIMIT 64
#define DOUBLES_LIMIT 1000000u

typedef struct entry {
    char name[NAME_LIMIT];
    tf_user_feature feature;
} entry;

typedef struct registry {
    uint32_t count;
    entry entries[TF_USER_LIMIT];
} registry;

static registry own;
static registry *shared = &own;

void *tf_feature_registry(void) { return shared; }

void tf_feature_adopt(void *other) { shared = other; }

static const tf_user_feature *find(uint32_t kind) {
    if (kind < TF_FEATURE_USER || kind - TF_FEATURE_USER >= shared->count) return NULL;
    return &shared->entries[kind - TF_FEATURE_USER].feature;
}

int32_t tf_feature_register(const tf_user_feature *feature) {
    if (feature == NULL || feature->name == NULL || feature->update == NULL || feature->value == NULL) return -1;
    const size_t length = strlen(feature->name);
    if (length == 0 || length >= NAME_LIMIT || feature->doubles > DOUBLES_LIMIT || feature->on_trades > 1) return -1;
    for (uint32_t i = 0; i < shared->count; i++) {
        if (strcmp(shared->entries[i].name, feature->name) != 0) continue;
        const tf_user_feature *known = &shared->entries[i].feature;
        const int equal = known->update == feature->update && known->value == feature->value &&
                          known->doubles == feature->doubles && known->lookback == feature->lookback &&
                          known->on_trades == feature->on_trades;
        return equal ? (int32_t)(TF_FEATURE_USER + i) : -1;
    }
    if (shared->count == TF_USER_LIMIT) return -1;
    entry *made = &shared->entries[shared->count];
    memcpy(made->name, feature->name, length + 1);
    made->feature = *feature;
    made->feature.name = made->name;
    return (int32_t)(TF_FEATURE_USER + shared->count++);
}

const char *tf_user_name(uint32_t kind) { return find(kind)->name; }

size_t tf_user_bytes(uint32_t kind) { return sizeof(double) * (find(kind)->doubles + 2); }

uint32_t tf_user_feed(uint32_t kind, int on_events) {
    return find(kind)->on_trades && on_events ? TF_FEED_TRADE : TF_FEED_SAMPLE;
}

void tf_user_lookback(uint32_t kind, uint64_t *samples, uint64_t *nanoseconds) {
    const uint32_t lookback = find(kind)->lookback;
    *samples = lookback > 1 ? lookback : 1;
    *nanoseconds = 0;
}

/* The state: how often it was stepped, a spare, and the user's own doubles. */
void tf_user_step(tf_features *f, const tf_machine *machine, const tf_sample *sample) {
    double *state = tf_at(f, machine->offset);
    double view[TF_VIEW_SIZE] = {0.0}, param[TF_FEATURE_PARAMS];
    const tf_sample *s = sample != NULL ? sample : tf_last(f, machine->series);
    state[0] += 1.0;
    view[TF_VIEW_OPEN] = s->open;
    view[TF_VIEW_HIGH] = s->high;
    view[TF_VIEW_LOW] = s->low;
    view[TF_VIEW_CLOSE] = s->close;
    view[TF_VIEW_VOLUME] = s->volume;
    view[TF_VIEW_BID] = f->book.bid;
    view[TF_VIEW_ASK] = f->book.ask;
    view[TF_VIEW_BID_SIZE] = f->book.bid_size;
    view[TF_VIEW_ASK_SIZE] = f->book.ask_size;
    view[TF_VIEW_TRADE_PRICE] = f->trade.price;
    view[TF_VIEW_TRADE_SIZE] = f->trade.size;
    view[TF_VIEW_AGGRESSOR] = f->trade.aggressor;
    view[TF_VIEW_SECONDS] = tf_seconds(f->clock, f->first);
    view[TF_VIEW_COUNT] = state[0];
    memcpy(param, machine->param, sizeof param); /* the plan's own must not change, whatever the function does */
    find(machine->type)->update(state + 2, view, param);
}

static int user_ready(const tf_features *f, const tf_column *c) {
    const double *state = tf_state(f, c, 0);
    const uint32_t lookback = find(c->spec.kind)->lookback;
    return state[0] >= (lookback > 1 ? lookback : 1);
}

static double user_value(const tf_features *f, const tf_column *c) {
    double param[TF_FEATURE_PARAMS];
    memcpy(param, c->spec.param, sizeof param);
    const double value = find(c->spec.kind)->value((const double *)tf_state(f, c, 0) + 2, param);
    return isfinite(value) ? value : 0.0;
}

static const tf_feature_impl IMPL = {TF_FEED_SAMPLE, NULL, NULL, NULL, user_ready, user_value};

const tf_feature_impl *tf_user_impl(uint32_t kind) { return find(kind) != NULL ? &IMPL : NULL; }
