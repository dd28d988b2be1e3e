/* The limits without Python: rates and duplicates against plain lists, sums against sums from zero, every rule at its
 * boundary, hostile numbers, a table taken whole or not at all, no allocation in a check. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "risk/limits.h"

/* Counts every allocation of the process; sanitizers bring their own malloc, so there the count is not taken. */
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTS_ALLOCATIONS 1
static long allocations = 0;
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
void *malloc(size_t size) {
    allocations++;
    return __libc_malloc(size);
}
void *calloc(size_t count, size_t size) {
    allocations++;
    return __libc_calloc(count, size);
}
void *realloc(void *memory, size_t size) {
    allocations++;
    return __libc_realloc(memory, size);
}
#endif

#define SECOND 1000000000ull
#define INSTRUMENTS 12u

static uint64_t seed = 0x9e3779b97f4a7c15u;
static uint64_t next_random(void) { /* splitmix64 */
    uint64_t z = (seed += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static uint32_t below(uint32_t bound) { return (uint32_t)(next_random() % bound); }

static const tf_limits_config OFF = {
    .collar_bps = NAN, .max_spread_bps = NAN, .max_out_of_distribution = NAN, .min_confidence = NAN, .max_rung = NAN};

static tf_risk *make_risk(uint32_t instruments) {
    tf_risk *risk = tf_risk_new(&(tf_risk_capacity){instruments, 256, 20000});
    for (uint32_t i = 0; i < instruments; i++) {
        tf_risk_facts facts = {.payoff = TF_PAYOFF_LINEAR,
                               .multiplier = 1.0,
                               .price_increment = 0.25,
                               .size_increment = 0.5,
                               .margin_rate = i % 2 ? 0.25 : 0.0,
                               .venue = 1 + i % 3,
                               .bucket = 1 + i % 2};
        uint32_t handle;
        CHECK(tf_risk_add_instrument(risk, &facts, -1, -1, &handle) == TF_OK && handle == i);
        tf_risk_on_quote(risk, i, 99.75, 100.25, 1);
    }
    tf_risk_on_equity(risk, 10000.0);
    return risk;
}

static tf_risk_order order_of(uint32_t instrument, int side, double quantity, double price, uint64_t ts) {
    return (tf_risk_order){.order = TF_RISK_NONE,
                           .instrument = instrument,
                           .strategy = 1,
                           .side = (int8_t)side,
                           .type = isnan(price) ? TF_ORDER_MARKET : TF_ORDER_LIMIT,
                           .quantity = quantity,
                           .price = price,
                           .trigger = NAN,
                           .ts = ts};
}

static tf_limit row_of(unsigned rule, double limit) {
    return (tf_limit){.rule = (uint8_t)rule, .scope = TF_SCOPE_PORTFOLIO, .limit = limit, .soft = NAN};
}

static tf_verdict verdict;

static bool ask(tf_limits *limits, tf_risk *risk, const tf_risk_order *order) {
    tf_ask how = {.armed = true};
    return tf_limits_check(limits, risk, order, &how, &verdict);
}

static bool found(unsigned rule) {
    for (uint32_t i = 0; i < verdict.count; i++)
        if (verdict.violations[i].rule == rule) return true;
    return false;
}

static void test_words(void) {
    CHECK(strcmp(tf_rule_text(TF_UNKNOWN_INSTRUMENT), "UNKNOWN_INSTRUMENT") == 0);
    CHECK(strcmp(tf_rule_text(TF_INTERNAL_ERROR), "INTERNAL_ERROR") == 0);
    CHECK(strcmp(tf_rule_text(TF_RULE_COUNT), "") == 0);
    for (unsigned a = 0; a < TF_RULE_COUNT; a++)
        for (unsigned b = a + 1; b < TF_RULE_COUNT; b++) CHECK(strcmp(tf_rule_text(a), tf_rule_text(b)) != 0);
}

/* ---- windows ---- */

static void test_rates(void) {
    static uint64_t sent[20000];
    for (int round = 0; round < 20; round++) {
        tf_risk *risk = make_risk(1);
        tf_limits *limits = tf_limits_new();
        uint32_t most = 2 + below(20), reserve = below(most), count = 0, passed = 0;
        uint64_t window = 1 + below(50), now = 1000;
        tf_limit row = row_of(TF_MAX_ORDER_RATE, most);
        row.window = window;
        row.reserve = reserve;
        CHECK(tf_limits_set(limits, risk, &OFF, &row, 1) == 0);
        for (int k = 0; k < 1000; k++) {
            now += below(8);
            uint64_t ts = below(20) ? now : now - below(500); /* sometimes a clock that goes back */
            tf_risk_order order = order_of(0, 1, 1.0, NAN, ts);
            uint32_t within = 0;
            for (uint32_t i = 0; i < count; i++) within += now - sent[i] < window;
            bool expected = within + 1 <= most - reserve;
            now = tf_limits_now(limits) > ts ? tf_limits_now(limits) : ts;
            within = 0;
            for (uint32_t i = 0; i < count; i++) within += now - sent[i] < window;
            expected = within + 1 <= most - reserve;
            CHECK(ask(limits, risk, &order) == expected);
            CHECK(found(TF_MAX_ORDER_RATE) == !expected);
            if (expected) {
                sent[count++] = now;
                passed++;
            } else {
                CHECK(verdict.violations[0].value == within + 1);
            }
            if (expected && below(10) == 0) { /* a list that was denied */
                tf_limits_undo(limits, risk, 1);
                count--;
            }
        }
        CHECK(passed > 20);
        tf_limits_free(limits);
        tf_risk_free(risk);
    }
}

static void test_reserve_and_cancels(void) {
    tf_risk *risk = make_risk(1);
    tf_limits *limits = tf_limits_new();
    tf_limit row = row_of(TF_MAX_MESSAGE_RATE, 10.0);
    row.window = SECOND;
    row.reserve = 3;
    CHECK(tf_limits_set(limits, risk, &OFF, &row, 1) == 0);
    CHECK(tf_risk_set_position(risk, 0, 0, 0, 1, 100.0, 100.0) == TF_OK);
    tf_risk_order buy = order_of(0, 1, 1.0, NAN, SECOND), sell = order_of(0, -1, 1.0, NAN, SECOND);
    for (int k = 0; k < 7; k++) CHECK(ask(limits, risk, &buy));
    CHECK(!ask(limits, risk, &buy) && found(TF_MAX_MESSAGE_RATE));
    CHECK(ask(limits, risk, &sell) && verdict.reducing);
    for (int k = 0; k < 20; k++) tf_limits_on_cancel(limits, risk, 1, 0, SECOND); /* counted, never refused */
    CHECK(!ask(limits, risk, &sell) && found(TF_MAX_MESSAGE_RATE));
    sell.ts = 2 * SECOND - 1;
    CHECK(!ask(limits, risk, &sell));
    sell.ts = 2 * SECOND;
    CHECK(ask(limits, risk, &sell));
    tf_limits_free(limits);
    tf_risk_free(risk);
}

static void test_duplicates(void) {
    enum { LENGTH = 30000 };
    static tf_risk_order sent[LENGTH];
    static uint64_t names[LENGTH];
    tf_risk *risk = make_risk(3);
    tf_limits *limits = tf_limits_new();
    tf_limits_config config = OFF;
    config.duplicate_window = 40;
    CHECK(tf_limits_set(limits, risk, &config, NULL, 0) == 0);
    uint32_t count = 0, denied = 0;
    uint64_t now = 100;
    for (int k = 0; k < LENGTH; k++) {
        now += below(3);
        tf_risk_order order = order_of(below(3), below(2) ? 1 : -1, 0.5 * (1 + below(4)), 100.0 + 0.25 * below(3), now);
        order.strategy = 1 + below(2);
        tf_ask how = {.armed = true, .name = 1 + below(1000)};
        bool expected = true;
        for (uint32_t i = count; i > 0 && now - sent[i - 1].ts < 40; i--) {
            const tf_risk_order *old = &sent[i - 1];
            if (old->instrument == order.instrument && old->side == order.side && old->strategy == order.strategy &&
                old->quantity == order.quantity && old->price == order.price && names[i - 1] != how.name)
                expected = false;
        }
        CHECK(tf_limits_check(limits, risk, &order, &how, &verdict) == expected);
        denied += !expected;
        if (!expected) continue;
        names[count] = how.name;
        sent[count++] = order;
        if (below(7) == 0) {
            tf_limits_undo(limits, risk, 1);
            count--;
        }
    }
    CHECK(denied > 1000 && denied < LENGTH / 2);

    /* A burst: what is remembered is bounded, and beyond it nothing passes rather than everything. */
    uint32_t passed = 0;
    for (uint32_t k = 0; k < 10000; k++) {
        tf_risk_order order = order_of(0, 1, 0.5 * (k + 1), 100.0, now + 1000);
        passed += ask(limits, risk, &order);
    }
    CHECK(passed == TF_DUPLICATES_MAX && found(TF_DUPLICATE_ORDER));
    CHECK(verdict.violations[0].detail == TF_DETAIL_NO_MEMORY);
    tf_risk_order later = order_of(0, 1, 0.5, 100.0, now + 1040);
    CHECK(ask(limits, risk, &later));
    tf_limits_free(limits);
    tf_risk_free(risk);
}

static void test_executions(void) {
    tf_risk *risk = make_risk(2);
    tf_limits *limits = tf_limits_new();
    tf_limits_config config = OFF;
    config.max_repeats = 3;
    config.repeat_window = 100;
    CHECK(tf_limits_set(limits, risk, &config, NULL, 0) == 0);
    for (int k = 0; k < 3; k++) CHECK(tf_limits_on_execution(limits, 1, 0, 1, 10) == 0);
    CHECK(tf_limits_on_execution(limits, 1, 1, 1, 10) == 0); /* another instrument */
    CHECK(tf_limits_on_execution(limits, 2, 0, 1, 10) == 0); /* another strategy */
    CHECK(tf_limits_on_execution(limits, 1, 0, 1, 10) == 1);
    CHECK(tf_limits_on_execution(limits, 1, 0, -1, 10) == 0); /* the other side begins anew */
    for (int k = 0; k < 3; k++) CHECK(tf_limits_on_execution(limits, 1, 0, 1, 11) == 0);
    CHECK(tf_limits_on_execution(limits, 1, 0, 1, 110) == 1);
    CHECK(tf_limits_on_execution(limits, 1, 0, 1, 211) == 0); /* the window has passed */
    for (uint32_t s = 3; s < 2000; s++) CHECK(tf_limits_on_execution(limits, s, 0, 1, 211) == 0);
    for (int k = 0; k < 2; k++) CHECK(tf_limits_on_execution(limits, 1, 0, 1, 211) == 0);
    CHECK(tf_limits_on_execution(limits, 1, 0, 1, 211) == 1);
    tf_limits_clear_executions(limits, 1);
    CHECK(tf_limits_on_execution(limits, 1, 0, 1, 211) == 0);
    tf_limits_free(limits);
    tf_risk_free(risk);
}

static void test_mids(void) {
    enum { LENGTH = 5000 };
    static double mids[LENGTH];
    static uint64_t times[LENGTH];
    const uint64_t window = 1600, part = 100;
    tf_mids kept = {0};
    uint64_t now = 5000;
    for (int k = 0; k < LENGTH; k++) {
        now += below(60);
        if (below(500) == 0) now += 10000;
        mids[k] = 100.0 + below(1000);
        times[k] = now;
        tf_mids_put(&kept, mids[k], now, window);
        uint64_t at = now + below(200);
        double low = 0.0, high = 0.0, least = HUGE_VAL, most = -HUGE_VAL;
        for (int i = 0; i <= k; i++)
            if (times[i] / part + 16 >= at / part) {
                least = fmin(least, mids[i]);
                most = fmax(most, mids[i]);
            }
        CHECK(tf_mids_extremes(&kept, at, window, &low, &high) == isfinite(least));
        if (isfinite(least)) CHECK(low == least && high == most);
    }
    tf_mids_put(&kept, NAN, now, window);
    tf_mids_put(&kept, -1.0, now, window);
    double low, high;
    CHECK(tf_mids_extremes(&kept, now, window, &low, &high) && low > 0.0 && high < 2000.0);
}

/* ---- sums ---- */

static void put_naive(const tf_limits *limits, tf_risk *risk, const tf_scope *scope, tf_totals *sums) {
    memset(sums, 0, sizeof *sums);
    for (uint32_t i = 0; i < INSTRUMENTS; i++) {
        const tf_instrument *of = tf_state_instrument(risk, i);
        double low, high;
        tf_part part;
        if (scope->kind == TF_SCOPE_VENUE && of->facts.venue != scope->key) continue;
        if (scope->kind == TF_SCOPE_BUCKET && of->facts.bucket != scope->key) continue;
        if (scope->kind == TF_SCOPE_INSTRUMENT && i != scope->key) continue;
        if (scope->kind == TF_SCOPE_STRATEGY) tf_sums_cell_reach(risk, i, scope->key, NULL, 0.0, &low, &high);
        else tf_state_reach(risk, i, NULL, 0.0, &low, &high);
        tf_sums_value(risk, of, i, low, high, &part);
        sums->gross += part.gross;
        sums->low += part.low;
        sums->high += part.high;
        sums->margin += part.margin;
        sums->unvalued += part.unvalued;
        for (uint32_t at = of->orders; at != TF_RISK_NONE; at = tf_state_working(risk, at)->next) {
            const tf_working *working = tf_state_working(risk, at);
            if (scope->kind == TF_SCOPE_STRATEGY && working->view.strategy != scope->key) continue;
            sums->working++;
            sums->notional += tf_state_notional(risk, &working->view, working->leaves);
        }
    }
    (void)limits;
}

static void test_sums(void) {
    tf_risk *risk = make_risk(INSTRUMENTS);
    tf_limits *limits = tf_limits_new();
    static const struct {
        uint8_t scope;
        uint32_t key;
    } scopes[] = {{TF_SCOPE_PORTFOLIO, 0},  {TF_SCOPE_VENUE, 1},    {TF_SCOPE_VENUE, 2},   {TF_SCOPE_BUCKET, 1},
                  {TF_SCOPE_INSTRUMENT, 4}, {TF_SCOPE_STRATEGY, 1}, {TF_SCOPE_STRATEGY, 2}};
    tf_limit rows[14];
    for (int s = 0; s < 7; s++) {
        rows[2 * s] = row_of(TF_MAX_GROSS_EXPOSURE, 1e15);
        rows[2 * s + 1] = row_of(TF_MAX_WORKING_NOTIONAL, 1e15);
        rows[2 * s].scope = rows[2 * s + 1].scope = scopes[s].scope;
        rows[2 * s].key = rows[2 * s + 1].key = scopes[s].key;
    }
    CHECK(tf_limits_set(limits, risk, &OFF, rows, 14) == 0);
    CHECK(limits->scope_count == 7);
    static uint32_t live[64];
    uint32_t lives = 0, steps = 0;
    for (int k = 0; k < 60000; k++) {
        uint32_t i = below(INSTRUMENTS);
        switch (below(6)) {
        case 0: tf_risk_on_quote(risk, i, 90.0 + below(20), 111.0 + below(20), 1); break;
        case 1: {
            double scale =
                below(50) ? 1.0 : 1e9; /* once in a while a position that dwarfs the others, and goes again */
            tf_risk_set_position(risk, i, 0, 0, 1 + below(3), scale * 0.5 * (int)(below(21) - 10), 100.0);
            break;
        }
        case 2: tf_risk_set_position(risk, i, 0, 0, 1 + below(3), 0.0, 100.0); break;
        case 3:
        case 4:
            if (lives < 64) {
                tf_risk_order order = order_of(i, below(2) ? 1 : -1, 0.5 * (1 + below(9)), 100.0 + below(9), 1);
                order.strategy = 1 + below(3);
                order.group = below(3) ? 0 : 7 + below(2);
                order.reduce_only = below(4) == 0;
                live[lives++] = tf_risk_order_working(risk, &order, 0.0);
            }
            break;
        default:
            if (lives) {
                uint32_t at = below(lives);
                tf_risk_order_closed(risk, live[at]);
                live[at] = live[--lives];
            }
        }
        if (below(4)) continue;
        tf_sums_drain(limits, risk);
        if (k % 100) continue;
        for (uint32_t s = 0; s < limits->scope_count; s++) {
            tf_totals naive;
            const tf_totals *sums = &limits->scopes[s].sums;
            put_naive(limits, risk, &limits->scopes[s], &naive);
            double slack = 1e-9 * (1.0 + naive.gross + naive.notional);
            CHECK(fabs(sums->gross - naive.gross) <= slack && fabs(sums->low - naive.low) <= slack);
            CHECK(fabs(sums->high - naive.high) <= slack && fabs(sums->margin - naive.margin) <= slack);
            CHECK(fabs(sums->notional - naive.notional) <= slack);
            CHECK(sums->working == naive.working && sums->unvalued == naive.unvalued);
            steps++;
        }
    }
    CHECK(steps > 500 && limits->counts.resums > 5);

    /* Another reader of the same portfolio takes what changed: this one notices and sums anew. */
    tf_limits *other = tf_limits_new();
    CHECK(tf_limits_set(other, risk, &OFF, rows, 14) == 0);
    tf_risk_set_position(risk, 3, 0, 0, 1, 77.0, 100.0);
    tf_sums_drain(other, risk);
    tf_sums_drain(limits, risk);
    CHECK(fabs(limits->scopes[0].sums.gross - other->scopes[0].sums.gross) <= 1e-9 * limits->scopes[0].sums.gross);
    tf_limits_free(other);
    tf_limits_free(limits);
    tf_risk_free(risk);
}

/* What rounding of a huge sum leaves behind does not stay in a small one. */
static void test_a_sum_that_collapses(void) {
    tf_risk *risk = make_risk(2);
    tf_limits *limits = tf_limits_new();
    tf_limit row = row_of(TF_MAX_GROSS_EXPOSURE, 1e18);
    CHECK(tf_limits_set(limits, risk, &OFF, &row, 1) == 0);
    tf_risk_on_quote(risk, 0, 33.3, 33.4, 2);
    tf_risk_on_quote(risk, 1, 33.3, 33.4, 2);
    tf_risk_set_position(risk, 0, 0, 0, 1, 0.5, 33.0);
    tf_sums_drain(limits, risk);
    double small = limits->scopes[0].sums.gross;
    tf_risk_set_position(risk, 1, 0, 0, 1, 7.7777777e14, 33.0);
    tf_sums_drain(limits, risk);
    CHECK(limits->scopes[0].sums.gross > 1e16);
    tf_risk_set_position(risk, 1, 0, 0, 1, 0.0, 33.0);
    tf_sums_drain(limits, risk);
    CHECK(limits->scopes[0].sums.gross == small && limits->largest == small);
    tf_limits_free(limits);
    tf_risk_free(risk);
}

/* ---- rules ---- */

static void test_exposure_rules(void) {
    tf_risk *risk = make_risk(2); /* mids of 100, equity of 10,000 */
    tf_limits *limits = tf_limits_new();
    tf_limit rows[] = {row_of(TF_MAX_GROSS_EXPOSURE, 5000.0), row_of(TF_MAX_NET_EXPOSURE, 3000.0),
                       row_of(TF_MAX_LEVERAGE, 0.6), row_of(TF_MAX_MARGIN_USE, 0.4),
                       row_of(TF_MAX_CONCENTRATION, 0.35)};
    CHECK(tf_limits_set(limits, risk, &OFF, rows, 5) == 0);
    tf_risk_set_position(risk, 0, 0, 0, 2, 30.0, 100.0);
    tf_risk_order order = order_of(1, -1, 20.0, NAN, 1);
    CHECK(ask(limits, risk, &order)); /* gross 5,000 */
    order.quantity = 20.5;
    CHECK(!ask(limits, risk, &order) && found(TF_MAX_GROSS_EXPOSURE) && verdict.count == 1);
    order = order_of(1, 1, 0.5, NAN, 1); /* net 3,050 in its own direction */
    CHECK(!ask(limits, risk, &order) && found(TF_MAX_NET_EXPOSURE) && verdict.count == 1);
    order = order_of(0, -1, 65.0, NAN, 1); /* to -35: 3,500, exactly the concentration; net only counts its direction */
    CHECK(!ask(limits, risk, &order) && verdict.count == 1 && found(TF_MAX_NET_EXPOSURE));
    order.quantity = 65.5;
    CHECK(!ask(limits, risk, &order) && found(TF_MAX_CONCENTRATION));
    tf_risk_on_equity(risk, 4999.0); /* gross 3,000 + 0 of equity: 0.6001 */
    order = order_of(1, -1, 0.5, NAN, 1);
    CHECK(!ask(limits, risk, &order) && found(TF_MAX_LEVERAGE) && found(TF_MAX_MARGIN_USE));
    tf_risk_on_equity(risk, NAN);
    CHECK(!ask(limits, risk, &order) && found(TF_MISSING_EQUITY) && verdict.count == 1);
    tf_risk_on_equity(risk, 1e9);
    CHECK(ask(limits, risk, &order));
    tf_limits_free(limits);
    tf_risk_free(risk);
}

static void test_account(void) {
    const uint64_t day = 86400 * SECOND;
    tf_risk *risk = make_risk(1);
    tf_limits *limits = tf_limits_new();
    tf_limit rows[] = {row_of(TF_MAX_DAILY_LOSS, 0.1), row_of(TF_MAX_DRAWDOWN, 0.25)};
    tf_limits_config config = OFF;
    config.day_offset = 6 * 3600 * SECOND;
    CHECK(tf_limits_set(limits, risk, &config, rows, 2) == 0);
    CHECK(tf_limits_on_equity(limits, 1000.0, day) == 0);
    CHECK(tf_limits_on_equity(limits, 900.0, day + 1) == 0); /* exactly a tenth */
    CHECK(tf_limits_on_equity(limits, 899.9, day + 2) == TF_BREACH_DAILY_LOSS);
    CHECK(tf_limits_on_equity(limits, 899.9, day + config.day_offset - 1) == TF_BREACH_DAILY_LOSS);
    CHECK(tf_limits_on_equity(limits, 850.0, day + config.day_offset) == 0); /* a new day, from 899.9 */
    CHECK(tf_limits_on_equity(limits, 800.0, day + config.day_offset + 1) == TF_BREACH_DAILY_LOSS);
    CHECK(tf_limits_on_equity(limits, 749.0, day + config.day_offset + 2) ==
          (TF_BREACH_DAILY_LOSS | TF_BREACH_DRAWDOWN));
    tf_limits_restart(limits, TF_BREACH_DAILY_LOSS);
    CHECK(tf_limits_on_equity(limits, 749.0, day + config.day_offset + 3) == TF_BREACH_DRAWDOWN);
    tf_limits_restart(limits, TF_BREACH_DRAWDOWN);
    CHECK(tf_limits_on_equity(limits, 749.0, 1) == 0); /* a clock that goes back opens no new day */
    CHECK(tf_limits_account(limits)->day_start == 749.0 && tf_limits_account(limits)->peak == 749.0);
    CHECK(tf_limits_on_equity(limits, NAN, 3 * day) == 0);
    tf_risk_order order = order_of(0, 1, 1.0, NAN, 3 * day);
    tf_risk_on_equity(risk, NAN);
    CHECK(!ask(limits, risk, &order) && found(TF_MISSING_EQUITY) && verdict.count == 1);
    tf_risk_on_equity(risk, 500.0); /* the check itself looks at the equity: this is the start of the new day */
    CHECK(!ask(limits, risk, &order) && found(TF_MAX_DRAWDOWN) && verdict.breach == TF_BREACH_DRAWDOWN);
    tf_limits_free(limits);
    tf_risk_free(risk);
}

static void test_hostile(void) {
    static const double numbers[] = {NAN, INFINITY, -INFINITY, 0.0, -1.0, 1e308, -1e308, 5e-324, 1.0, 100.0};
    tf_risk *risk = make_risk(2);
    tf_limits *limits = tf_limits_new();
    tf_limits_config config = OFF;
    config.collar_bps = 1e6;
    config.collar_window = SECOND;
    config.duplicate_window = 10;
    config.deny_self_trade = true;
    config.stale = 100;
    tf_limit rows[] = {row_of(TF_MAX_ORDER_QUANTITY, 10.0), row_of(TF_MAX_ORDER_NOTIONAL, 1000.0),
                       row_of(TF_MAX_POSITION, 5.0), row_of(TF_MAX_GROSS_EXPOSURE, 400.0),
                       row_of(TF_MAX_WORKING_NOTIONAL, 400.0)};
    CHECK(tf_limits_set(limits, risk, &config, rows, 5) == 0);
    for (int k = 0; k < 200000; k++) {
        tf_risk_order order = {.order = TF_RISK_NONE,
                               .instrument = below(4),
                               .strategy = below(3),
                               .side = (int8_t)(below(4) - 2),
                               .type = (uint8_t)below(12),
                               .reduce_only = below(2),
                               .quantity = numbers[below(10)],
                               .price = numbers[below(10)],
                               .trigger = numbers[below(10)],
                               .ts = below(200)};
        double bid = numbers[below(10)], top = numbers[below(10)];
        if (below(3) == 0) tf_risk_on_quote(risk, below(2), bid, top, below(200));
        if (below(9) == 0) tf_risk_on_equity(risk, numbers[below(10)]);
        tf_ask how = {.armed = true, .filled = below(2) ? 0.0 : numbers[below(10)], .dry = below(2)};
        if (tf_limits_check(limits, risk, &order, &how, &verdict)) {
            CHECK(order.quantity > 0.0 && order.quantity <= 10.0 && order.instrument < 2);
            CHECK(!isinf(order.price) && !isinf(order.trigger) && order.type < TF_ORDER_TYPES);
            CHECK(order.side == 1 || order.side == -1);
        } else {
            CHECK(verdict.count > 0 && verdict.count <= TF_VIOLATIONS_MAX);
        }
    }
    tf_limits_free(limits);
    tf_risk_free(risk);
}

static void test_table(void) {
    tf_risk *risk = make_risk(2);
    tf_limits *limits = tf_limits_new();
    tf_limit row = row_of(TF_MAX_ORDER_RATE, 3.0);
    row.window = SECOND;
    CHECK(tf_limits_set(limits, risk, &OFF, &row, 1) == 0);
    tf_risk_order order = order_of(0, 1, 1.0, NAN, SECOND);
    for (int k = 0; k < 3; k++) CHECK(ask(limits, risk, &order));
    CHECK(!ask(limits, risk, &order));
    row.limit = 5.0; /* what was counted stays with the limit */
    CHECK(tf_limits_set(limits, risk, &OFF, &row, 1) == 0);
    CHECK(ask(limits, risk, &order) && ask(limits, risk, &order) && !ask(limits, risk, &order));
    row.limit = 2.0;
    CHECK(tf_limits_set(limits, risk, &OFF, &row, 1) == 0);
    CHECK(!ask(limits, risk, &order));
    order.ts = 2 * SECOND;
    CHECK(ask(limits, risk, &order) && ask(limits, risk, &order) && !ask(limits, risk, &order));

    /* An instrument that came later is denied until there is room for it. */
    uint32_t handle;
    tf_risk_facts facts = {.multiplier = 1.0, .venue = 1};
    CHECK(tf_risk_add_instrument(risk, &facts, -1, -1, &handle) == TF_OK);
    tf_risk_on_quote(risk, handle, 99.0, 101.0, 1);
    order = order_of(handle, 1, 1.0, NAN, 9 * SECOND);
    CHECK(!ask(limits, risk, &order) && found(TF_UNKNOWN_INSTRUMENT));
    CHECK(tf_limits_grow(limits, risk) == 0 && tf_limits_room(limits) == handle + 1);
    CHECK(ask(limits, risk, &order));
    tf_limits_free(limits);
    tf_limits_free(NULL);
    tf_risk_free(risk);
}

static void test_calendar_and_kills(void) {
    tf_risk *risk = make_risk(2);
    tf_limits *limits = tf_limits_new();
    CHECK(tf_limits_set(limits, risk, &OFF, NULL, 0) == 0);
    const uint64_t bounds[] = {100, 200, 300, 400};
    CHECK(tf_limits_calendar(limits, 0, bounds, 4, 50, 450) == 0);
    tf_limits_instrument(limits, 0, true, 0, 0);
    for (uint64_t ts = 0; ts < 500; ts++) {
        tf_risk_order order = order_of(0, 1, 1.0, NAN, ts);
        bool open = (ts >= 100 && ts < 200) || (ts >= 300 && ts < 400);
        CHECK(tf_limits_calendar_knows(limits, 0, ts) == (ts >= 50 && ts < 450));
        CHECK(ask(limits, risk, &order) == open);
        CHECK(found(TF_OUTSIDE_TRADING_WINDOW) == !open);
    }
    tf_risk_order order = order_of(1, 1, 1.0, NAN, 500);
    const uint8_t kinds[] = {TF_SCOPE_STRATEGY, TF_SCOPE_VENUE};
    CHECK(ask(limits, risk, &order));
    tf_limits_kills(limits, kinds, (const uint32_t[]){1, 9}, 2);
    CHECK(!ask(limits, risk, &order) && found(TF_KILLED));
    order.strategy = 2;
    CHECK(ask(limits, risk, &order));
    tf_limits_kills(limits, kinds, (const uint32_t[]){1, 2}, 2); /* instrument 1 is of venue 2 */
    CHECK(!ask(limits, risk, &order));
    tf_limits_kills(limits, NULL, NULL, 0);
    CHECK(ask(limits, risk, &order));
    static uint8_t many[TF_KILLS_MAX + 1];
    static uint32_t keys[TF_KILLS_MAX + 1];
    memset(many, TF_SCOPE_STRATEGY, sizeof many);
    memset(keys, 0xee, sizeof keys);
    tf_limits_kills(limits, many, keys, TF_KILLS_MAX);
    CHECK(ask(limits, risk, &order));
    tf_limits_kills(limits, many, keys, TF_KILLS_MAX + 1); /* more than can be told apart: everything */
    CHECK(!ask(limits, risk, &order));
    tf_limits_free(limits);
    tf_risk_free(risk);
}

static void test_no_allocation(void) {
    tf_risk *risk = make_risk(INSTRUMENTS);
    tf_limits *limits = tf_limits_new();
    tf_limits_config config = OFF;
    config.collar_bps = 1e5;
    config.collar_window = SECOND;
    config.duplicate_window = 5;
    config.deny_self_trade = true;
    config.warn_at[0] = 0.5;
    config.warn_count = 1;
    tf_limit rows[] = {
        row_of(TF_MAX_MESSAGE_RATE, 1000.0),   row_of(TF_MAX_ORDER_NOTIONAL, 3000.0), row_of(TF_MAX_POSITION, 100.0),
        row_of(TF_MAX_GROSS_EXPOSURE, 1e6),    row_of(TF_MAX_NET_EXPOSURE, 1e6),      row_of(TF_MAX_LEVERAGE, 20.0),
        row_of(TF_MAX_WORKING_ORDERS, 5000.0), row_of(TF_MAX_WORKING_NOTIONAL, 1e6),  row_of(TF_MAX_DAILY_LOSS, 0.9)};
    rows[0].window = SECOND;
    rows[3].scope = TF_SCOPE_STRATEGY;
    rows[3].key = 1;
    CHECK(tf_limits_set(limits, risk, &config, rows, 9) == 0);
    uint32_t passed = 0, denied = 0;
#ifdef COUNTS_ALLOCATIONS
    long before = allocations;
#endif
    for (int k = 0; k < 20000; k++) {
        tf_risk_order order = order_of(below(INSTRUMENTS), below(2) ? 1 : -1, 0.5 * (1 + below(70)), 100.0, k);
        bool went = ask(limits, risk, &order);
        passed += went;
        denied += !went;
        if (went && below(20) == 0) tf_risk_order_working(risk, &order, 0.0);
        if (below(3) == 0) tf_risk_on_quote(risk, below(INSTRUMENTS), 99.0, 100.0 + below(3), 1);
        tf_limits_on_cancel(limits, risk, 1, 0, (uint64_t)k);
    }
#ifdef COUNTS_ALLOCATIONS
    CHECK(allocations == before);
#endif
    CHECK(passed > 100 && denied > 100);
    tf_limits_free(limits);
    tf_risk_free(risk);
}

int main(void) {
    test_words();
    test_rates();
    test_reserve_and_cancels();
    test_duplicates();
    test_executions();
    test_mids();
    test_sums();
    test_a_sum_that_collapses();
    test_exposure_rules();
    test_account();
    test_hostile();
    test_table();
    test_calendar_and_kills();
    test_no_allocation();
    return done("test_risk_limits");
}
