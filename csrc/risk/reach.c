/* What working orders and one more order can do to positions; the docstring of tengri_fast.risk.portfolio says what is
 * meant by scope, reach, opening and reducing. Orders that are neither capped nor in an exclusive group are two sums;
 * the others are walked. Sums per group are collected in the first order of each group. */
#include "risk/core.h"

/* Whether a position is one that an order would close. */
static bool closes(const tf_risk_order *order, const tf_position *position) {
    if (order->account && position->account && order->account != position->account) return false;
    if (order->position) return position->position == order->position;
    return position->strategy == order->strategy;
}

static bool same_group(const tf_risk_order *a, const tf_risk_order *b) {
    return a->group == b->group && a->account == b->account && a->strategy == b->strategy && a->side == b->side;
}

static bool same_closer(const tf_risk_order *a, const tf_risk_order *b) {
    return a->account == b->account && a->position == b->position && a->side == b->side &&
           (a->position || a->strategy == b->strategy);
}

double tf_state_scope(const tf_risk *risk, const tf_risk_order *order) {
    double total = 0.0;
    unsigned parts = 0;
    const tf_instrument *of = &risk->instruments[order->instrument];
    for (uint32_t p = of->positions; p != TF_RISK_NONE; p = risk->positions[p].next) {
        if (closes(order, &risk->positions[p])) {
            total += risk->positions[p].quantity;
            parts++;
        }
    }
    /* One position is a whole number of lots already; only a sum can be off. */
    return parts < 2 ? total : tf_state_snap(of, total);
}

/* Whether two orders would close the same position. */
static bool same_scope(const tf_risk *risk, const tf_instrument *of, const tf_risk_order *a, const tf_risk_order *b) {
    if (a->account && b->account && a->account != b->account) return false;
    if (!a->position == !b->position) return a->position == b->position && (a->position || a->strategy == b->strategy);
    const tf_risk_order *named = a->position ? a : b, *other = a->position ? b : a;
    const uint32_t account = a->account ? a->account : b->account;
    for (uint32_t p = of->positions; p != TF_RISK_NONE; p = risk->positions[p].next) {
        const tf_position *position = &risk->positions[p];
        if (position->position == named->position && position->strategy == other->strategy &&
            (!position->account || !account || position->account == account))
            return true;
    }
    return false;
}

bool tf_state_reduces(const tf_risk *risk, const tf_risk_order *order, double leaves) {
    if (order->instrument >= risk->instrument_count) return false;
    const tf_instrument *of = &risk->instruments[order->instrument];
    if (of->positions == TF_RISK_NONE) return false;
    const double position = tf_state_scope(risk, order);
    if (!(position * order->side < 0.0)) return false;
    double capacity = fabs(position);
    if (of->special_count) {
        for (uint32_t o = of->orders; o != TF_RISK_NONE; o = risk->orders[o].next) risk->orders[o].largest = 0.0;
    }
    for (uint32_t o = of->orders; o != TF_RISK_NONE; o = risk->orders[o].next) {
        const tf_working *working = &risk->orders[o];
        const tf_risk_order *view = &working->view;
        if (view->side != order->side || o == order->order || !same_scope(risk, of, order, view)) continue;
        if (!view->group) {
            capacity -= working->leaves;
        } else if (!order->group || !same_group(view, order)) {
            /* Those of its own group are cancelled when this one fills: they take no room from it. */
            tf_working *head = &risk->orders[working->group_head];
            if (working->leaves > head->largest) {
                capacity -= working->leaves - head->largest;
                head->largest = working->leaves;
            }
        }
    }
    return 0.0 < leaves && leaves <= capacity + tf_state_tolerance(of, position);
}

/* Takes a closing order into its room and returns by how much the reach grows. */
static double close_into(double size, double *sum, double quantity) {
    const double before = tf_smaller(size, *sum);
    *sum += quantity;
    return tf_smaller(size, *sum) - before;
}

void tf_state_reach(const tf_risk *risk, uint32_t instrument, const tf_risk_order *order, double leaves, double *low,
                    double *high) {
    const tf_instrument *of = &risk->instruments[instrument];
    const uint32_t skip = order ? order->order : TF_RISK_NONE;
    const tf_working *self = skip != TF_RISK_NONE ? &risk->orders[skip] : NULL;
    double buys = of->buys, sells = of->sells;
    if (self && self->view.instrument == instrument && !self->capped && !self->view.group) {
        /* Sums without one of their terms: exact only when they are summed again. */
        buys = sells = 0.0;
        for (uint32_t o = of->orders; o != TF_RISK_NONE; o = risk->orders[o].next) {
            const tf_working *working = &risk->orders[o];
            if (o == skip || working->capped || working->view.group) continue;
            *(working->view.side > 0 ? &buys : &sells) += working->leaves;
        }
    }
    double capped_buys = 0.0, capped_sells = 0.0, own_size = -1.0, own_sum = 0.0, own_group = 0.0;
    double *own = NULL, *own_room = NULL;
    if (of->special_count) {
        for (uint32_t o = of->orders; o != TF_RISK_NONE; o = risk->orders[o].next) {
            risk->orders[o].largest = risk->orders[o].sum = 0.0;
            risk->orders[o].size = -1.0;
        }
        for (uint32_t o = of->orders; o != TF_RISK_NONE; o = risk->orders[o].next) {
            const tf_working *working = &risk->orders[o];
            const tf_risk_order *view = &working->view;
            if (working->capped) {
                tf_working *head = &risk->orders[working->closer_head];
                if (order && order->reduce_only && same_closer(view, order)) {
                    own = &head->sum;
                    own_room = &head->size;
                }
                if (o == skip) continue;
                if (head->size < 0.0) head->size = tf_larger(-view->side * tf_state_scope(risk, view), 0.0);
                *(view->side > 0 ? &capped_buys : &capped_sells) += close_into(head->size, &head->sum, working->leaves);
            } else if (view->group) {
                if (o == skip) continue;
                tf_working *head = &risk->orders[working->group_head];
                if (working->leaves > head->largest) {
                    *(view->side > 0 ? &buys : &sells) += working->leaves - head->largest;
                    head->largest = working->leaves;
                }
                if (order && !order->reduce_only && order->group && same_group(view, order))
                    own_group = tf_larger(own_group, working->leaves);
            }
        }
    }
    if (order) {
        if (order->reduce_only) {
            if (!own) {
                own = &own_sum;
                own_room = &own_size;
            }
            if (*own_room < 0.0) *own_room = tf_larger(-order->side * tf_state_scope(risk, order), 0.0);
            *(order->side > 0 ? &capped_buys : &capped_sells) += close_into(*own_room, own, leaves);
        } else {
            /* Of its group only what is larger than the largest adds to the reach. */
            if (order->group) leaves = tf_larger(leaves - own_group, 0.0);
            *(order->side > 0 ? &buys : &sells) += leaves;
        }
    }
    *low = of->net - (sells + capped_sells);
    *high = of->net + (buys + capped_buys);
}

void tf_risk_reach(const tf_risk *risk, uint32_t instrument, const tf_risk_order *order, double leaves, double *low,
                   double *high) {
    tf_state_reach(risk, instrument, order, leaves, low, high);
}

bool tf_risk_reduces(const tf_risk *risk, const tf_risk_order *order, double leaves) {
    return tf_state_reduces(risk, order, leaves);
}

/* Fills one order into the positions of the other side; what is left of it opens. */
static double fill_room(const tf_risk *risk, const tf_instrument *of, const tf_risk_order *view, double left) {
    for (uint32_t p = of->positions; p != TF_RISK_NONE && left > 0.0; p = risk->positions[p].next) {
        tf_position *position = &risk->positions[p];
        if (position->room > 0.0 && closes(view, position)) {
            const double taken = tf_smaller(position->room, left);
            position->room -= taken;
            left -= taken;
        }
    }
    return left;
}

double tf_state_opening(const tf_risk *risk, const tf_risk_order *order, double leaves) {
    const tf_instrument *of = &risk->instruments[order->instrument];
    const int side = order->side;
    double total = 0.0;
    for (uint32_t p = of->positions; p != TF_RISK_NONE; p = risk->positions[p].next) {
        tf_position *position = &risk->positions[p];
        const bool mine = position->quantity * side > 0.0;
        if (mine) total += fabs(position->quantity);
        position->room = mine ? 0.0 : fabs(position->quantity);
    }
    /* Reduce-only orders come first, so that the others find less to take off. */
    for (uint32_t o = of->orders; o != TF_RISK_NONE; o = risk->orders[o].next) {
        tf_working *working = &risk->orders[o];
        working->largest = 0.0;
        if (working->capped && working->view.side == side && o != order->order)
            fill_room(risk, of, &working->view, working->leaves);
    }
    if (order->reduce_only) fill_room(risk, of, order, leaves);
    double own = 0.0; /* largest of the order's own group and position id */
    for (uint32_t o = of->orders; o != TF_RISK_NONE; o = risk->orders[o].next) {
        tf_working *working = &risk->orders[o];
        const tf_risk_order *view = &working->view;
        if (working->capped || view->side != side || o == order->order) continue;
        double left = working->leaves;
        if (view->group) {
            double *largest = &risk->orders[working->place_head].largest;
            left = tf_larger(left - *largest, 0.0);
            *largest += left;
            if (order->group && same_group(view, order) && view->position == order->position) own = *largest;
        }
        total += fill_room(risk, of, view, left);
    }
    if (!order->reduce_only) {
        const double left = order->group ? tf_larger(leaves - own, 0.0) : leaves;
        total += fill_room(risk, of, order, left);
    }
    return tf_state_snap(of, total);
}

double tf_state_reached_by(const tf_risk *risk, const tf_risk_order *order, double leaves) {
    double low, high;
    tf_state_reach(risk, order->instrument, order, leaves, &low, &high);
    const double reached = order->side > 0 ? high : -low;
    for (uint32_t p = risk->instruments[order->instrument].positions; p != TF_RISK_NONE; p = risk->positions[p].next) {
        if (risk->positions[p].quantity * order->side < 0.0)
            return tf_larger(reached, tf_state_opening(risk, order, leaves));
    }
    return reached;
}

bool tf_state_widens(const tf_risk *risk, const tf_risk_order *order, double leaves) {
    double low, high, lowest, highest;
    tf_state_reach(risk, order->instrument, order, leaves, &low, &high);
    tf_state_reach(risk, order->instrument, order, 0.0, &lowest, &highest);
    const double further = order->side > 0 ? high - highest : lowest - low;
    return further > tf_state_tolerance(&risk->instruments[order->instrument], leaves);
}

static double unit_value(const tf_instrument *of, double price, int side) {
    if (of->facts.payoff == TF_PAYOFF_INVERSE) return 1.0 / price;
    return of->facts.payoff == TF_PAYOFF_BINARY && side < 0 ? 1.0 - price : price;
}

double tf_state_notional(const tf_risk *risk, const tf_risk_order *order, double quantity) {
    const tf_instrument *of = &risk->instruments[order->instrument];
    const double scale = fabs(quantity) * of->facts.multiplier * tf_state_rate(risk, of->facts.currency);
    const double prices[3] = {of->mid, order->price, order->trigger};
    double most = NAN;
    for (int i = 0; i < 3; i++) {
        if (prices[i] != prices[i]) continue; /* NaN: there is none */
        const double value =
            of->facts.payoff == TF_PAYOFF_INVERSE ? scale / prices[i] : scale * unit_value(of, prices[i], order->side);
        if (most != most || value > most) most = value; /* the first value replaces NaN */
    }
    return most;
}

double tf_state_unit(const tf_risk *risk, uint32_t instrument, int side) {
    const tf_instrument *of = &risk->instruments[instrument];
    return of->facts.multiplier * tf_state_rate(risk, of->facts.currency) * unit_value(of, of->mid, side);
}
