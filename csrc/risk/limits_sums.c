/* What exposures and working orders add up to per scope.
 *
 * Each instrument's part is kept beside the sums of the portfolio, its venue and its bucket; a change subtracts the old
 * part and adds the new one. Scopes of strategies have parts of their own, from the positions and orders of the
 * strategy alone: what others hold neither adds to it nor offsets it. */
#include <math.h>
#include <string.h>

#include "limits.h"

static void add(tf_totals *sums, const tf_part *part, int sign) {
    sums->gross += sign * part->gross;
    sums->low += sign * part->low;
    sums->high += sign * part->high;
    sums->margin += sign * part->margin;
    sums->notional += sign * part->notional;
    sums->working += (uint32_t)(sign * (int64_t)part->working);
    sums->unvalued += (uint32_t)(sign * (int)part->unvalued);
    sums->unvalued_orders += (uint32_t)(sign * (int)part->unvalued_orders);
}

/* Signed value of a quantity; 0 needs no price. */
static double value_of(const tf_risk *risk, uint32_t instrument, double quantity) {
    if (quantity == 0.0) return 0.0;
    return quantity * tf_state_unit(risk, instrument, quantity > 0.0 ? 1 : -1);
}

void tf_sums_value(const tf_risk *risk, const tf_instrument *of, uint32_t instrument, double low, double high,
                   tf_part *part) {
    double bottom = value_of(risk, instrument, low);
    double top = low == high ? bottom : value_of(risk, instrument, high);
    part->unvalued = !(isfinite(bottom) && isfinite(top));
    if (part->unvalued) bottom = top = 0.0;
    part->low = bottom;
    part->high = top;
    part->gross = fmax(fabs(bottom), fabs(top));
    /* An instrument without a margin rate is taken as fully paid. */
    part->margin = part->gross * (of->facts.margin_rate > 0.0 ? of->facts.margin_rate : 1.0);
}

/* Whether a plain working order is the largest of its exclusive group within the list; the first of equals is. */
static bool leads(tf_risk *risk, const tf_instrument *of, uint32_t handle, const tf_working *working, uint32_t skip) {
    for (uint32_t at = of->orders; at != TF_RISK_NONE;) {
        const tf_working *other = tf_state_working(risk, at);
        if (at != handle && at != skip && !other->capped && other->view.group == working->view.group &&
            other->view.side == working->view.side && other->view.strategy == working->view.strategy &&
            other->view.account == working->view.account &&
            (other->leaves > working->leaves || (other->leaves == working->leaves && at < handle)))
            return false;
        at = other->next;
    }
    return true;
}

void tf_sums_cell_reach(tf_risk *risk, uint32_t instrument, uint32_t strategy, const tf_risk_order *order,
                        double leaves, double *low, double *high) {
    const tf_instrument *of = tf_state_instrument(risk, instrument);
    double net = 0.0, plain[2] = {0.0, 0.0}, cut[2] = {0.0, 0.0}, mates = 0.0;
    uint32_t skip = order ? order->order : TF_RISK_NONE;
    for (uint32_t at = of->positions; at != TF_RISK_NONE;) {
        const tf_position *position = tf_state_position(risk, at);
        if (position->strategy == strategy) net += position->quantity;
        at = position->next;
    }
    for (uint32_t at = of->orders; at != TF_RISK_NONE;) {
        const tf_working *working = tf_state_working(risk, at);
        const tf_risk_order *view = &working->view;
        if (at != skip && view->strategy == strategy) {
            int side = view->side > 0;
            bool mate = order && order->group && view->group == order->group && view->side == order->side &&
                        view->account == order->account && order->strategy == strategy && !working->capped;
            if (working->capped) cut[side] += working->leaves;
            else if (mate) mates = fmax(mates, working->leaves);
            else if (view->group == 0 || leads(risk, of, at, working, skip)) plain[side] += working->leaves;
        }
        at = working->next;
    }
    if (order && order->strategy == strategy) {
        int side = order->side > 0;
        if (order->reduce_only) {
            cut[side] += leaves;
            plain[side] += mates;
        } else {
            plain[side] += order->group ? fmax(mates, leaves) : leaves;
        }
    }
    net = tf_state_snap(of, net);
    *low = tf_state_snap(of, net - plain[0] - fmin(cut[0], fmax(net, 0.0)));
    *high = tf_state_snap(of, net + plain[1] + fmin(cut[1], fmax(-net, 0.0)));
}

/* Number and value of the working orders of an instrument, of one strategy or (TF_RISK_NONE) of all. */
static void sum_orders(tf_risk *risk, const tf_instrument *of, uint32_t strategy, tf_part *part) {
    part->working = 0;
    part->notional = 0.0;
    for (uint32_t at = of->orders; at != TF_RISK_NONE;) {
        const tf_working *working = tf_state_working(risk, at);
        if (strategy == TF_RISK_NONE || working->view.strategy == strategy) {
            double value = tf_state_notional(risk, &working->view, working->leaves);
            part->working++;
            if (isfinite(value)) part->notional += value;
            else part->unvalued_orders = true;
        }
        at = working->next;
    }
}

/* Best prices at which own orders rest. Those that wait for a trigger do not rest yet. */
static void find_resting(tf_risk *risk, const tf_instrument *of, tf_tradable *tradable) {
    tradable->own_bid = tradable->own_ask = NAN;
    for (uint32_t at = of->orders; at != TF_RISK_NONE;) {
        const tf_working *working = tf_state_working(risk, at);
        const tf_risk_order *view = &working->view;
        if ((view->type == TF_ORDER_LIMIT || view->type == TF_ORDER_MARKET_TO_LIMIT) && !isnan(view->price)) {
            if (view->side > 0 && !(view->price <= tradable->own_bid)) tradable->own_bid = view->price;
            if (view->side < 0 && !(view->price >= tradable->own_ask)) tradable->own_ask = view->price;
        }
        at = working->next;
    }
}

static void measure(tf_limits *limits, tf_risk *risk, uint32_t i) {
    const tf_instrument *of = tf_state_instrument(risk, i);
    tf_part *part = &limits->parts[i];
    memset(part, 0, sizeof *part);
    if (limits->exposure) {
        tf_state_reached(risk, i);
        tf_sums_value(risk, of, i, of->low, of->high, part);
    }
    if (limits->working) sum_orders(risk, of, TF_RISK_NONE, part);
    if (limits->resting) find_resting(risk, of, &limits->tradable[i]);
    if (!limits->cells) return;
    for (uint32_t s = 0; s < limits->scope_count; s++) {
        tf_scope *scope = &limits->scopes[s];
        if (scope->kind != TF_SCOPE_STRATEGY) continue;
        tf_part *cell = &scope->cells[i];
        double low, high;
        memset(cell, 0, sizeof *cell);
        tf_sums_cell_reach(risk, i, scope->key, NULL, 0.0, &low, &high);
        tf_sums_value(risk, of, i, low, high, cell);
        if (limits->working) sum_orders(risk, of, scope->key, cell);
    }
}

bool tf_sums_holds(const tf_limits *limits, const tf_scope *scope, uint32_t instrument) {
    switch (scope->kind) {
    case TF_SCOPE_PORTFOLIO:
    case TF_SCOPE_STRATEGY: return true;
    case TF_SCOPE_INSTRUMENT: return scope->key == instrument;
    default: {
        uint32_t s = (uint32_t)(scope - limits->scopes);
        return limits->tradable[instrument].venue_scope == s || limits->tradable[instrument].bucket_scope == s;
    }
    }
}

/* Adds or takes away the parts of an instrument in every scope it belongs to. */
static void apply(tf_limits *limits, uint32_t i, int sign) {
    const tf_part *part = &limits->parts[i];
    const tf_tradable *of = &limits->tradable[i];
    limits->total += sign * (part->gross + part->notional);
    if (limits->all != TF_RISK_NONE) add(&limits->scopes[limits->all].sums, part, sign);
    if (of->venue_scope != TF_RISK_NONE) add(&limits->scopes[of->venue_scope].sums, part, sign);
    if (of->bucket_scope != TF_RISK_NONE) add(&limits->scopes[of->bucket_scope].sums, part, sign);
    if (of->own_scope != TF_RISK_NONE) add(&limits->scopes[of->own_scope].sums, part, sign);
    if (!limits->cells) return;
    for (uint32_t s = 0; s < limits->scope_count; s++)
        if (limits->scopes[s].kind == TF_SCOPE_STRATEGY)
            add(&limits->scopes[s].sums, &limits->scopes[s].cells[i], sign);
}

static void sum_anew(tf_limits *limits, bool measured, tf_risk *risk) {
    for (uint32_t s = 0; s < limits->scope_count; s++) memset(&limits->scopes[s].sums, 0, sizeof(tf_totals));
    limits->total = 0.0;
    for (uint32_t i = 0; i < limits->room; i++) {
        if (!measured) measure(limits, risk, i);
        apply(limits, i, 1);
    }
    limits->updates = 0;
    limits->largest = limits->total;
    limits->counts.resums++;
}

void tf_sums_bind(tf_limits *limits, tf_risk *risk) {
    for (uint32_t i = 0; i < limits->room; i++) {
        const tf_risk_facts *facts = &tf_state_instrument(risk, i)->facts;
        tf_tradable *of = &limits->tradable[i];
        of->venue_scope = of->bucket_scope = of->own_scope = TF_RISK_NONE;
        for (uint32_t s = 0; s < limits->scope_count; s++) {
            const tf_scope *scope = &limits->scopes[s];
            if (scope->kind == TF_SCOPE_VENUE && scope->key == facts->venue) of->venue_scope = s;
            if (scope->kind == TF_SCOPE_BUCKET && scope->key == facts->bucket) of->bucket_scope = s;
            if (scope->kind == TF_SCOPE_INSTRUMENT && scope->key == i) of->own_scope = s;
        }
    }
    limits->invalid = true;
}

void tf_sums_drain(tf_limits *limits, tf_risk *risk) {
    const uint32_t *changed;
    uint32_t count = tf_state_changed(risk, &changed);
    bool wanted = limits->scope_count || limits->resting;
    /* Somebody else read the list meanwhile. */
    if (tf_state_drains(risk) != limits->drains) limits->invalid = true;
    if (limits->invalid) {
        if (wanted) sum_anew(limits, false, risk);
        limits->invalid = false;
        tf_state_changed_done(risk);
        limits->drains = tf_state_drains(risk);
        return;
    }
    if (count == 0) return;
    if (wanted) {
        for (uint32_t k = 0; k < count; k++) {
            uint32_t i = changed[k];
            if (i >= limits->room) continue; /* orders of it are denied until there is room, which sums anew */
            apply(limits, i, -1);
            measure(limits, risk, i);
            apply(limits, i, 1);
            if (limits->total > limits->largest) limits->largest = limits->total;
        }
        limits->updates += count;
        /* What a much larger sum left behind by rounding would be seen in a small one; one that overflowed stays. */
        bool sound = limits->largest <= 1e4 * limits->total && isfinite(limits->total);
        if (limits->updates >= TF_RESUM_INTERVAL || !sound) sum_anew(limits, true, risk);
    }
    tf_state_changed_done(risk);
    limits->drains = tf_state_drains(risk);
}

uint32_t tf_sums_unvalued(const tf_limits *limits, const tf_scope *scope, uint32_t skip, bool orders) {
    for (uint32_t i = 0; i < limits->room; i++) {
        if (i == skip) continue;
        const tf_part *part = scope->kind == TF_SCOPE_STRATEGY ? &scope->cells[i] : &limits->parts[i];
        if ((orders ? part->unvalued_orders : part->unvalued) && tf_sums_holds(limits, scope, i)) return i;
    }
    return TF_RISK_NONE;
}
