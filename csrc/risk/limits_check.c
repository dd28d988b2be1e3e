/* One order against every rule. */
#include <math.h>
#include <string.h>

#include "limits.h"

typedef struct {
    tf_limits *limits;
    tf_risk *risk;
    const tf_risk_order *order;
    const tf_ask *ask;
    tf_verdict *out;
    const tf_instrument *of; /* NULL: unknown */
    uint64_t now;
    double equity;
    double leaves, low, high; /* open quantity; reach with the order */
    double notional;          /* of the whole order */
    bool has_reach, has_notional, has_tail;
    bool no_equity, no_value, no_tail; /* told already */
    tf_part after; /* what the instrument brings to a scope with the order */
    bool has_after;
    tf_risk_tail tail;
    uint32_t var_case, es_case;
} check;

static tf_violation *object(check *c, unsigned rule, double value, double limit, unsigned detail) {
    static tf_violation dropped; /* written, never read: the verdict is a denial already */
    c->out->allowed = false;
    if (c->out->count == TF_VIOLATIONS_MAX) return &dropped;
    tf_violation *made = &c->out->violations[c->out->count++];
    *made = (tf_violation){(uint8_t)rule, (uint8_t)detail, TF_RISK_NONE, TF_RISK_NONE, value, limit};
    return made;
}

/* ---- sanity ---- */

enum { PRICE = 1, TRIGGER = 2 };
static const uint8_t NEEDS[TF_ORDER_TYPES] = {
    [TF_ORDER_LIMIT] = PRICE,
    [TF_ORDER_STOP_MARKET] = TRIGGER,
    [TF_ORDER_STOP_LIMIT] = PRICE | TRIGGER,
    [TF_ORDER_MARKET_IF_TOUCHED] = TRIGGER,
    [TF_ORDER_LIMIT_IF_TOUCHED] = PRICE | TRIGGER,
};

static bool price_is_sane(check *c, double price, bool needed, double top, unsigned which) {
    if ((price > 0.0 && price <= top && isfinite(price)) || (isnan(price) && !needed)) return true;
    if (isnan(price))
        object(c, TF_NON_FINITE_PRICE, NAN, NAN, which == PRICE ? TF_DETAIL_NEEDS_PRICE : TF_DETAIL_NEEDS_TRIGGER);
    else if (isinf(price))
        object(c, TF_NON_FINITE_PRICE, NAN, NAN, which == PRICE ? TF_DETAIL_PRICE : TF_DETAIL_TRIGGER);
    else if (price <= 0.0)
        object(c, TF_NON_POSITIVE_PRICE, price, 0.0, which == PRICE ? TF_DETAIL_PRICE : TF_DETAIL_TRIGGER);
    else object(c, TF_PRICE_OUT_OF_RANGE, price, 1.0, which == PRICE ? TF_DETAIL_PRICE : TF_DETAIL_TRIGGER);
    return false;
}

static void ask_sanity(check *c) {
    const tf_risk_order *order = c->order;
    if (!c->of) object(c, TF_UNKNOWN_INSTRUMENT, NAN, NAN, TF_DETAIL_NONE);
    if (order->side != 1 && order->side != -1) object(c, TF_INVALID_SIDE, order->side, NAN, TF_DETAIL_NONE);
    if (!(order->quantity > 0.0 && isfinite(order->quantity))) {
        if (!isfinite(order->quantity)) object(c, TF_NON_FINITE_QUANTITY, NAN, NAN, TF_DETAIL_NONE);
        else object(c, TF_NON_POSITIVE_QUANTITY, order->quantity, 0.0, TF_DETAIL_NONE);
    }
    if (order->type >= TF_ORDER_TYPES) {
        object(c, TF_UNKNOWN_ORDER_TYPE, NAN, NAN, TF_DETAIL_NONE);
        return;
    }
    double top = c->of && c->of->facts.payoff == TF_PAYOFF_BINARY ? 1.0 : HUGE_VAL;
    if (price_is_sane(c, order->price, NEEDS[order->type] & PRICE, top, PRICE))
        price_is_sane(c, order->trigger, NEEDS[order->type] & TRIGGER, top, TRIGGER);
}

/* ---- integrity ---- */

static bool off_grid(double value, double increment) {
    if (!(increment > 0.0) || isnan(value)) return false;
    double steps = value / increment, whole = rint(steps);
    /* A decimal price has no exact binary value, so "on the grid" means within rounding of it. */
    return steps != whole && (whole == 0.0 || fabs(steps - whole) > 1e-9 * fabs(steps) + 1e-9);
}

static void ask_grid(check *c) {
    const tf_risk_order *order = c->order;
    const tf_risk_facts *facts = &c->of->facts;
    if (off_grid(order->price, facts->price_increment))
        object(c, TF_PRICE_TICK, order->price, facts->price_increment, TF_DETAIL_PRICE);
    else if (off_grid(order->trigger, facts->price_increment))
        object(c, TF_PRICE_TICK, order->trigger, facts->price_increment, TF_DETAIL_TRIGGER);
    if (off_grid(order->quantity, facts->size_increment))
        object(c, TF_QUANTITY_LOT, order->quantity, facts->size_increment, TF_DETAIL_NONE);
    else if (facts->max_quantity > 0.0 && order->quantity > facts->max_quantity)
        object(c, TF_MAX_QUANTITY, order->quantity, facts->max_quantity, TF_DETAIL_NONE);
    else if (order->quantity < facts->min_quantity && !c->out->reducing) /* the rest of a position stays closable */
        object(c, TF_MIN_QUANTITY, order->quantity, facts->min_quantity, TF_DETAIL_NONE);
}

static void ask_reference(check *c) {
    const tf_limits_config *config = &c->limits->config;
    bool collared = !isnan(config->collar_bps);
    if (c->out->reducing && (isnan(c->order->price) || !collared)) return;
    if (isnan(c->of->mid)) {
        object(c, TF_MISSING_REFERENCE_PRICE, NAN, NAN, TF_DETAIL_NO_QUOTE);
    } else if (!c->of->valid) {
        object(c, TF_MISSING_REFERENCE_PRICE, NAN, NAN, TF_DETAIL_BAD_QUOTE);
    } else if (config->stale) {
        uint64_t age = c->order->ts > c->of->ts ? c->order->ts - c->of->ts : c->of->ts - c->order->ts;
        if (age > config->stale) object(c, TF_STALE_REFERENCE_PRICE, (double)age, (double)config->stale, TF_DETAIL_NS);
    }
}

static bool touches(const tf_risk_order *order) {
    return order->type == TF_ORDER_MARKET_IF_TOUCHED || order->type == TF_ORDER_LIMIT_IF_TOUCHED;
}

/* Whether an order waits for a trigger that the market has not reached: a stop for the market to move its own way, an
 * if-touched order for it to come back. */
static bool waits(const check *c) {
    const tf_risk_order *order = c->order;
    if (order->type <= TF_ORDER_LIMIT || isnan(order->trigger)) return false; /* a plain order waits for nothing */
    double way = order->side * (order->trigger - c->of->mid);
    return touches(order) ? way < 0.0 : way > 0.0;
}

static void ask_collar(check *c) {
    const tf_limits_config *config = &c->limits->config;
    double price = c->order->price, bps = config->collar_bps;
    if (isnan(bps) || isnan(price) || isnan(c->of->mid) || !c->of->valid) return;
    double reference = config->collar_last ? c->of->last : c->of->mid;
    bool waiting = waits(c);
    if (waiting) reference = c->order->trigger;
    if (isnan(reference)) {
        object(c, TF_MISSING_REFERENCE_PRICE, NAN, NAN, TF_DETAIL_NO_TRADE);
        return;
    }
    double distance = fabs(price - reference) / reference * 1e4;
    /* A price exactly on the collar is inside; the slack is rounding, far below a tick. */
    if (distance > bps * (1.0 + 1e-9)) object(c, TF_PRICE_COLLAR, distance, bps, TF_DETAIL_BPS);
    double low, high;
    if (waiting || !c->limits->mids ||
        !tf_mids_extremes(&c->limits->mids[c->order->instrument], c->now, config->collar_window, &low, &high))
        return;
    distance = fmax((price - low) / low, (high - price) / high) * 1e4;
    if (distance > bps * (1.0 + 1e-9)) object(c, TF_PRICE_COLLAR_WINDOW, distance, bps, TF_DETAIL_BPS);
}

static void ask_duplicate(check *c) {
    uint64_t window = c->limits->config.duplicate_window, age = 0;
    if (!window || c->ask->modify) return;
    int found = tf_duplicates_find(&c->limits->duplicates, c->order, c->ask->name, c->now, window, &age);
    if (found > 0) object(c, TF_DUPLICATE_ORDER, (double)age, (double)window, TF_DETAIL_NS);
    if (found < 0) object(c, TF_DUPLICATE_ORDER, TF_DUPLICATES_MAX, TF_DUPLICATES_MAX, TF_DETAIL_NO_MEMORY);
}

static bool in_scope(const check *c, const tf_limit *spec) {
    switch (spec->scope) {
    case TF_SCOPE_VENUE: return c->of->facts.venue == spec->key;
    case TF_SCOPE_BUCKET: return c->of->facts.bucket == spec->key;
    case TF_SCOPE_INSTRUMENT: return c->order->instrument == spec->key;
    case TF_SCOPE_STRATEGY: return c->order->strategy == spec->key;
    default: return true;
    }
}

static bool counts_in(const check *c, const tf_limit *spec) {
    if (spec->rule == TF_MAX_ORDER_RATE && c->ask->modify) return false;
    return (spec->rule == TF_MAX_ORDER_RATE || spec->rule == TF_MAX_MESSAGE_RATE) && in_scope(c, spec);
}

static void ask_rates(check *c) {
    if (!c->limits->rates) return;
    for (uint32_t r = 0; r < c->limits->count; r++) {
        tf_row *row = &c->limits->rows[r];
        if (!row->ring.times || !counts_in(c, &row->spec)) continue;
        double used = 1.0 + tf_ring_within(&row->ring, c->now, row->spec.window);
        row->value = used;
        row->bound = row->spec.limit;
        double limit = row->spec.limit - (c->out->reducing ? 0.0 : row->spec.reserve);
        if (used > limit) object(c, row->spec.rule, used, limit, TF_DETAIL_MESSAGES)->row = r;
    }
}

/* ---- risk: what is not a row ---- */

static bool is_killed(const check *c) {
    const tf_limits *limits = c->limits;
    if (limits->kill_all) return true;
    for (uint32_t i = 0; i < limits->kill_count; i++) {
        tf_limit spec = {.scope = limits->kill_scopes[i], .key = limits->kill_keys[i]};
        if (in_scope(c, &spec)) return true;
    }
    return false;
}

static void ask_venue(check *c) {
    const tf_limits *limits = c->limits;
    const tf_tradable *tradable = &limits->tradable[c->order->instrument];
    if (!tradable->allowed) object(c, TF_INSTRUMENT_NOT_ALLOWED, NAN, NAN, TF_DETAIL_NONE);
    if (tradable->halted) object(c, TF_INSTRUMENT_HALTED, NAN, NAN, TF_DETAIL_NONE);
    if (tradable->calendar == TF_RISK_NONE) return;
    tf_calendar *calendar = &limits->calendars[tradable->calendar];
    if (c->now < calendar->part_from || c->now >= calendar->part_to) {
        if (c->now < calendar->from || c->now >= calendar->to) {
            object(c, TF_OUTSIDE_TRADING_WINDOW, NAN, NAN, TF_DETAIL_NO_CALENDAR);
            return;
        }
        uint32_t low = 0, high = calendar->count; /* the first boundary after now */
        while (low < high) {
            uint32_t middle = (low + high) / 2;
            if (calendar->bounds[middle] > c->now) high = middle;
            else low = middle + 1;
        }
        calendar->part_from = low ? calendar->bounds[low - 1] : calendar->from;
        calendar->part_to = low < calendar->count ? calendar->bounds[low] : calendar->to;
        calendar->open = low % 2;
    }
    if (!calendar->open) object(c, TF_OUTSIDE_TRADING_WINDOW, NAN, NAN, TF_DETAIL_NONE);
}

static void need_reach(check *c) {
    if (c->has_reach) return;
    tf_state_reach(c->risk, c->order->instrument, c->order, c->leaves, &c->low, &c->high);
    c->has_reach = true;
}

static void ask_short(check *c) {
    uint8_t rule = c->limits->tradable[c->order->instrument].short_rule;
    if (rule == 0 || c->order->side > 0) return;
    need_reach(c);
    if (!(c->low < -tf_state_tolerance(c->of, c->leaves))) return;
    if (rule == 1) object(c, TF_SHORT_SALE, c->low, 0.0, TF_DETAIL_FORBIDDEN);
    else if (!(c->order->price > c->of->bid)) /* also a market order, which has no price */
        object(c, TF_SHORT_SALE, c->order->price, c->of->bid, TF_DETAIL_UPTICK);
}

static void ask_self_trade(check *c) {
    const tf_tradable *tradable = &c->limits->tradable[c->order->instrument];
    const tf_risk_order *order = c->order;
    double own = order->side > 0 ? tradable->own_ask : tradable->own_bid;
    if (!c->limits->config.deny_self_trade || isnan(own) || c->ask->covered) return;
    if (waits(c) || order->type == TF_ORDER_TRAILING_STOP_MARKET || order->type == TF_ORDER_TRAILING_STOP_LIMIT) return;
    if (isnan(order->price) || order->side * (order->price - own) >= 0.0)
        object(c, TF_SELF_TRADE, order->price, own, TF_DETAIL_NONE);
}

static void ask_spread(check *c) {
    double limit = c->limits->config.max_spread_bps;
    if (isnan(limit) || isnan(c->of->mid) || !c->of->valid) return; /* a missing quote is denied elsewhere */
    double spread = (c->of->ask - c->of->bid) / c->of->mid * 1e4;
    if (spread > limit * (1.0 + 1e-9)) object(c, TF_MAX_SPREAD, spread, limit, TF_DETAIL_BPS);
}

static void ask_health(check *c) {
    const tf_limits_config *config = &c->limits->config;
    const tf_health *health = c->ask->health;
    bool rung = !isnan(config->max_rung), far = !isnan(config->max_out_of_distribution);
    bool sure = !isnan(config->min_confidence), age = config->max_signal_age != 0;
    if (!(rung || far || sure || age)) return;
    if (!health) {
        object(c, c->ask->health_failed ? TF_INTERNAL_ERROR : TF_MISSING_MODEL_HEALTH, NAN, NAN, TF_DETAIL_NONE);
        return;
    }
    /* Written so that a NaN is denied. */
    if (rung && !(health->rung <= config->max_rung))
        object(c, TF_MODEL_RUNG, health->rung, config->max_rung, TF_DETAIL_NONE);
    if (far && !(health->out_of_distribution <= config->max_out_of_distribution))
        object(c, TF_MODEL_OUT_OF_DISTRIBUTION, health->out_of_distribution, config->max_out_of_distribution,
               TF_DETAIL_NONE);
    if (sure && !(health->confidence >= config->min_confidence))
        object(c, TF_MODEL_CONFIDENCE, health->confidence, config->min_confidence, TF_DETAIL_NONE);
    uint64_t old = c->now > health->ts ? c->now - health->ts : health->ts - c->now;
    if (age && old > config->max_signal_age)
        object(c, TF_MODEL_SIGNAL_AGE, (double)old, (double)config->max_signal_age, TF_DETAIL_NS);
}

/* ---- risk: rows ---- */

static void no_value(check *c, uint32_t instrument) {
    if (c->no_value) return;
    c->no_value = true;
    const tf_instrument *of = tf_state_instrument(c->risk, instrument);
    bool rate = isnan(tf_state_rate(c->risk, of->facts.currency));
    object(c, rate ? TF_MISSING_RATE : TF_UNPRICED_POSITION, NAN, NAN, TF_DETAIL_INSTRUMENT)->what = instrument;
}

static bool need_equity(check *c) {
    if (c->equity > 0.0 && isfinite(c->equity)) return true;
    if (!c->no_equity) object(c, TF_MISSING_EQUITY, NAN, NAN, TF_DETAIL_EQUITY)->value = c->equity;
    c->no_equity = true;
    return false;
}

static bool need_notional(check *c) {
    if (!c->has_notional) {
        c->has_notional = true;
        c->notional = tf_state_notional(c->risk, c->order, c->order->quantity);
        if (!isfinite(c->notional)) {
            bool rate = isnan(tf_state_rate(c->risk, c->of->facts.currency));
            if (rate) object(c, TF_MISSING_RATE, NAN, NAN, TF_DETAIL_INSTRUMENT)->what = c->order->instrument;
            else object(c, TF_MISSING_REFERENCE_PRICE, NAN, NAN, TF_DETAIL_NO_VALUE);
        }
    }
    return isfinite(c->notional);
}

/* As tf_state_reached_by, from the reach that other rows need too. */
static double reached(check *c) {
    need_reach(c);
    double value = c->order->side > 0 ? c->high : -c->low;
    for (uint32_t at = c->of->positions; at != TF_RISK_NONE;) {
        const tf_position *position = tf_state_position(c->risk, at);
        if (position->quantity * c->order->side < 0.0)
            return fmax(value, tf_state_opening(c->risk, c->order, c->leaves));
        at = position->next;
    }
    return value;
}

/* What a value is measured against; without a limit there is only a soft one, which denies nothing. */
static double bound_of(const tf_row *row, double limit) {
    return isnan(limit) && !isnan(row->spec.soft) ? HUGE_VAL : limit;
}

static void ask_position(check *c, tf_row *row, uint32_t r) {
    double limit = row->each ? row->each[c->order->instrument] : row->spec.limit, value, low, high;
    if (row->spec.scope == TF_SCOPE_STRATEGY) {
        tf_sums_cell_reach(c->risk, c->order->instrument, row->spec.key, c->order, c->leaves, &low, &high);
        value = c->order->side > 0 ? high : -low;
    } else {
        value = reached(c);
    }
    row->value = value;
    row->bound = bound_of(row, limit);
    /* Sums of decimal quantities are off by rounding; less than a millionth of a lot is not an excess. */
    if (isnan(value)) {
        object(c, TF_MAX_POSITION, value, limit, TF_DETAIL_NO_VALUE)->row = r;
    } else if (value > limit && value > limit + fmax(1e-6 * c->of->facts.size_increment, 1e-12 * limit)) {
        tf_violation *made = object(c, TF_MAX_POSITION, value, limit, TF_DETAIL_NONE);
        made->row = r;
        if (row->spec.scope != TF_SCOPE_EACH) made->detail = TF_DETAIL_SCOPE;
    }
}

static const tf_part *need_after(check *c) {
    if (!c->has_after) {
        need_reach(c);
        tf_sums_value(c->risk, c->of, c->order->instrument, c->low, c->high, &c->after);
        c->has_after = true;
    }
    return &c->after;
}

/* Sums of a scope with the order in place; false when something in it cannot be valued. */
static bool sums_with(check *c, const tf_row *row, tf_totals *sums) {
    const tf_scope *scope = &c->limits->scopes[row->scope];
    uint32_t instrument = c->order->instrument;
    const tf_part *before = scope->cells ? &scope->cells[instrument] : &c->limits->parts[instrument];
    tf_part after;
    if (scope->cells) {
        double low, high;
        tf_sums_cell_reach(c->risk, instrument, scope->key, c->order, c->leaves, &low, &high);
        tf_sums_value(c->risk, c->of, instrument, low, high, &after);
    } else {
        after = *need_after(c);
    }
    if (after.unvalued) {
        no_value(c, instrument);
        return false;
    }
    if (scope->sums.unvalued > (before->unvalued ? 1u : 0u)) {
        no_value(c, tf_sums_unvalued(c->limits, scope, instrument, false));
        return false;
    }
    sums->gross = scope->sums.gross - before->gross + after.gross;
    sums->low = scope->sums.low - before->low + after.low;
    sums->high = scope->sums.high - before->high + after.high;
    sums->margin = scope->sums.margin - before->margin + after.margin;
    return true;
}

static const uint8_t CODES[] = {
    [TF_NO_SCENARIOS] = TF_MISSING_SCENARIOS,
    [TF_NO_PRICE] = TF_UNPRICED_POSITION,
    [TF_NO_RATE] = TF_MISSING_RATE,
};

static void ask_tail(check *c, tf_row *row, uint32_t r) {
    bool stress = row->spec.rule == TF_MAX_STRESS_LOSS;
    uint32_t which = TF_RISK_NONE;
    if (!stress && c->no_tail) return;
    if (!stress && tf_risk_scenarios(c->risk) == 0) {
        c->no_tail = true;
        object(c, TF_MISSING_SCENARIOS, NAN, NAN, TF_DETAIL_NONE);
        return;
    }
    if (!need_equity(c)) return;
    if (stress) {
        if (tf_risk_stress_scenarios(c->risk) == 0) {
            object(c, TF_MISSING_STRESS_SCENARIOS, NAN, NAN, TF_DETAIL_NONE);
            return;
        }
        int blocked = tf_vector_stress_blocked(c->risk, c->order->instrument, &which);
        if (blocked) {
            unsigned code = blocked == TF_NO_SCENARIOS ? TF_MISSING_STRESS_SCENARIOS : CODES[blocked];
            object(c, code, NAN, NAN, TF_DETAIL_INSTRUMENT)->what = which;
            return;
        }
        row->value = tf_vector_stress(c->risk, c->order, c->leaves, &which) / c->equity;
    } else {
        if (!c->has_tail) {
            int blocked = tf_vector_blocked(c->risk, c->order->instrument, &which);
            if (blocked) {
                c->no_tail = true;
                object(c, CODES[blocked], NAN, NAN, TF_DETAIL_INSTRUMENT)->what = which;
                return;
            }
            tf_risk_tail cases[TF_WHATS];
            unsigned count = tf_vector_what_if(c->risk, c->order, c->leaves, cases);
            c->tail = cases[0];
            c->var_case = c->es_case = 0;
            for (unsigned k = 1; k < count; k++) {
                if (!(cases[k].var <= c->tail.var)) { /* also NaN: it stays, and is denied below */
                    c->tail.var = cases[k].var;
                    c->var_case = k;
                }
                if (!(cases[k].es <= c->tail.es)) {
                    c->tail.es = cases[k].es;
                    c->es_case = k;
                }
            }
            c->has_tail = true;
        }
        bool var = row->spec.rule == TF_MAX_PORTFOLIO_VAR;
        row->value = (var ? c->tail.var : c->tail.es) / c->equity;
        which = var ? c->var_case : c->es_case;
    }
    row->bound = bound_of(row, row->spec.limit);
    if (!(row->value <= row->bound * (1.0 + 1e-12))) {
        tf_violation *made =
            object(c, row->spec.rule, row->value, row->spec.limit, stress ? TF_DETAIL_STRESS : TF_DETAIL_OF_EQUITY);
        made->what = which;
        made->row = r;
    }
}

/* False when the value is not known, which is told then. */
static bool ask_working(check *c, tf_row *row) {
    const tf_scope *scope = &c->limits->scopes[row->scope];
    const tf_risk_order *order = c->order;
    const tf_working *replaced = order->order == TF_RISK_NONE ? NULL : tf_state_working(c->risk, order->order);
    if (row->spec.rule == TF_MAX_WORKING_ORDERS) {
        row->value = scope->sums.working + (replaced ? 0.0 : 1.0);
        return true;
    }
    if (!need_notional(c)) return false;
    if (scope->sums.unvalued_orders) {
        no_value(c, tf_sums_unvalued(c->limits, scope, TF_RISK_NONE, true));
        return false;
    }
    double before = replaced ? tf_state_notional(c->risk, &replaced->view, replaced->leaves) : 0.0;
    row->value = scope->sums.notional - before + tf_state_notional(c->risk, order, c->leaves);
    return true;
}

static void ask_row(check *c, uint32_t r) {
    tf_row *row = &c->limits->rows[r];
    const tf_limit *spec = &row->spec;
    tf_totals sums;
    if (row->ring.times || !in_scope(c, spec)) return; /* rates were asked with integrity */
    double limit = spec->limit;
    switch (spec->rule) {
    case TF_MAX_POSITION: ask_position(c, row, r); return;
    case TF_MAX_PORTFOLIO_VAR:
    case TF_MAX_PORTFOLIO_ES:
    case TF_MAX_STRESS_LOSS: ask_tail(c, row, r); return;
    case TF_MAX_ORDER_QUANTITY:
        row->value = c->order->quantity;
        if (row->each) limit = row->each[c->order->instrument];
        break;
    case TF_MAX_ORDER_NOTIONAL:
        if (c->ask->covered || !need_notional(c)) return;
        row->value = c->notional;
        break;
    case TF_MAX_WORKING_ORDERS:
    case TF_MAX_WORKING_NOTIONAL:
        if (!ask_working(c, row)) return;
        break;
    case TF_MAX_GROSS_EXPOSURE:
        if (!sums_with(c, row, &sums)) return;
        row->value = sums.gross;
        break;
    case TF_MAX_NET_EXPOSURE:
        if (!sums_with(c, row, &sums)) return;
        row->value = fmax(c->order->side > 0 ? sums.high : -sums.low, 0.0);
        break;
    case TF_MAX_LEVERAGE:
    case TF_MAX_MARGIN_USE:
        if (!sums_with(c, row, &sums) || !need_equity(c)) return;
        row->value = (spec->rule == TF_MAX_LEVERAGE ? sums.gross : sums.margin) / c->equity;
        break;
    case TF_MAX_CONCENTRATION:
        if (need_after(c)->unvalued) {
            no_value(c, c->order->instrument);
            return;
        }
        if (!need_equity(c)) return;
        row->value = c->after.gross / c->equity;
        break;
    case TF_MAX_DAILY_LOSS:
    case TF_MAX_DRAWDOWN:
        row->value = spec->rule == TF_MAX_DAILY_LOSS ? tf_account_daily_loss(&c->limits->account)
                                                     : tf_account_drawdown(&c->limits->account);
        if (isnan(row->value)) {
            need_equity(c);
            if (!c->no_equity)
                object(c, TF_MISSING_EQUITY, NAN, NAN, TF_DETAIL_EQUITY)->value = c->limits->account.equity;
            c->no_equity = true;
            return;
        }
        break;
    default: object(c, TF_INTERNAL_ERROR, spec->rule, NAN, TF_DETAIL_NONE); return;
    }
    if (isnan(row->value)) { /* sums that overflowed on both sides: nothing is known */
        object(c, TF_UNPRICED_POSITION, NAN, NAN, TF_DETAIL_NO_VALUE)->row = r;
        return;
    }
    if (spec->of_equity) {
        if (!need_equity(c)) return;
        limit *= c->equity;
    }
    row->bound = bound_of(row, limit);
    /* A single product is off by far less than a sum. */
    bool over = spec->rule == TF_MAX_ORDER_NOTIONAL || spec->rule == TF_MAX_ORDER_QUANTITY
                    ? row->value > limit * (1.0 + 1e-12)
                    : tf_over(row->value, limit);
    if (over) {
        bool scoped = spec->scope != TF_SCOPE_PORTFOLIO && spec->scope != TF_SCOPE_EACH;
        object(c, spec->rule, row->value, limit, scoped ? TF_DETAIL_SCOPE : TF_DETAIL_NONE)->row = r;
    }
}

/* ---- after the answer ---- */

/* Warnings: once for each share that is passed upward, again only after it was clearly left. */
static void warn(check *c, uint32_t r) {
    tf_row *row = &c->limits->rows[r];
    const tf_limits_config *config = &c->limits->config;
    if (isnan(row->value) || isnan(row->bound)) return;
    uint32_t instrument = row->spec.scope == TF_SCOPE_EACH ? c->order->instrument : TF_RISK_NONE;
    uint8_t *level = &row->levels[instrument == TF_RISK_NONE ? 0 : instrument];
    double share = row->bound > 0.0 ? row->value / row->bound : 0.0, passed = NAN;
    bool of_one_order = row->spec.rule == TF_MAX_ORDER_QUANTITY || row->spec.rule == TF_MAX_ORDER_NOTIONAL;
    if (of_one_order) share = 0.0; /* nothing is used up: only a soft limit warns */
    while (*level > 0 && share < 0.9 * config->warn_at[*level - 1]) (*level)--;
    while (*level < config->warn_count && share >= config->warn_at[*level]) passed = config->warn_at[(*level)++];
    if (!isnan(passed) && c->out->warning_count < TF_WARNINGS_MAX)
        c->out->warnings[c->out->warning_count++] = (tf_warning){r, instrument, row->value, row->bound, passed};
    double soft = row->spec.soft * (row->spec.of_equity ? c->equity : 1.0);
    if (row->soft_passed && row->value < 0.9 * soft) row->soft_passed = false;
    if (!row->soft_passed && tf_over(row->value, soft)) {
        row->soft_passed = true;
        if (c->out->warning_count < TF_WARNINGS_MAX)
            c->out->warnings[c->out->warning_count++] = (tf_warning){r, instrument, row->value, soft, NAN};
    }
}

static void count_order(check *c) {
    tf_limits *limits = c->limits;
    for (uint32_t r = 0; limits->rates && r < limits->count; r++)
        if (limits->rows[r].ring.times && counts_in(c, &limits->rows[r].spec))
            tf_ring_put(&limits->rows[r].ring, c->now);
    if (limits->config.duplicate_window && !c->ask->modify)
        tf_duplicates_put(&limits->duplicates, c->order, c->ask->name, c->now);
    limits->counted[limits->counted_last++ % TF_COUNTED] =
        (tf_counted){c->order->strategy, c->order->instrument, !c->ask->modify};
}

typedef struct {
    tf_account account;
    unsigned breach;
    uint64_t next_day;
} account_before;

bool tf_limits_check(tf_limits *limits, tf_risk *risk, const tf_risk_order *order, const tf_ask *ask, tf_verdict *out) {
    bool known = order->instrument < limits->room && order->instrument < tf_state_instruments(risk);
    check c = {.limits = limits,
               .risk = risk,
               .order = order,
               .ask = ask,
               .out = out,
               .of = known ? tf_state_instrument(risk, order->instrument) : NULL};
    out->allowed = true;
    out->reducing = out->sane = out->health_excused = false;
    out->breach = 0;
    out->count = out->warning_count = 0;
    out->leaves = 0.0;
    limits->counts.checks++;
    c.now = order->ts;
    if (order->ts < limits->now) {
        c.now = limits->now;
        if (!ask->dry) limits->counts.backwards++;
    } else if (!ask->dry) {
        limits->now = order->ts;
    }
    ask_sanity(&c);
    if (out->count) return false;
    out->sane = true;

    tf_sums_drain(limits, risk);
    c.equity = tf_risk_equity(risk);
    if (limits->mids) tf_mids_put(&limits->mids[order->instrument], c.of->mid, c.now, limits->config.collar_window);
    account_before before = {limits->account, limits->breach, limits->next_day};
    if (limits->watches_account) out->breach = tf_account_note(limits, c.equity, c.now);
    c.leaves = out->leaves = fmax(order->quantity - ask->filled, 0.0);
    out->reducing = ask->calmer || tf_state_reduces(risk, order, c.leaves);
    for (uint32_t r = 0; r < limits->count; r++) limits->rows[r].value = limits->rows[r].bound = NAN;

    ask_grid(&c);
    ask_reference(&c);
    ask_collar(&c);
    ask_duplicate(&c);
    ask_rates(&c);
    if (out->reducing) {
        out->health_excused = ask->health_failed;
    } else if (ask->exit_only) {
        for (uint32_t r = 0; r < limits->count; r++)
            if (limits->rows[r].spec.rule == TF_MAX_POSITION && in_scope(&c, &limits->rows[r].spec) &&
                tf_state_widens(risk, order, c.leaves))
                ask_position(&c, &limits->rows[r], r);
    } else {
        if (ask->faults) object(&c, TF_PORTFOLIO_FAULT, ask->faults, 0.0, TF_DETAIL_NONE);
        ask_venue(&c);
        ask_short(&c);
        ask_self_trade(&c);
        ask_spread(&c);
        for (uint32_t r = 0; r < limits->count; r++) ask_row(&c, r);
        ask_health(&c);
        if (!ask->armed) object(&c, TF_NOT_ARMED, NAN, NAN, TF_DETAIL_NONE);
        if (is_killed(&c)) object(&c, TF_KILLED, NAN, NAN, TF_DETAIL_NONE);
    }
    if (ask->dry) { /* as if it had not been asked */
        limits->account = before.account;
        limits->breach = before.breach;
        limits->next_day = before.next_day;
        out->breach = 0;
    } else if (out->allowed) {
        for (uint32_t r = 0; r < limits->count; r++) warn(&c, r);
        count_order(&c);
    }
    return out->allowed;
}
