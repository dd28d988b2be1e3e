/* The book of risk against a naive one that keeps lists and recomputes everything, on random events, on every
 * instruction set: quantities equal exactly (they are multiples of a half), money to rounding, and the sets agree in
 * every bit. */
#include "check.h"
#include "risk/core.h"

enum {
    INSTRUMENTS = 5,
    SCENARIOS = 157,
    STRESSES = 11,
    ORDERS = 24,
    POSITIONS = 64,
    BOOKS = TF_ISA_COUNT,
    STEPS = 6000
};

typedef struct {
    bool used;
    tf_risk_order view;
    double filled;
    uint32_t handle;
    int since; /* when it was added: the order of the list */
} entry;

typedef struct {
    uint32_t instrument, account, position, strategy, owner;
    double quantity;
} holding;

static entry orders[ORDERS];
static holding holdings[POSITIONS];
static int holding_count, step;
static double mids[INSTRUMENTS], rates[3] = {1.0, NAN, NAN};
static float returns[INSTRUMENTS][SCENARIOS], stresses[INSTRUMENTS][STRESSES];
static double weights[SCENARIOS], level = 0.95;
static unsigned method;
static bool is_weighted;
static const tf_risk_facts FACTS[INSTRUMENTS] = {
    {.payoff = TF_PAYOFF_LINEAR, .multiplier = 1.0, .size_increment = 0.5},
    {.payoff = TF_PAYOFF_LINEAR, .multiplier = 10.0, .size_increment = 0.5, .currency = 1},
    {.payoff = TF_PAYOFF_INVERSE, .multiplier = 100.0, .size_increment = 0.5, .currency = 2},
    {.payoff = TF_PAYOFF_BINARY, .multiplier = 1.0, .size_increment = 0.5},
    {.payoff = TF_PAYOFF_LINEAR, .multiplier = 2.0},
};
static tf_risk *books[BOOKS];
static int book_count;
static unsigned seed = 7, compared;

static uint32_t below(uint32_t n) { return (uint32_t)(((double)noise(&seed) + 2.0) / 4.0 * n) % n; }
static double uniform(void) { return ((double)noise(&seed) + 2.0) / 4.0; }

/* ---- naive ---- */

static bool closes(const tf_risk_order *order, const holding *of) {
    if (of->instrument != order->instrument || of->quantity == 0.0) return false;
    if (order->account && of->account && order->account != of->account) return false;
    return order->position ? of->position == order->position : of->owner == order->strategy;
}

static double scope(const tf_risk_order *order) {
    double total = 0.0;
    for (int i = 0; i < holding_count; i++) total += closes(order, &holdings[i]) ? holdings[i].quantity : 0.0;
    return total;
}

static double net(uint32_t instrument) {
    double total = 0.0;
    for (int i = 0; i < holding_count; i++) total += holdings[i].instrument == instrument ? holdings[i].quantity : 0.0;
    return total;
}

/* Working orders of an instrument and one more, oldest first; `open` gets what is left of each. */
static int listed(uint32_t instrument, const tf_risk_order *extra, double leaves, tf_risk_order *list, double *open) {
    int count = 0;
    for (int at = 0; at <= step; at++) {
        bool any = false;
        for (int i = 0; i < ORDERS; i++) {
            if (!orders[i].used || orders[i].since < at) continue;
            any = true;
            if (orders[i].since != at || orders[i].view.instrument != instrument) continue;
            if (extra && orders[i].handle == extra->order) continue;
            list[count] = orders[i].view;
            open[count++] = orders[i].view.quantity - orders[i].filled;
        }
        if (!any) break;
        int next = step + 1;
        for (int i = 0; i < ORDERS; i++)
            if (orders[i].used && orders[i].since > at && orders[i].since < next) next = orders[i].since;
        at = next - 1;
    }
    if (extra) {
        list[count] = *extra;
        open[count++] = leaves;
    }
    return count;
}

static bool grouped(const tf_risk_order *a, const tf_risk_order *b) {
    return a->group && a->group == b->group && a->account == b->account && a->strategy == b->strategy &&
           a->side == b->side;
}

static double reached(uint32_t instrument, int side, const tf_risk_order *extra, double leaves) {
    tf_risk_order list[ORDERS + 1];
    double open[ORDERS + 1], total = 0.0;
    const int count = listed(instrument, extra, leaves, list, open);
    for (int i = 0; i < count; i++) {
        if (list[i].side != side) continue;
        if (list[i].reduce_only) { /* the first of a scope stands for all of it */
            double sum = 0.0;
            bool first = true;
            for (int j = 0; j < count; j++) {
                const bool same = list[j].reduce_only && list[j].side == side && list[j].account == list[i].account &&
                                  list[j].position == list[i].position &&
                                  (list[i].position || list[j].strategy == list[i].strategy);
                if (same && j < i) first = false;
                sum += same ? open[j] : 0.0;
            }
            const double room = tf_larger(-side * scope(&list[i]), 0.0);
            if (first) total += tf_smaller(room, sum);
        } else if (list[i].group) {
            bool largest = true;
            for (int j = 0; j < count; j++) {
                if (j == i || list[j].reduce_only || !grouped(&list[i], &list[j])) continue;
                if (open[j] > open[i] || (open[j] == open[i] && j < i)) largest = false;
            }
            if (largest) total += open[i];
        } else {
            total += open[i];
        }
    }
    return net(instrument) + side * total;
}

static bool shares(const tf_risk_order *a, const tf_risk_order *b) {
    if (a->account && b->account && a->account != b->account) return false;
    if (!a->position == !b->position) return a->position == b->position && (a->position || a->strategy == b->strategy);
    const tf_risk_order *named = a->position ? a : b, *other = a->position ? b : a;
    const uint32_t account = a->account ? a->account : b->account;
    for (int i = 0; i < holding_count; i++) {
        const holding *of = &holdings[i];
        if (of->instrument == a->instrument && of->quantity != 0.0 && of->position == named->position &&
            of->owner == other->strategy && (!of->account || !account || of->account == account))
            return true;
    }
    return false;
}

static bool reduces(const tf_risk_order *order, double leaves) {
    tf_risk_order list[ORDERS + 1];
    double open[ORDERS + 1];
    const double position = scope(order);
    if (position * order->side >= 0.0) return false;
    double room = fabs(position);
    const int count = listed(order->instrument, order, leaves, list, open) - 1;
    for (int i = 0; i < count; i++) {
        if (list[i].side != order->side || !shares(order, &list[i])) continue;
        bool largest = true;
        if (list[i].group) {
            if (grouped(order, &list[i])) continue;
            for (int j = 0; j < count; j++) {
                if (j == i || !grouped(&list[i], &list[j]) || !shares(order, &list[j])) continue;
                if (open[j] > open[i] || (open[j] == open[i] && j < i)) largest = false;
            }
        }
        if (largest) room -= open[i];
    }
    return leaves > 0.0 && leaves <= room + 1e-7;
}

static int by_name(const void *a, const void *b) {
    const holding *x = a, *y = b;
    if (x->account != y->account) return x->account < y->account ? -1 : 1;
    if (x->position != y->position) return x->position < y->position ? -1 : 1;
    const uint32_t p = x->position ? 0 : x->strategy, q = y->position ? 0 : y->strategy;
    return p < q ? -1 : p > q;
}

static double opened(const tf_risk_order *order, double leaves) {
    tf_risk_order list[ORDERS + 1];
    double open[ORDERS + 1], total = 0.0;
    holding rows[POSITIONS];
    const int count = listed(order->instrument, order, leaves, list, open);
    memcpy(rows, holdings, sizeof rows);
    qsort(rows, (size_t)holding_count, sizeof *rows, by_name);
    for (int i = 0; i < holding_count; i++) {
        if (rows[i].instrument == order->instrument && rows[i].quantity * order->side > 0.0)
            total += fabs(rows[i].quantity);
    }
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < count; i++) {
            if (list[i].side != order->side || list[i].reduce_only != (pass == 0)) continue;
            double left = open[i], taken = 0.0;
            if (pass && list[i].group) { /* only what is larger than those before it of its group and position */
                for (int j = 0; j < i; j++) {
                    if (!list[j].reduce_only && grouped(&list[i], &list[j]) && list[i].position == list[j].position)
                        taken = tf_larger(taken, open[j]);
                }
                left = tf_larger(left - taken, 0.0);
            }
            for (int r = 0; r < holding_count; r++) {
                if (rows[r].quantity * order->side >= 0.0 || !closes(&list[i], &rows[r])) continue;
                const double part = tf_smaller(left, fabs(rows[r].quantity));
                rows[r].quantity += order->side * part;
                left -= part;
            }
            if (pass) total += left;
        }
    }
    return total;
}

static double factor(uint32_t i, double r) {
    const double p = mids[i], q = p * (1.0 + r);
    if (FACTS[i].payoff == TF_PAYOFF_LINEAR) return q - p;
    if (FACTS[i].payoff == TF_PAYOFF_INVERSE) return 1.0 / p - 1.0 / q;
    return (q < 0.0 ? 0.0 : q > 1.0 ? 1.0 : q) - p;
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double inverse_normal(double p) { /* by Newton from the middle of a bracket: another way than the library's */
    double x = 0.0;
    for (int i = 0; i < 60; i++) {
        const double miss = 0.5 * erfc(-x / sqrt(2.0)) - p, slope = exp(-0.5 * x * x) / sqrt(2.0 * acos(-1.0));
        x -= miss / slope > 0.5 ? 0.5 : miss / slope < -0.5 ? -0.5 : miss / slope;
    }
    return x;
}

static tf_risk_tail tail(const double *values) {
    double sorted[SCENARIOS], w[SCENARIOS], cut = 1.0 - level, mean = 0.0;
    bool used[SCENARIOS] = {false};
    for (int s = 0; s < SCENARIOS; s++) mean += (is_weighted ? weights[s] : 1.0 / SCENARIOS) * values[s];
    tf_risk_tail least = {-INFINITY, -INFINITY};
    if (method != TF_TAIL_EMPIRICAL) {
        bool increasing = true;
        double m2 = 0.0, m3 = 0.0, m4 = 0.0, squares = 0.0;
        for (int s = 0; s < SCENARIOS; s++) {
            const double each = is_weighted ? weights[s] : 1.0 / SCENARIOS, d = values[s] - mean;
            m2 += each * pow(d, 2);
            m3 += each * pow(d, 3);
            m4 += each * pow(d, 4);
            squares += each * each;
        }
        const double sigma = sqrt(m2 / (1.0 - squares)), z = inverse_normal(cut);
        double q = z, es = exp(-0.5 * z * z) / sqrt(2.0 * acos(-1.0)) / cut;
        if (method == TF_TAIL_CORNISH_FISHER && m2 > 0.0) {
            const double s = m3 / pow(m2, 1.5), k = m4 / (m2 * m2) - 3.0;
            q = z + (pow(z, 2) - 1) * s / 6 + (pow(z, 3) - 3 * z) * k / 24 - (2 * pow(z, 3) - 5 * z) * s * s / 36;
            es *= 1 + z * s / 6 + (pow(z, 2) - 1) * k / 24 - (2 * pow(z, 2) - 1) * s * s / 36;
            /* The slope is a parabola a + b y + c y^2: it has no zero, and is above. */
            const double a = 1 - k / 8 + 5 * s * s / 36, b = s / 3, c = k / 8 - s * s / 6;
            increasing = a >= 0 && c >= 0 && b * b - 4 * a * c <= 0;
        }
        least.var = -(mean + sigma * q);
        least.es = tf_larger(-mean + sigma * es, least.var);
        if (increasing) return least;
    }
    memcpy(sorted, values, sizeof sorted);
    qsort(sorted, SCENARIOS, sizeof *sorted, ascending);
    for (int s = 0; s < SCENARIOS; s++) {
        for (int t = 0; t < SCENARIOS; t++) {
            if (used[t] || values[t] != sorted[s]) continue;
            used[t] = true;
            w[s] = is_weighted ? weights[t] : 1.0 / SCENARIOS;
            break;
        }
    }
    double part = 0.0, sum = 0.0;
    int j = 0;
    for (; part + w[j] <= cut + 1e-9; j++) {
        part += w[j];
        sum += w[j] * sorted[j];
    }
    const tf_risk_tail out = {-sorted[j], -(sum + tf_larger(cut - part, 0.0) * sorted[j]) / cut};
    return (tf_risk_tail){tf_larger(out.var, least.var), tf_larger(out.es, least.es)};
}

/* Results with these quantities; `gross` bounds them. */
static void revalue(const double *quantities, double *out, double *shocked, double *gross) {
    *gross = 0.0;
    for (int s = 0; s < SCENARIOS; s++) out[s] = 0.0;
    for (int s = 0; s < STRESSES; s++) shocked[s] = 0.0;
    for (uint32_t i = 0; i < INSTRUMENTS; i++) {
        if (quantities[i] == 0.0) continue;
        const double units = quantities[i] * FACTS[i].multiplier * rates[FACTS[i].currency];
        double most = 0.0;
        for (int s = 0; s < SCENARIOS; s++) {
            out[s] += units * factor(i, returns[i][s]);
            most = tf_larger(most, fabs(units * factor(i, returns[i][s])));
        }
        for (int s = 0; s < STRESSES; s++) {
            shocked[s] += units * factor(i, stresses[i][s]);
            most = tf_larger(most, fabs(units * factor(i, stresses[i][s])));
        }
        *gross += most;
    }
}

static double alone_at_risk(uint32_t i, double quantity) {
    double values[SCENARIOS];
    for (int s = 0; s < SCENARIOS; s++) values[s] = quantity * factor(i, returns[i][s]);
    return tail(values).var;
}

static double quantity_of(uint32_t i, int what, const tf_risk_order *order, double leaves) {
    const tf_risk_order *mine = order && order->instrument == i ? order : NULL;
    if (what == TF_WHAT_FILLED) return net(i);
    if (what == TF_WHAT_ORDER) {
        double add = mine ? leaves : 0.0;
        if (mine && mine->reduce_only) add = tf_smaller(add, tf_larger(-mine->side * scope(mine), 0.0));
        return net(i) + (mine ? mine->side * add : 0.0);
    }
    const double low = reached(i, -1, mine, leaves), high = reached(i, 1, mine, leaves);
    if (what == TF_WHAT_BUYS) return high;
    if (what == TF_WHAT_SELLS) return low;
    if (low == high) return low;
    const double a = alone_at_risk(i, low), b = alone_at_risk(i, high);
    return b >= a - 1e-12 * fabs(a) ? high : low;
}

static bool exposed(uint32_t i) {
    if (net(i) != 0.0) return true;
    for (int o = 0; o < ORDERS; o++)
        if (orders[o].used && orders[o].view.instrument == i) return true;
    return false;
}

/* ---- events in both ---- */

#define EACH for (int b = 0; b < book_count; b++)

static uint32_t name(uint32_t n) { return below(n + 1); }

static tf_risk_order draw(void) {
    return (tf_risk_order){.order = TF_RISK_NONE,
                           .instrument = below(INSTRUMENTS),
                           .strategy = 1 + below(2),
                           .account = name(2),
                           .position = below(3) ? 0 : 5,
                           .group = below(3) ? 0 : 1 + below(2),
                           .side = below(2) ? 1 : -1,
                           .reduce_only = below(5) == 0,
                           .quantity = 0.5 * (1 + below(60)),
                           .price = NAN,
                           .trigger = NAN};
}

static void fill(uint32_t instrument, uint32_t account, uint32_t position, uint32_t strategy, double quantity) {
    int at = 0;
    for (; at < holding_count; at++) {
        const holding *of = &holdings[at];
        if (of->instrument == instrument && of->account == account && of->position == position &&
            (position || of->strategy == strategy))
            break;
    }
    if (at == holding_count) {
        if (holding_count == POSITIONS) return;
        holdings[holding_count++] = (holding){instrument, account, position, strategy, strategy, 0.0};
    }
    if (holdings[at].quantity == 0.0) holdings[at].owner = strategy;
    holdings[at].quantity += quantity;
    if (holdings[at].quantity == 0.0) holdings[at] = holdings[--holding_count];
    EACH CHECK(tf_risk_on_fill(books[b], instrument, account, position, strategy, quantity, 1.0) == TF_OK);
}

static void event(void) {
    const uint32_t kind = below(100), i = below(INSTRUMENTS);
    const int at = (int)below(ORDERS);
    entry *it = &orders[at];
    if (kind < 30) {
        const double start[INSTRUMENTS] = {100.0, 50.0, 20000.0, 0.5, 300.0};
        const double mid = start[i] * (0.6 + 0.8 * uniform()), half = i == 3 ? 0.001 : 0.01;
        const bool bad = below(20) == 0;
        EACH CHECK(tf_risk_on_quote(books[b], i, bad ? mid + 1.0 : mid - half, bad ? mid : mid + half, 1) ==
                   (bad ? TF_QUOTE_UNUSABLE : TF_QUOTE_USED));
        if (!bad) mids[i] = (mid - half) + 0.5 * ((mid + half) - (mid - half));
    } else if (kind < 36) {
        const uint32_t currency = 1 + below(2);
        const double value = below(12) ? (currency == 1 ? 1.0 : 20000.0) * (0.8 + 0.4 * uniform()) : -1.0;
        rates[currency] = value > 0.0 ? value : NAN;
        EACH CHECK(tf_risk_on_rate(books[b], currency, value) == TF_OK);
    } else if (kind < 55) {
        fill(i, name(2), below(3) ? 0 : 5, 1 + below(2), 0.5 * ((double)below(81) - 40.0));
    } else if (kind < 58) { /* flat */
        if (!holding_count) return;
        const holding of = holdings[below((uint32_t)holding_count)];
        fill(of.instrument, of.account, of.position, of.strategy, -of.quantity);
    } else if (!it->used) {
        it->view = draw();
        it->used = true;
        it->filled = 0.0;
        it->since = step;
        EACH it->handle = tf_risk_order_working(books[b], &it->view, 0.0);
    } else if (kind < 70) {
        EACH tf_risk_order_closed(books[b], it->handle);
        it->used = false;
    } else if (kind < 85) {
        const double part = 0.5 * (1 + below(20));
        it->filled += part;
        const bool whole = it->filled >= it->view.quantity;
        EACH {
            CHECK(tf_risk_order_filled(books[b], it->handle, part) == whole);
            if (whole) tf_risk_order_closed(books[b], it->handle);
        }
        it->used = !whole;
    } else if (kind < 93) {
        it->view.quantity = it->filled + 0.5 * (1 + below(60));
        EACH CHECK(!tf_risk_order_changed(books[b], it->handle, it->view.quantity, NAN, NAN));
    } else { /* replaced by another of the same name */
        tf_risk_order other = draw();
        other.order = it->handle;
        other.quantity += it->filled;
        if (other.instrument != it->view.instrument) it->since = step;
        EACH CHECK(tf_risk_order_working(books[b], &other, it->filled) == it->handle);
        it->view = other;
    }
}

static bool near(double a, double b, double scale) { return fabs(a - b) <= 1e-9 * scale; }

static void compare_quantities(void) {
    tf_risk_order order = draw();
    const int at = (int)below(ORDERS);
    double leaves = order.quantity;
    if (below(4) == 0 && orders[at].used) { /* in place of a working one */
        order = orders[at].view;
        order.order = orders[at].handle;
        leaves = below(2) ? order.quantity - orders[at].filled : 0.5 * (1 + below(60));
    }
    const double low = reached(order.instrument, -1, &order, leaves),
                 high = reached(order.instrument, 1, &order, leaves);
    const double furthest = order.side > 0 ? high : -low;
    bool hedged = false;
    for (int i = 0; i < holding_count; i++)
        hedged = hedged || (holdings[i].instrument == order.instrument && holdings[i].quantity * order.side < 0.0);
    const double most = hedged ? tf_larger(furthest, opened(&order, leaves)) : furthest;
    EACH {
        double l, h;
        CHECK(tf_risk_net(books[b], order.instrument) == net(order.instrument));
        tf_risk_reach(books[b], order.instrument, &order, leaves, &l, &h);
        CHECK(l == low && h == high);
        tf_risk_reach(books[b], order.instrument, NULL, 0.0, &l, &h);
        CHECK(l == reached(order.instrument, -1, NULL, 0.0) && h == reached(order.instrument, 1, NULL, 0.0));
        CHECK(tf_risk_reduces(books[b], &order, leaves) == reduces(&order, leaves));
        CHECK(tf_state_reached_by(books[b], &order, leaves) == most);
        CHECK(tf_state_instrument(books[b], order.instrument)->exposed == exposed(order.instrument));
    }
}

static void compare_money(void) {
    const tf_risk_order order = draw();
    uint32_t culprit, scenario;
    bool valued = true;
    for (uint32_t i = 0; i < INSTRUMENTS; i++) {
        const bool asked = exposed(i) || i == order.instrument;
        valued = valued && (!asked || (mids[i] == mids[i] && rates[FACTS[i].currency] == rates[FACTS[i].currency]));
    }
    EACH {
        CHECK((tf_risk_blocked(books[b], order.instrument, false, &culprit) == TF_VALUED) == valued);
        CHECK((tf_risk_blocked(books[b], order.instrument, true, &culprit) == TF_VALUED) == valued);
    }
    if (!valued) return;
    compared++;
    bool working = false;
    for (int i = 0; i < ORDERS; i++) working = working || orders[i].used;
    tf_risk_tail first[TF_WHATS] = {{0}};
    unsigned cases = 0;
    double first_loss = 0.0;
    EACH {
        tf_risk_tail all[TF_WHATS];
        const unsigned found = tf_vector_cases(books[b], &order, order.quantity, true, all);
        const double loss = tf_risk_stress(books[b], &order, order.quantity, &scenario);
        CHECK(found == TF_WHATS && scenario < STRESSES);
        if (b == 0) {
            memcpy(first, all, sizeof first);
            first_loss = loss;
        }
        CHECK(memcmp(first, all, sizeof first) == 0); /* the same bits */
        CHECK(memcmp(&first_loss, &loss, sizeof loss) == 0);
        tf_risk_tail some[TF_WHATS];
        cases = tf_risk_what_if(books[b], &order, order.quantity, some);
        CHECK(cases == (working ? TF_WHATS : 2) || cases == 2); /* orders that can only close count for nothing */
        CHECK(memcmp(first, some, cases * sizeof *some) == 0);
    }
    double most = -INFINITY, gross_most = 0.0;
    for (int what = 0; what < TF_WHATS; what++) {
        double quantities[INSTRUMENTS], values[SCENARIOS], shocked[STRESSES], gross, pnl[SCENARIOS];
        for (uint32_t i = 0; i < INSTRUMENTS; i++) quantities[i] = quantity_of(i, what, &order, order.quantity);
        revalue(quantities, values, shocked, &gross);
        const tf_risk_tail expected = tail(values);
        CHECK(near(first[what].var, expected.var, gross + 1e-9) && near(first[what].es, expected.es, gross + 1e-9));
        for (int s = 0; s < STRESSES; s++) most = tf_larger(most, -shocked[s]);
        gross_most = tf_larger(gross_most, gross);
        if (what == TF_WHAT_ORDER) continue;
        for (uint32_t i = 0; i < INSTRUMENTS; i++) quantities[i] = quantity_of(i, what, NULL, 0.0);
        revalue(quantities, values, shocked, &gross);
        EACH {
            tf_risk_pnl(books[b], what ? (unsigned)what - 1 : 0, pnl);
            bool equal = true, zero = true;
            for (int s = 0; s < SCENARIOS; s++) {
                equal = equal && near(pnl[s], values[s], gross);
                zero = zero && pnl[s] == 0.0;
            }
            CHECK(equal);
            CHECK(gross != 0.0 || zero); /* exactly */
        }
    }
    if (cases == TF_WHATS) CHECK(near(first_loss, most, gross_most + 1e-9));
}

static void scenarios(uint64_t interval) {
    int64_t rows[INSTRUMENTS] = {0, 1, 2, 3, 4};
    double total = 0.0, raw[SCENARIOS];
    for (int s = 0; s < SCENARIOS; s++) total += raw[s] = pow(0.99, SCENARIOS - s);
    for (int s = 0; s < SCENARIOS; s++) weights[s] = raw[s] / total;
    EACH {
        CHECK(tf_risk_set_tail(books[b], method, level) == TF_OK);
        CHECK(tf_risk_set_scenarios(books[b], &returns[0][0], INSTRUMENTS, SCENARIOS, SCENARIOS, rows,
                                    is_weighted ? raw : NULL, interval) == TF_OK);
        CHECK(tf_risk_set_stress(books[b], &stresses[0][0], INSTRUMENTS, STRESSES, STRESSES, rows) == TF_OK);
    }
}

static void refusals(void) {
    tf_risk *risk = books[0];
    int64_t rows[INSTRUMENTS] = {0, 1, 2, 3, 4}, far[INSTRUMENTS] = {0, 1, 2, 3, INSTRUMENTS};
    float bad[INSTRUMENTS][SCENARIOS];
    double zero[SCENARIOS] = {0.0}, before[SCENARIOS], after[SCENARIOS];
    tf_risk_rebuild(risk);
    tf_risk_pnl(risk, TF_CASE_WORST, before);
    memcpy(bad, returns, sizeof bad);
    bad[4][3] = NAN;
    CHECK(tf_risk_set_scenarios(risk, &bad[0][0], INSTRUMENTS, SCENARIOS, SCENARIOS, rows, NULL, 0) ==
          TF_ERR_NONFINITE);
    bad[4][3] = -1.5f;
    CHECK(tf_risk_set_scenarios(risk, &bad[0][0], INSTRUMENTS, SCENARIOS, SCENARIOS, rows, NULL, 0) ==
          TF_ERR_NONFINITE);
    bad[4][3] = 0.0f;
    bad[2][3] = -1.0f; /* an inverse instrument */
    CHECK(tf_risk_set_scenarios(risk, &bad[0][0], INSTRUMENTS, SCENARIOS, SCENARIOS, rows, NULL, 0) == TF_ERR_ARGUMENT);
    CHECK(tf_risk_set_stress(risk, &bad[0][0], INSTRUMENTS, SCENARIOS, SCENARIOS, rows) == TF_ERR_ARGUMENT);
    CHECK(tf_risk_set_scenarios(risk, &returns[0][0], INSTRUMENTS, SCENARIOS, SCENARIOS, far, NULL, 0) ==
          TF_ERR_ARGUMENT);
    CHECK(tf_risk_set_scenarios(risk, &returns[0][0], INSTRUMENTS, SCENARIOS, SCENARIOS, rows, zero, 0) ==
          TF_ERR_ARGUMENT);
    CHECK(tf_risk_set_tail(risk, 3, 0.9) == TF_ERR_ARGUMENT && tf_risk_set_tail(risk, 0, 1.0) == TF_ERR_ARGUMENT);
    tf_risk_pnl(risk, TF_CASE_WORST, after);
    CHECK(memcmp(before, after, sizeof before) == 0);
}

/* Selection against sorting: ties, infinities, and values made for bad pivots. */
static void selections(const tf_scan *scan) {
    enum { MOST = 500 };
    static double x[MOST + 16], spare[MOST + 16], sorted[MOST];
    for (size_t n = 1; n <= MOST; n += 1 + n / 7) {
        for (int kind = 0; kind < 6; kind++) {
            for (size_t i = 0; i < n; i++) {
                const double v = (double)noise(&seed);
                x[i] = kind == 0   ? v
                       : kind == 1 ? (double)i
                       : kind == 2 ? -(double)i
                       : kind == 3 ? floor(v)
                       : kind == 4 ? (i % 2 ? (double)i : -(double)i)
                       : i % 3     ? v
                                   : -INFINITY;
            }
            memcpy(sorted, x, n * sizeof *x);
            qsort(sorted, n, sizeof *sorted, ascending);
            const size_t ranks[4] = {1, n / 20 + 1, n / 2 + 1, n};
            double kept[MOST];
            memcpy(kept, x, n * sizeof *x);
            for (int r = 0; r < 4; r++) {
                memcpy(x, kept, n * sizeof *x);
                CHECK(tf_scan_select(scan, x, spare, n, ranks[r]) == sorted[ranks[r] - 1]);
            }
        }
    }
}

/* Everything closed: exactly zero, whatever was there. */
static void flatten(void) {
    for (int i = 0; i < ORDERS; i++) {
        if (orders[i].used) EACH tf_risk_order_closed(books[b], orders[i].handle);
        orders[i].used = false;
    }
    for (uint32_t i = 0; i < INSTRUMENTS; i++) /* what is valued again leaves its rounding in the rows */
        EACH CHECK(tf_risk_on_quote(books[b], i, 0.3, 0.7, 1) == TF_QUOTE_USED);
    for (uint32_t currency = 1; currency < 3; currency++) EACH CHECK(tf_risk_on_rate(books[b], currency, 1.1) == TF_OK);
    EACH for (unsigned k = 0; k < TF_CASES; k++) {
        double pnl[SCENARIOS], filled[SCENARIOS];
        tf_risk_pnl(books[b], TF_CASE_FILLED, filled);
        tf_risk_pnl(books[b], k, pnl);
        CHECK(memcmp(pnl, filled, sizeof pnl) == 0); /* no order: no difference between the cases */
    }
    while (holding_count) {
        const holding of = holdings[0];
        fill(of.instrument, of.account, of.position, of.strategy, -of.quantity);
    }
    EACH for (unsigned k = 0; k < TF_CASES; k++) {
        double pnl[SCENARIOS];
        tf_risk_pnl(books[b], k, pnl);
        for (int s = 0; s < SCENARIOS; s++) CHECK(pnl[s] == 0.0);
    }
}

/* A huge order that came and went leaves no rounding in the sum of the others. */
static void sums(void) {
    tf_risk *risk = tf_risk_new(NULL);
    const tf_risk_facts facts = {.multiplier = 1.0};
    tf_risk_order order = {.order = TF_RISK_NONE, .side = 1, .quantity = 1.0, .price = NAN, .trigger = NAN};
    uint32_t i;
    double low, high;
    CHECK(tf_risk_add_instrument(risk, &facts, -1, -1, &i) == TF_OK);
    tf_risk_order_working(risk, &order, 0.0);
    order.quantity = 1e17;
    const uint32_t huge = tf_risk_order_working(risk, &order, 0.0);
    tf_risk_order_closed(risk, huge);
    tf_risk_order_closed(risk, huge); /* a second time: nothing */
    tf_risk_reach(risk, 0, NULL, 0.0, &low, &high);
    CHECK(low == 0.0 && high == 1.0 && tf_state_working_count(risk) == 1);
    for (int n = 0; n < 100000; n++) { /* nor do many changes */
        order.quantity = 0.1 * (1 + n % 7);
        const uint32_t one = tf_risk_order_working(risk, &order, 0.0);
        CHECK(!tf_risk_order_filled(risk, one, 0.03));
        tf_risk_order_closed(risk, one);
    }
    tf_risk_reach(risk, 0, NULL, 0.0, &low, &high);
    CHECK(low == 0.0 && fabs(high - 1.0) <= 64 * 0x1p-52);
    tf_risk_free(risk);
}

/* NaN and overflow count as infinite losses, and leave nothing behind. */
static void overflow(void) {
    tf_risk *risk = tf_risk_new(NULL);
    const tf_risk_facts facts = {.multiplier = 1e300};
    uint32_t i, culprit;
    int64_t row = 0;
    tf_risk_tail out[TF_WHATS];
    CHECK(tf_risk_add_instrument(risk, &facts, -1, -1, &i) == TF_OK);
    CHECK(tf_risk_add_instrument(risk, &facts, 0, -1, &i) == TF_ERR_ARGUMENT); /* there is no such row */
    CHECK(tf_risk_set_scenarios(risk, returns[0], 1, SCENARIOS, SCENARIOS, &row, NULL, 0) == TF_OK);
    tf_risk_on_quote(risk, 0, 1e10, 1e10, 1);
    CHECK(tf_risk_on_fill(risk, 0, 0, 0, 0, 1e300, 1.0) == TF_OK);
    CHECK(tf_risk_blocked(risk, 0, false, &culprit) == TF_VALUED);
    CHECK(tf_risk_what_if(risk, NULL, 0.0, out) == 2);
    CHECK(out[0].var == INFINITY && out[0].es == INFINITY);
    CHECK(tf_risk_on_fill(risk, 0, 0, 0, 0, -1e300, 1.0) == TF_OK);
    CHECK(tf_risk_what_if(risk, NULL, 0.0, out) == 2);
    CHECK(out[0].var == 0.0 && out[0].es == 0.0);
    CHECK(tf_risk_on_fill(risk, 0, 0, 0, 0, 1.7e308, 1.0) == TF_OK);
    CHECK(tf_risk_on_fill(risk, 0, 0, 0, 0, 1.7e308, 1.0) == TF_ERR_NONFINITE);
    CHECK(tf_risk_set_position(risk, 0, 0, 0, 0, NAN, 1.0) == TF_ERR_NONFINITE);
    CHECK(tf_risk_blocked(risk, TF_RISK_NONE, true, &culprit) == TF_NO_SCENARIOS);
    tf_risk_free(risk);
}

int main(void) {
    for (uint32_t i = 0; i < INSTRUMENTS; i++) {
        for (int s = 0; s < SCENARIOS; s++) returns[i][s] = 0.2f * noise(&seed) * noise(&seed) * (i == 4 ? 0.5f : 1.0f);
        for (int s = 0; s < STRESSES; s++) stresses[i][s] = 0.45f * noise(&seed);
    }
    for (int isa = 0; isa < TF_ISA_COUNT; isa++) {
        if (!tf_isa_available((tf_isa)isa) || tf_isa_select(tf_isa_name((tf_isa)isa)) != TF_OK) continue;
        const tf_risk_capacity small = {2, 2, 2}; /* the pools have to grow */
        selections(tf_scan_active());
        books[book_count] = tf_risk_new(&small);
        for (uint32_t i = 0; i < INSTRUMENTS; i++) {
            uint32_t made;
            CHECK(tf_risk_add_instrument(books[book_count], &FACTS[i], -1, -1, &made) == TF_OK && made == i);
        }
        book_count++;
    }
    for (uint32_t i = 0; i < INSTRUMENTS; i++) mids[i] = NAN;
    for (step = 0; step < STEPS; step++) {
        if (step % 1000 == 0) { /* new scenarios and another way to read the tail, with all that is held */
            method = (unsigned)(step / 1000) % 4 % 3;
            is_weighted = step / 1000 % 2 == 1;
            level = step >= 4000 ? 0.97 : 0.95;
            scenarios(step >= 3000 ? 7 : 0);
        }
        event();
        compare_quantities();
        if (step % 3 == 0) compare_money();
    }
    tf_risk_counts counts = tf_risk_counters(books[0]);
    CHECK(counts.rebuilds > 50 && counts.grown > 3 && counts.backward_quotes == 0);
    CHECK(compared > 500); /* most of the time everything could be valued */
    refusals();
    overflow();
    sums();
    flatten();
    EACH {
        double pnl[SCENARIOS];
        tf_risk_reset(books[b]);
        CHECK(tf_state_working_count(books[b]) == 0 && tf_risk_net(books[b], 0) == 0.0);
        tf_risk_pnl(books[b], TF_CASE_BUYS, pnl);
        for (int s = 0; s < SCENARIOS; s++) CHECK(pnl[s] == 0.0);
        tf_risk_free(books[b]);
    }
    return done("test_risk_state");
}
