/* Positions, working orders, prices and rates, kept event by event. */
#include "risk/core.h"

#include <stdlib.h>
#include <string.h>

#define SUM_CHANGES 64 /* of the open quantity, until it is summed from the orders again */

/* ---- memory ---- */

/* Room for `needed` entries of `size` bytes in an array, doubled when it is full; false: no memory, nothing changed. */
static bool grow(tf_risk *risk, void **array, uint32_t *room, uint64_t needed, size_t size) {
    if (needed <= *room) return true;
    uint64_t larger = *room ? 2ull * *room : needed;
    while (larger < needed) larger *= 2;
    if (larger >= TF_RISK_NONE) return false;
    void *moved = realloc(*array, larger * size);
    if (!moved) return false;
    if (*room) risk->counts.grown++;
    *array = moved;
    *room = (uint32_t)larger;
    return true;
}

static bool grow_instruments(tf_risk *risk, uint64_t needed) {
    if (needed <= risk->instrument_room) return true;
    uint32_t room = risk->instrument_room;
    if (!grow(risk, (void **)&risk->instruments, &room, needed, sizeof *risk->instruments)) return false;
    uint32_t *changed = realloc(risk->changed, room * sizeof *changed);
    if (!changed) return false;
    risk->changed = changed;
    if (!tf_vector_grow(risk, room)) return false;
    risk->instrument_room = room;
    return true;
}

static bool grow_positions(tf_risk *risk) {
    const uint32_t before = risk->position_room;
    if (!grow(risk, (void **)&risk->positions, &risk->position_room, before + 1ull, sizeof *risk->positions))
        return false;
    for (uint32_t i = risk->position_room; i > before; i--) {
        risk->positions[i - 1].instrument = TF_RISK_NONE;
        risk->positions[i - 1].next = risk->position_free;
        risk->position_free = i - 1;
    }
    return true;
}

static bool grow_orders(tf_risk *risk) {
    const uint32_t before = risk->order_room;
    if (!grow(risk, (void **)&risk->orders, &risk->order_room, before + 1ull, sizeof *risk->orders)) return false;
    for (uint32_t i = risk->order_room; i > before; i--) {
        risk->orders[i - 1].used = false;
        risk->orders[i - 1].next = risk->order_free;
        risk->order_free = i - 1;
    }
    return true;
}

tf_risk *tf_risk_new(const tf_risk_capacity *capacity) {
    tf_risk *risk = calloc(1, sizeof *risk);
    if (!risk) return NULL;
    const uint32_t instruments = capacity && capacity->instruments ? capacity->instruments : 64;
    const uint32_t positions = capacity && capacity->positions ? capacity->positions : 64;
    const uint32_t orders = capacity && capacity->orders ? capacity->orders : 64;
    risk->position_free = risk->order_free = TF_RISK_NONE;
    risk->equity = NAN;
    risk->scan = tf_scan_active();
    risk->level = risk->next_level = 0.99;
    risk->rebuild_interval = 4096;
    bool made = grow_instruments(risk, instruments) &&
                grow(risk, (void **)&risk->rates, &risk->rate_room, 8, sizeof *risk->rates);
    while (made && risk->position_room < positions) made = grow_positions(risk);
    while (made && risk->order_room < orders) made = grow_orders(risk);
    if (!made) {
        tf_risk_free(risk);
        return NULL;
    }
    risk->counts.grown = 0;
    for (uint32_t i = 0; i < risk->rate_room; i++) risk->rates[i] = i ? NAN : 1.0;
    return risk;
}

void tf_risk_free(tf_risk *risk) {
    if (!risk) return;
    tf_vector_free(risk);
    free(risk->instruments);
    free(risk->positions);
    free(risk->orders);
    free(risk->rates);
    free(risk->changed);
    free(risk);
}

/* ---- instruments ---- */

static void clear_instrument(tf_instrument *of) {
    of->bid = of->ask = of->mid = of->last = NAN;
    of->ts = 0;
    of->valid = of->crossed = of->exposed = of->reach_known = false;
    of->positions = of->orders = of->orders_end = TF_RISK_NONE;
    of->position_count = of->order_count = of->special_count = of->sum_changes = 0;
    of->buys = of->sells = of->buys_peak = of->sells_peak = 0.0;
    of->net = of->low = of->high = of->worst = 0.0;
}

/* Its reach, mark or rate is another: for the sums of limits.c. */
static void changed(tf_risk *risk, uint32_t instrument) {
    tf_instrument *of = &risk->instruments[instrument];
    if (of->listed) return;
    of->listed = true;
    risk->changed[risk->changed_count++] = instrument;
}

static void moved(tf_risk *risk, uint32_t instrument) {
    tf_instrument *of = &risk->instruments[instrument];
    of->exposed = of->net != 0.0 || of->order_count > 0;
    of->reach_known = false;
    changed(risk, instrument);
    tf_vector_mark(risk, instrument);
}

tf_status tf_risk_add_instrument(tf_risk *risk, const tf_risk_facts *facts, int64_t row, int64_t stress_row,
                                 uint32_t *instrument) {
    if (facts->payoff > TF_PAYOFF_BINARY || !(facts->multiplier > 0.0) || !isfinite(facts->multiplier) ||
        row >= (int64_t)risk->matrix[0].rows || stress_row >= (int64_t)risk->matrix[1].rows)
        return TF_ERR_ARGUMENT;
    if (!grow_instruments(risk, risk->instrument_count + 1ull)) return TF_ERR_MEMORY;
    const uint32_t added = risk->instrument_count;
    tf_instrument *of = &risk->instruments[added];
    memset(of, 0, sizeof *of);
    of->facts = *facts;
    of->row = row < 0 ? -1 : row;
    of->stress_row = stress_row < 0 ? -1 : stress_row;
    clear_instrument(of);
    risk->instrument_count++;
    const tf_status status = tf_vector_measure(risk, added);
    if (status != TF_OK) {
        risk->instrument_count--;
        return status;
    }
    moved(risk, added);
    *instrument = added;
    return TF_OK;
}

void tf_risk_order_names(tf_risk *risk, int (*compare)(void *context, uint32_t a, uint32_t b), void *context) {
    risk->compare = compare;
    risk->context = context;
}

void tf_risk_reset(tf_risk *risk) {
    for (uint32_t i = 0; i < risk->instrument_count; i++) clear_instrument(&risk->instruments[i]);
    risk->position_free = risk->order_free = TF_RISK_NONE;
    for (uint32_t i = risk->position_room; i > 0; i--) {
        risk->positions[i - 1].instrument = TF_RISK_NONE;
        risk->positions[i - 1].next = risk->position_free;
        risk->position_free = i - 1;
    }
    for (uint32_t i = risk->order_room; i > 0; i--) {
        risk->orders[i - 1].used = false;
        risk->orders[i - 1].next = risk->order_free;
        risk->order_free = i - 1;
    }
    risk->order_count = 0;
    for (uint32_t i = 1; i < risk->rate_room; i++) risk->rates[i] = NAN;
    risk->equity = NAN;
    tf_vector_reset(risk);
    for (uint32_t i = 0; i < risk->instrument_count; i++) changed(risk, i);
    risk->counts = (tf_risk_counts){0};
}

/* ---- quantities ---- */

double tf_state_snap(const tf_instrument *of, double quantity) {
    const double lot = of->facts.size_increment;
    if (lot > 0.0 && isfinite(quantity)) {
        const double lots = quantity / lot, whole = nearbyint(lots);
        if (fabs(lots - whole) < 1e-6) return whole * lot;
    }
    return quantity;
}

double tf_state_tolerance(const tf_instrument *of, double quantity) {
    return of->facts.size_increment > 0.0 ? 1e-6 * of->facts.size_increment : 1e-12 * fabs(quantity);
}

/* ---- market ---- */

int tf_risk_on_quote(tf_risk *risk, uint32_t instrument, double bid, double ask, uint64_t ts) {
    tf_instrument *of = &risk->instruments[instrument];
    if (ts < of->ts) {
        risk->counts.backward_quotes++;
        return TF_QUOTE_BACKWARD;
    }
    of->ts = ts;
    of->valid = of->facts.payoff == TF_PAYOFF_BINARY ? 0.0 <= bid && bid <= ask && ask <= 1.0 && ask > 0.0 && bid < 1.0
                                                     : 0.0 < bid && bid <= ask && ask < INFINITY;
    of->crossed = bid > ask;
    if (!of->valid) {
        risk->counts.invalid_quotes++;
        return TF_QUOTE_UNUSABLE;
    }
    of->bid = bid;
    of->ask = ask;
    const double mid = bid + 0.5 * (ask - bid);
    if (mid != of->mid) {
        of->mid = mid;
        changed(risk, instrument);
        if (of->exposed && !of->dirty) tf_vector_mark_price(risk, instrument);
    }
    return TF_QUOTE_USED;
}

void tf_risk_on_last(tf_risk *risk, uint32_t instrument, double price) {
    tf_instrument *of = &risk->instruments[instrument];
    const bool binary = of->facts.payoff == TF_PAYOFF_BINARY;
    if (binary ? price >= 0.0 && price <= 1.0 : price > 0.0 && price < INFINITY) of->last = price;
}

double tf_state_rate(const tf_risk *risk, uint32_t currency) {
    return currency < risk->rate_room ? risk->rates[currency] : NAN;
}

tf_status tf_risk_on_rate(tf_risk *risk, uint32_t currency, double value) {
    const bool usable = value > 0.0 && value < INFINITY;
    if (currency == 0) {
        if (value != 1.0) risk->counts.invalid_rates++;
        return TF_OK;
    }
    const double before = tf_state_rate(risk, currency);
    if (!usable) {
        risk->counts.invalid_rates++;
        if (before != before) return TF_OK; /* NaN: there was none */
        value = NAN;
    } else if (before == value) {
        return TF_OK;
    }
    if (currency >= risk->rate_room) {
        const uint32_t room = risk->rate_room;
        if (!grow(risk, (void **)&risk->rates, &risk->rate_room, currency + 1ull, sizeof *risk->rates))
            return TF_ERR_MEMORY;
        for (uint32_t i = room; i < risk->rate_room; i++) risk->rates[i] = NAN;
    }
    risk->rates[currency] = value;
    for (uint32_t i = 0; i < risk->instrument_count; i++) {
        tf_instrument *of = &risk->instruments[i];
        if (of->facts.currency != currency) continue;
        changed(risk, i);
        if (of->exposed) tf_vector_mark(risk, i);
    }
    return TF_OK;
}

void tf_risk_on_equity(tf_risk *risk, double value) { risk->equity = isfinite(value) ? value : NAN; }

void tf_risk_on_margin_rate(tf_risk *risk, uint32_t instrument, double rate) {
    risk->instruments[instrument].facts.margin_rate = rate;
    changed(risk, instrument);
}

/* ---- positions ---- */

static int compare_names(const tf_risk *risk, uint32_t a, uint32_t b) {
    if (a == b) return 0;
    if (risk->compare) return risk->compare(risk->context, a, b);
    return a < b ? -1 : 1;
}

/* The position of these names, made when there is none; TF_RISK_NONE: no memory. Without a position id a venue nets,
 * but each strategy must still be able to close what it opened. The list is sorted by names. */
static uint32_t find_position(tf_risk *risk, uint32_t instrument, uint32_t account, uint32_t position,
                              uint32_t strategy) {
    uint32_t before = TF_RISK_NONE, at = risk->instruments[instrument].positions;
    for (; at != TF_RISK_NONE; before = at, at = risk->positions[at].next) {
        const tf_position *other = &risk->positions[at];
        int order = compare_names(risk, other->account, account);
        if (!order) order = compare_names(risk, other->position, position);
        if (!order && !position) order = compare_names(risk, other->strategy, strategy);
        if (!order) return at;
        if (order > 0) break;
    }
    if (risk->position_free == TF_RISK_NONE && !grow_positions(risk)) return TF_RISK_NONE;
    const uint32_t made = risk->position_free;
    tf_position *it = &risk->positions[made];
    risk->position_free = it->next;
    *it = (tf_position){.instrument = instrument,
                        .account = account,
                        .position = position,
                        .strategy = strategy,
                        .next = at,
                        .last_price = NAN};
    if (before == TF_RISK_NONE) risk->instruments[instrument].positions = made;
    else risk->positions[before].next = made;
    risk->instruments[instrument].position_count++;
    return made;
}

/* A position changed: forget it when it is flat, and sum anew. */
static void position_moved(tf_risk *risk, uint32_t instrument, uint32_t position) {
    tf_instrument *of = &risk->instruments[instrument];
    if (risk->positions[position].quantity == 0.0) {
        uint32_t *link = &of->positions;
        while (*link != position) link = &risk->positions[*link].next;
        *link = risk->positions[position].next;
        risk->positions[position].instrument = TF_RISK_NONE;
        risk->positions[position].next = risk->position_free;
        risk->position_free = position;
        of->position_count--;
    }
    double net = 0.0;
    for (uint32_t p = of->positions; p != TF_RISK_NONE; p = risk->positions[p].next) net += risk->positions[p].quantity;
    of->net = tf_state_snap(of, net);
    moved(risk, instrument);
}

tf_status tf_risk_on_fill(tf_risk *risk, uint32_t instrument, uint32_t account, uint32_t position, uint32_t strategy,
                          double signed_quantity, double price) {
    const uint32_t at = find_position(risk, instrument, account, position, strategy);
    if (at == TF_RISK_NONE) return TF_ERR_MEMORY;
    tf_position *it = &risk->positions[at];
    it->quantity = tf_state_snap(&risk->instruments[instrument], it->quantity + signed_quantity);
    it->last_price = price;
    const bool finite = isfinite(it->quantity);
    position_moved(risk, instrument, at);
    return finite ? TF_OK : TF_ERR_NONFINITE;
}

tf_status tf_risk_set_position(tf_risk *risk, uint32_t instrument, uint32_t account, uint32_t position,
                               uint32_t strategy, double quantity, double price) {
    if (!isfinite(quantity)) return TF_ERR_NONFINITE;
    const uint32_t at = find_position(risk, instrument, account, position, strategy);
    if (at == TF_RISK_NONE) return TF_ERR_MEMORY;
    tf_position *it = &risk->positions[at];
    it->strategy = strategy;
    it->quantity = tf_state_snap(&risk->instruments[instrument], quantity);
    it->last_price = price;
    position_moved(risk, instrument, at);
    return TF_OK;
}

/* ---- working orders ---- */

/* Open quantity of the plain orders, from the orders themselves. */
static void sum_orders(tf_risk *risk, tf_instrument *of) {
    double buys = 0.0, sells = 0.0;
    if (of->order_count > of->special_count) {
        for (uint32_t o = of->orders; o != TF_RISK_NONE; o = risk->orders[o].next) {
            const tf_working *working = &risk->orders[o];
            if (!working->capped && !working->view.group) *(working->view.side > 0 ? &buys : &sells) += working->leaves;
        }
    }
    of->buys = of->buys_peak = buys;
    of->sells = of->sells_peak = sells;
    of->sum_changes = 0;
}

/* The open quantity of a plain order changed. A sum that falls to half of what it was, or was changed often, is summed
 * anew, so that the rounding in it stays that of a few additions; so is one that is NaN. */
static void change_sum(tf_risk *risk, tf_instrument *of, int side, double change) {
    double *sum = side > 0 ? &of->buys : &of->sells, *peak = side > 0 ? &of->buys_peak : &of->sells_peak;
    *sum += change;
    if (*sum > *peak) *peak = *sum;
    if (!(*sum >= 0.5 * *peak) || ++of->sum_changes >= SUM_CHANGES || of->order_count == of->special_count)
        sum_orders(risk, of);
}

static bool same_group(const tf_risk_order *a, const tf_risk_order *b) {
    return a->group == b->group && a->account == b->account && a->strategy == b->strategy && a->side == b->side;
}

/* Finds the first orders that this one's sums are collected in, or makes it the first. */
static void find_heads(tf_risk *risk, uint32_t order) {
    tf_working *it = &risk->orders[order];
    it->group_head = it->place_head = it->closer_head = order;
    bool closer = !it->capped, group = !it->view.group, place = group; /* found, or not looked for */
    const tf_risk_order *view = &it->view;
    uint32_t o = risk->instruments[view->instrument].orders;
    for (; o != TF_RISK_NONE && !(closer && group && place); o = risk->orders[o].next) {
        const tf_working *other = &risk->orders[o];
        if (o == order) continue;
        if (!closer && other->capped && other->view.account == view->account && other->view.side == view->side &&
            other->view.position == view->position && (view->position || other->view.strategy == view->strategy)) {
            it->closer_head = other->closer_head;
            closer = true;
        }
        if (place || !other->view.group || !same_group(&other->view, view)) continue;
        it->group_head = other->group_head;
        group = true;
        if (other->view.position == view->position) {
            it->place_head = other->place_head;
            place = true;
        }
    }
}

/* Orders whose first order is `gone` get the oldest of those that are left. */
static void replace_heads(tf_risk *risk, uint32_t instrument, uint32_t gone) {
    uint32_t group = TF_RISK_NONE, closer = TF_RISK_NONE, place = TF_RISK_NONE;
    for (uint32_t o = risk->instruments[instrument].orders; o != TF_RISK_NONE; o = risk->orders[o].next) {
        tf_working *other = &risk->orders[o];
        if (o == gone) continue;
        if (other->group_head == gone) other->group_head = group == TF_RISK_NONE ? (group = o) : group;
        if (other->place_head == gone) other->place_head = place == TF_RISK_NONE ? (place = o) : place;
        if (other->closer_head == gone) other->closer_head = closer == TF_RISK_NONE ? (closer = o) : closer;
    }
}

static void unlink_order(tf_risk *risk, uint32_t order) {
    tf_working *it = &risk->orders[order];
    tf_instrument *of = &risk->instruments[it->view.instrument];
    const bool plain = !it->capped && !it->view.group;
    const int side = it->view.side;
    if (!plain) replace_heads(risk, it->view.instrument, order);
    if (it->before == TF_RISK_NONE) of->orders = it->next;
    else risk->orders[it->before].next = it->next;
    if (it->next == TF_RISK_NONE) of->orders_end = it->before;
    else risk->orders[it->next].before = it->before;
    of->order_count--;
    if (plain) change_sum(risk, of, side, -it->leaves);
    else of->special_count--;
    moved(risk, it->view.instrument);
}

uint32_t tf_risk_order_working(tf_risk *risk, const tf_risk_order *order, double filled) {
    tf_instrument *of = &risk->instruments[order->instrument];
    uint32_t at = order->order, before = of->orders_end;
    if (at != TF_RISK_NONE) {
        /* In its place, unless it is of another instrument now. */
        const bool stays = risk->orders[at].view.instrument == order->instrument;
        if (stays) before = risk->orders[at].before;
        unlink_order(risk, at);
        if (!stays) before = of->orders_end;
    } else {
        if (risk->order_free == TF_RISK_NONE && !grow_orders(risk)) return TF_RISK_NONE;
        at = risk->order_free;
        risk->order_free = risk->orders[at].next;
        risk->order_count++;
    }
    tf_working *it = &risk->orders[at];
    const uint32_t next = before == TF_RISK_NONE ? of->orders : risk->orders[before].next;
    *it = (tf_working){.view = *order,
                       .filled = filled,
                       .leaves = tf_larger(order->quantity - filled, 0.0),
                       .next = next,
                       .before = before,
                       .used = true,
                       .capped = order->reduce_only};
    it->view.order = at;
    *(before == TF_RISK_NONE ? &of->orders : &risk->orders[before].next) = at;
    *(next == TF_RISK_NONE ? &of->orders_end : &risk->orders[next].before) = at;
    of->order_count++;
    find_heads(risk, at);
    if (it->capped || it->view.group) of->special_count++;
    else change_sum(risk, of, it->view.side, it->leaves);
    moved(risk, order->instrument);
    return at;
}

/* Whole or filled quantity are others; whether nothing is left to fill. */
static bool resize(tf_risk *risk, uint32_t order) {
    tf_working *it = &risk->orders[order];
    tf_instrument *of = &risk->instruments[it->view.instrument];
    const double before = it->leaves;
    it->leaves = tf_larger(it->view.quantity - it->filled, 0.0);
    if (!it->capped && !it->view.group) change_sum(risk, of, it->view.side, it->leaves - before);
    moved(risk, it->view.instrument);
    return it->leaves <= tf_state_tolerance(of, it->view.quantity);
}

bool tf_risk_order_changed(tf_risk *risk, uint32_t order, double quantity, double price, double trigger) {
    tf_risk_order *view = &risk->orders[order].view;
    view->quantity = quantity;
    view->price = price;
    view->trigger = trigger;
    return resize(risk, order);
}

bool tf_risk_order_filled(tf_risk *risk, uint32_t order, double quantity) {
    tf_working *it = &risk->orders[order];
    it->filled = tf_state_snap(&risk->instruments[it->view.instrument], it->filled + quantity);
    return resize(risk, order);
}

void tf_risk_order_closed(tf_risk *risk, uint32_t order) {
    if (!tf_state_working(risk, order)) return;
    unlink_order(risk, order);
    risk->orders[order].used = false;
    risk->orders[order].next = risk->order_free;
    risk->order_free = order;
    risk->order_count--;
}

/* ---- readings ---- */

double tf_risk_net(const tf_risk *risk, uint32_t instrument) { return risk->instruments[instrument].net; }
double tf_risk_mark(const tf_risk *risk, uint32_t instrument) { return risk->instruments[instrument].mid; }
double tf_risk_rate(const tf_risk *risk, uint32_t currency) { return tf_state_rate(risk, currency); }
double tf_risk_equity(const tf_risk *risk) { return risk->equity; }
tf_risk_counts tf_risk_counters(const tf_risk *risk) { return risk->counts; }

void tf_state_reached(tf_risk *risk, uint32_t instrument) {
    tf_instrument *of = &risk->instruments[instrument];
    if (of->reach_known) return;
    tf_state_reach(risk, instrument, NULL, 0.0, &of->low, &of->high);
    of->reach_known = true;
}

tf_instrument *tf_state_instrument(tf_risk *risk, uint32_t instrument) { return &risk->instruments[instrument]; }
uint32_t tf_state_instruments(const tf_risk *risk) { return risk->instrument_count; }

tf_working *tf_state_working(tf_risk *risk, uint32_t order) {
    return order < risk->order_room && risk->orders[order].used ? &risk->orders[order] : NULL;
}

tf_position *tf_state_position(tf_risk *risk, uint32_t position) { return &risk->positions[position]; }
uint32_t tf_state_working_count(const tf_risk *risk) { return risk->order_count; }

uint32_t tf_state_changed(tf_risk *risk, const uint32_t **instruments) {
    for (uint32_t i = 0; i < risk->changed_count; i++) tf_state_reached(risk, risk->changed[i]);
    *instruments = risk->changed;
    return risk->changed_count;
}

void tf_state_changed_done(tf_risk *risk) {
    for (uint32_t i = 0; i < risk->changed_count; i++) risk->instruments[risk->changed[i]].listed = false;
    risk->changed_count = 0;
    risk->drains++;
}

uint64_t tf_state_drains(const tf_risk *risk) { return risk->drains; }
