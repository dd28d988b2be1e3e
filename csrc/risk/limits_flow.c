/* What has happened lately: rates, duplicates, repeated executions, extremes of the mid. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "limits.h"

/* ---- rings ---- */

/* A ring of another size keeps the latest times of `before`: they are all that a limit can still see. */
bool tf_ring_make(tf_ring *ring, uint32_t size, const tf_ring *before) {
    memset(ring, 0, sizeof *ring);
    ring->times = malloc((size ? size : 1) * sizeof *ring->times);
    if (!ring->times) return false;
    ring->size = size;
    if (before && before->count) {
        uint32_t keep = before->count < size ? before->count : size;
        for (uint32_t i = before->count - keep; i < before->count; i++)
            tf_ring_put(ring, before->times[(before->head + i) % before->size]);
    }
    return true;
}

void tf_ring_put(tf_ring *ring, uint64_t ts) {
    if (ring->size == 0) return;
    if (ring->count == ring->size) {
        ring->head = ring->head + 1 == ring->size ? 0 : ring->head + 1;
        ring->count--;
    }
    uint32_t at = ring->head + ring->count;
    ring->times[at >= ring->size ? at - ring->size : at] = ts;
    ring->count++;
}

/* The time that a put pushed out is lost; it was outside the window when the put was allowed. */
void tf_ring_drop_last(tf_ring *ring) {
    if (ring->count) ring->count--;
}

static uint64_t time_at(const tf_ring *ring, uint32_t i) {
    uint32_t at = ring->head + i;
    return ring->times[at >= ring->size ? at - ring->size : at];
}

/* From the latest back in growing steps, then by halves: few times are read when few are within. */
uint32_t tf_ring_within(const tf_ring *ring, uint64_t now, uint64_t window) {
    uint32_t low = 0, high = ring->count; /* the first one within lies in [low, high] */
    for (uint32_t step = 1; high > low; step *= 2) {
        uint32_t at = ring->count > step ? ring->count - step : 0;
        uint64_t ts = time_at(ring, at);
        if (now >= ts && now - ts >= window) {
            low = at + 1;
            break;
        }
        high = at;
    }
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        uint64_t ts = time_at(ring, middle);
        if (now < ts || now - ts < window) high = middle;
        else low = middle + 1;
    }
    return ring->count - low;
}

/* ---- duplicates ---- */

bool tf_duplicates_make(tf_duplicates *duplicates) {
    memset(duplicates, 0, sizeof *duplicates);
    duplicates->sent = malloc(TF_DUPLICATES_MAX * sizeof *duplicates->sent);
    duplicates->heads = calloc(TF_DUPLICATES_MAX, sizeof *duplicates->heads);
    duplicates->first = 1;
    if (duplicates->sent && duplicates->heads) return true;
    tf_duplicates_free(duplicates);
    return false;
}

void tf_duplicates_free(tf_duplicates *duplicates) {
    free(duplicates->sent);
    free(duplicates->heads);
    memset(duplicates, 0, sizeof *duplicates);
}

static uint64_t bits_of(double value) {
    uint64_t bits;
    if (isnan(value)) return 1; /* all NaN are the same "none" */
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static uint32_t chain_of(const tf_risk_order *order) {
    uint64_t h = ((uint64_t)order->strategy << 32 | order->instrument) * 0x9e3779b97f4a7c15u;
    h = (h ^ bits_of(order->quantity)) * 0xbf58476d1ce4e5b9u;
    h = (h ^ h >> 29 ^ bits_of(order->price)) * 0x94d049bb133111ebu;
    h = (h ^ h >> 31 ^ bits_of(order->trigger) ^ (uint64_t)order->type << 8 ^ (uint8_t)order->side) *
        0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 40) % TF_DUPLICATES_MAX;
}

static bool same_order(const tf_sent *sent, const tf_risk_order *order) {
    return sent->strategy == order->strategy && sent->instrument == order->instrument && sent->side == order->side &&
           sent->type == order->type && sent->quantity == order->quantity &&
           bits_of(sent->price) == bits_of(order->price) && bits_of(sent->trigger) == bits_of(order->trigger);
}

int tf_duplicates_find(const tf_duplicates *duplicates, const tf_risk_order *order, uint64_t name, uint64_t now,
                       uint64_t window, uint64_t *age) {
    for (uint32_t i = duplicates->heads[chain_of(order)]; i >= duplicates->first && i;) {
        const tf_sent *sent = &duplicates->sent[i % TF_DUPLICATES_MAX];
        if (now - sent->ts >= window) break; /* a chain goes back in time */
        if (same_order(sent, order) && !(name && sent->name == name)) {
            *age = now - sent->ts;
            return 1;
        }
        i = sent->link;
    }
    if (duplicates->first > 1) {
        /* The oldest one that is remembered tells whether one that is not could still count. */
        const tf_sent *oldest = &duplicates->sent[duplicates->first % TF_DUPLICATES_MAX];
        if (now - oldest->ts < window) return -1;
    }
    return 0;
}

void tf_duplicates_put(tf_duplicates *duplicates, const tf_risk_order *order, uint64_t name, uint64_t now) {
    if (duplicates->last ==
        UINT32_MAX - 1) { /* numbers start anew; what is known is forgotten once in 4 billion orders */
        memset(duplicates->heads, 0, TF_DUPLICATES_MAX * sizeof *duplicates->heads);
        duplicates->last = 0;
        duplicates->first = 1;
    }
    uint32_t number = ++duplicates->last;
    if (number - duplicates->first >= TF_DUPLICATES_MAX) duplicates->first = number - TF_DUPLICATES_MAX + 1;
    uint32_t chain = chain_of(order);
    duplicates->sent[number % TF_DUPLICATES_MAX] = (tf_sent){.strategy = order->strategy,
                                                             .instrument = order->instrument,
                                                             .link = duplicates->heads[chain],
                                                             .side = order->side,
                                                             .type = order->type,
                                                             .quantity = order->quantity,
                                                             .price = order->price,
                                                             .trigger = order->trigger,
                                                             .name = name,
                                                             .ts = now};
    duplicates->heads[chain] = number;
}

void tf_duplicates_drop_last(tf_duplicates *duplicates) {
    if (duplicates->last < duplicates->first) return;
    const tf_sent *sent = &duplicates->sent[duplicates->last % TF_DUPLICATES_MAX];
    tf_risk_order order = {.strategy = sent->strategy,
                           .instrument = sent->instrument,
                           .side = sent->side,
                           .type = sent->type,
                           .quantity = sent->quantity,
                           .price = sent->price,
                           .trigger = sent->trigger};
    duplicates->heads[chain_of(&order)] = sent->link;
    duplicates->last--;
}

/* ---- repeated executions ---- */

void tf_runs_free(tf_runs *runs) {
    for (uint32_t i = 0; i < runs->room; i++) free(runs->runs[i].times.times);
    free(runs->runs);
    memset(runs, 0, sizeof *runs);
}

static uint32_t place_of(const tf_runs *runs, uint32_t strategy, uint32_t instrument) {
    uint32_t at = (uint32_t)(((uint64_t)strategy << 32 | instrument) * 0x9e3779b97f4a7c15u >> 33) & (runs->room - 1);
    while (runs->runs[at].side && (runs->runs[at].strategy != strategy || runs->runs[at].instrument != instrument))
        at = (at + 1) & (runs->room - 1);
    return at;
}

static bool runs_grow(tf_runs *runs) {
    tf_runs larger = {.room = runs->room ? 2 * runs->room : 64, .used = runs->used};
    larger.runs = calloc(larger.room, sizeof *larger.runs);
    if (!larger.runs) return false;
    for (uint32_t i = 0; i < runs->room; i++)
        if (runs->runs[i].side)
            larger.runs[place_of(&larger, runs->runs[i].strategy, runs->runs[i].instrument)] = runs->runs[i];
    free(runs->runs);
    *runs = larger;
    return true;
}

int tf_limits_on_execution(tf_limits *limits, uint32_t strategy, uint32_t instrument, int side, uint64_t ts) {
    tf_runs *runs = &limits->runs;
    uint32_t most = limits->config.max_repeats;
    if (ts > limits->now) limits->now = ts;
    if (most == 0 || (side != 1 && side != -1)) return 0;
    if (2 * (runs->used + 1) > runs->room && !runs_grow(runs)) return -1;
    tf_run *run = &runs->runs[place_of(runs, strategy, instrument)];
    if (run->side == 0 || run->times.size != most) {
        tf_ring ring;
        if (!tf_ring_make(&ring, most, run->side ? &run->times : NULL)) return -1;
        free(run->times.times);
        runs->used += run->side == 0;
        *run = (tf_run){strategy, instrument, run->side ? run->side : (int8_t)side, ring};
    }
    if (run->side != side) {
        run->side = (int8_t)side;
        run->times.count = 0;
    }
    bool one_too_many = tf_ring_within(&run->times, limits->now, limits->config.repeat_window) >= most;
    tf_ring_put(&run->times, limits->now);
    return one_too_many;
}

void tf_limits_clear_executions(tf_limits *limits, uint32_t strategy) {
    for (uint32_t i = 0; i < limits->runs.room; i++)
        if (limits->runs.runs[i].side && limits->runs.runs[i].strategy == strategy)
            limits->runs.runs[i].times.count = 0;
}

/* ---- extremes of the mid ---- */

static uint64_t part_length(uint64_t window) { return window / TF_MID_PARTS ? window / TF_MID_PARTS : 1; }

void tf_mids_put(tf_mids *mids, double mid, uint64_t ts, uint64_t window) {
    if (!(mid > 0.0)) return;
    uint64_t part = ts / part_length(window) + 1;
    uint32_t at = (uint32_t)(part % (TF_MID_PARTS + 1));
    if (mids->part[at] != part) {
        if (part < mids->part[at]) return; /* older than the window */
        mids->part[at] = part;
        mids->low[at] = mids->high[at] = mid;
        return;
    }
    if (mid < mids->low[at]) mids->low[at] = mid;
    if (mid > mids->high[at]) mids->high[at] = mid;
}

bool tf_mids_extremes(const tf_mids *mids, uint64_t now, uint64_t window, double *low, double *high) {
    uint64_t part = now / part_length(window) + 1;
    bool any = false;
    for (uint32_t i = 0; i <= TF_MID_PARTS; i++) {
        if (mids->part[i] == 0 || mids->part[i] + TF_MID_PARTS < part) continue;
        if (!any || mids->low[i] < *low) *low = mids->low[i];
        if (!any || mids->high[i] > *high) *high = mids->high[i];
        any = true;
    }
    return any;
}
