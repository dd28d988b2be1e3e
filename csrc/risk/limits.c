/* The table of limits: taken whole or not at all, with what was counted kept where a limit stays. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "limits.h"

#define TF_RULE_TEXT_(name) #name,
static const char *const TEXTS[TF_RULE_COUNT] = {TF_RULES(TF_RULE_TEXT_)};

const char *tf_rule_text(unsigned rule) { return rule < TF_RULE_COUNT ? TEXTS[rule] : ""; }

static const tf_limits_config NOTHING = {
    .collar_bps = NAN, .max_spread_bps = NAN, .max_out_of_distribution = NAN, .min_confidence = NAN, .max_rung = NAN};
static const tf_account NO_ACCOUNT = {.equity = NAN, .day_start = NAN, .peak = NAN, .day = -1};

tf_limits *tf_limits_new(void) {
    tf_limits *limits = calloc(1, sizeof *limits);
    if (!limits) return NULL;
    limits->config = NOTHING;
    limits->account = NO_ACCOUNT;
    limits->all = TF_RISK_NONE;
    return limits;
}

static void free_rows(tf_row *rows, uint32_t count) {
    for (uint32_t r = 0; rows && r < count; r++) {
        free(rows[r].ring.times);
        free(rows[r].each);
        free(rows[r].levels);
    }
    free(rows);
}

static void free_scopes(tf_scope *scopes, uint32_t count) {
    for (uint32_t s = 0; scopes && s < count; s++) free(scopes[s].cells);
    free(scopes);
}

static void free_calendars(tf_limits *limits) {
    for (uint32_t k = 0; k < limits->calendar_count; k++) free(limits->calendars[k].bounds);
    free(limits->calendars);
    limits->calendars = NULL;
    limits->calendar_count = 0;
}

void tf_limits_free(tf_limits *limits) {
    if (!limits) return;
    free_rows(limits->rows, limits->count);
    free_scopes(limits->scopes, limits->scope_count);
    free_calendars(limits);
    free(limits->parts);
    free(limits->tradable);
    free(limits->mids);
    tf_duplicates_free(&limits->duplicates);
    tf_runs_free(&limits->runs);
    free(limits);
}

/* ---- taking a table ---- */

static bool is_rate(const tf_limit *spec) {
    return spec->rule == TF_MAX_ORDER_RATE || spec->rule == TF_MAX_MESSAGE_RATE;
}

static bool is_working(const tf_limit *spec) {
    return spec->rule == TF_MAX_WORKING_ORDERS || spec->rule == TF_MAX_WORKING_NOTIONAL;
}

static bool is_exposure(const tf_limit *spec) {
    return spec->rule == TF_MAX_GROSS_EXPOSURE || spec->rule == TF_MAX_NET_EXPOSURE || spec->rule == TF_MAX_LEVERAGE ||
           spec->rule == TF_MAX_MARGIN_USE || spec->rule == TF_MAX_CONCENTRATION;
}

static bool same_limit(const tf_limit *a, const tf_limit *b) {
    return a->rule == b->rule && a->scope == b->scope && a->key == b->key;
}

static const tf_row *row_before(const tf_limits *limits, const tf_limit *spec) {
    for (uint32_t r = 0; r < limits->count; r++)
        if (same_limit(&limits->rows[r].spec, spec)) return &limits->rows[r];
    return NULL;
}

/* Levels count the shares that were passed, and mean nothing when these are others. */
static bool same_shares(const tf_limits_config *a, const tf_limits_config *b) {
    return a->warn_count == b->warn_count && memcmp(a->warn_at, b->warn_at, a->warn_count * sizeof *a->warn_at) == 0;
}

static bool make_row(const tf_limits *limits, tf_row *row, const tf_limits_config *config, const tf_limit *spec,
                     uint32_t room) {
    const tf_row *before = row_before(limits, spec);
    uint32_t width = spec->scope == TF_SCOPE_EACH ? room : 1;
    *row = (tf_row){.spec = *spec, .scope = TF_RISK_NONE, .value = NAN, .bound = NAN};
    row->levels = calloc(width ? width : 1, 1);
    if (!row->levels) return false;
    if (spec->scope == TF_SCOPE_EACH) {
        row->each = malloc((room ? room : 1) * sizeof *row->each);
        if (!row->each) return false;
        for (uint32_t i = 0; i < room; i++) row->each[i] = 0.0; /* until tf_limits_each says otherwise: nothing */
    }
    if (is_rate(spec)) {
        /* Not smaller than before: a limit that falls and rises again within its window has forgotten nothing. */
        uint32_t size = (uint32_t)spec->limit;
        if (before && before->ring.size > size) size = before->ring.size;
        if (!tf_ring_make(&row->ring, size, before ? &before->ring : NULL)) return false;
    }
    if (before) {
        uint32_t old = before->spec.scope == TF_SCOPE_EACH ? limits->room : 1;
        if (same_shares(&limits->config, config)) memcpy(row->levels, before->levels, old < width ? old : width);
        row->soft_passed = before->soft_passed;
    }
    return true;
}

/* The scope of a row's sums: found, or made. */
static uint32_t scope_for(tf_scope *scopes, uint32_t *count, const tf_limit *spec) {
    uint8_t kind = spec->scope == TF_SCOPE_EACH ? TF_SCOPE_PORTFOLIO : spec->scope;
    uint32_t key = kind == TF_SCOPE_PORTFOLIO ? 0 : spec->key;
    for (uint32_t s = 0; s < *count; s++)
        if (scopes[s].kind == kind && scopes[s].key == key) return s;
    scopes[*count] = (tf_scope){.kind = kind, .key = key};
    return (*count)++;
}

int tf_limits_set(tf_limits *limits, tf_risk *risk, const tf_limits_config *config, const tf_limit *specs,
                  uint32_t count) {
    uint32_t room = tf_state_instruments(risk), scope_count = 0;
    if (room > limits->room && tf_limits_grow(limits, risk) < 0) return -1;
    room = limits->room;
    tf_row *rows = calloc(count ? count : 1, sizeof *rows);
    tf_scope *scopes = calloc(count ? count : 1, sizeof *scopes);
    tf_mids *mids = config->collar_window ? calloc(room ? room : 1, sizeof *mids) : NULL;
    tf_duplicates duplicates = {0};
    bool made = rows && scopes && (mids || !config->collar_window);
    for (uint32_t r = 0; made && r < count; r++) made = make_row(limits, &rows[r], config, &specs[r], room);
    for (uint32_t r = 0; made && r < count; r++)
        if (is_exposure(&specs[r]) || is_working(&specs[r])) rows[r].scope = scope_for(scopes, &scope_count, &specs[r]);
    for (uint32_t s = 0; made && s < scope_count; s++) {
        if (scopes[s].kind != TF_SCOPE_STRATEGY) continue;
        scopes[s].cells = calloc(room ? room : 1, sizeof *scopes[s].cells);
        made = scopes[s].cells != NULL;
    }
    if (made && config->duplicate_window && !limits->duplicates.sent) made = tf_duplicates_make(&duplicates);
    if (!made) {
        free_rows(rows, rows ? count : 0);
        free_scopes(scopes, scopes ? scope_count : 0);
        free(mids);
        return -1;
    }
    /* From here nothing can fail. */
    if (duplicates.sent) limits->duplicates = duplicates;
    if (mids && limits->mids && limits->config.collar_window == config->collar_window)
        memcpy(mids, limits->mids, room * sizeof *mids);
    free(limits->mids);
    limits->mids = mids;
    free_rows(limits->rows, limits->count);
    free_scopes(limits->scopes, limits->scope_count);
    limits->rows = rows;
    limits->count = count;
    limits->scopes = scopes;
    limits->scope_count = scope_count;
    limits->config = *config;
    limits->next_day = 0; /* limits on the account may be others now */
    limits->all = TF_RISK_NONE;
    limits->exposure = limits->working = limits->cells = limits->rates = limits->watches_account = false;
    limits->resting = config->deny_self_trade;
    for (uint32_t s = 0; s < scope_count; s++) {
        if (scopes[s].kind == TF_SCOPE_PORTFOLIO) limits->all = s;
        if (scopes[s].kind == TF_SCOPE_STRATEGY) limits->cells = true;
    }
    for (uint32_t r = 0; r < count; r++) {
        limits->exposure |= is_exposure(&specs[r]);
        limits->working |= is_working(&specs[r]);
        limits->rates |= is_rate(&specs[r]);
        limits->watches_account |= specs[r].rule == TF_MAX_DAILY_LOSS || specs[r].rule == TF_MAX_DRAWDOWN;
    }
    tf_sums_bind(limits, risk);
    return 0;
}

/* ---- instruments ---- */

static bool wider(void **array, size_t size, uint32_t before, uint32_t room) {
    void *larger = realloc(*array, (room ? room : 1) * size);
    if (!larger) return false;
    memset((char *)larger + before * size, 0, (room - before) * size);
    *array = larger;
    return true;
}

int tf_limits_grow(tf_limits *limits, tf_risk *risk) {
    uint32_t before = limits->room, room = tf_state_instruments(risk);
    if (room <= before) return 0;
    bool made = wider((void **)&limits->parts, sizeof *limits->parts, before, room) &&
                wider((void **)&limits->tradable, sizeof *limits->tradable, before, room) &&
                (!limits->mids || wider((void **)&limits->mids, sizeof *limits->mids, before, room));
    for (uint32_t r = 0; made && r < limits->count; r++)
        if (limits->rows[r].each)
            made = wider((void **)&limits->rows[r].each, sizeof(double), before, room) &&
                   wider((void **)&limits->rows[r].levels, 1, before, room);
    for (uint32_t s = 0; made && s < limits->scope_count; s++)
        if (limits->scopes[s].cells) made = wider((void **)&limits->scopes[s].cells, sizeof(tf_part), before, room);
    if (!made) return -1;
    for (uint32_t i = before; i < room; i++)
        limits->tradable[i] = (tf_tradable){.allowed = true, .calendar = TF_RISK_NONE, .own_bid = NAN, .own_ask = NAN};
    limits->room = room;
    tf_sums_bind(limits, risk);
    return 0;
}

uint32_t tf_limits_room(const tf_limits *limits) { return limits->room; }

void tf_limits_instrument(tf_limits *limits, uint32_t instrument, bool allowed, uint8_t short_rule, uint32_t calendar) {
    if (instrument >= limits->room) return;
    limits->tradable[instrument].allowed = allowed;
    limits->tradable[instrument].short_rule = short_rule;
    limits->tradable[instrument].calendar = calendar;
}

void tf_limits_each(tf_limits *limits, uint32_t row, uint32_t instrument, double limit) {
    if (row < limits->count && limits->rows[row].each && instrument < limits->room)
        limits->rows[row].each[instrument] = limit;
}

void tf_limits_status(tf_limits *limits, uint32_t instrument, bool tradable) {
    if (instrument < limits->room) limits->tradable[instrument].halted = !tradable;
}

int tf_limits_calendar(tf_limits *limits, uint32_t calendar, const uint64_t *bounds, uint32_t count, uint64_t from,
                       uint64_t to) {
    uint64_t *copy = malloc((count ? count : 1) * sizeof *copy);
    if (!copy) return -1;
    if (calendar >= limits->calendar_count) {
        if (!wider((void **)&limits->calendars, sizeof *limits->calendars, limits->calendar_count, calendar + 1)) {
            free(copy);
            return -1;
        }
        limits->calendar_count = calendar + 1;
    }
    if (count) memcpy(copy, bounds, count * sizeof *copy);
    tf_calendar *into = &limits->calendars[calendar];
    free(into->bounds);
    *into = (tf_calendar){.bounds = copy, .count = count, .from = from, .to = to};
    return 0;
}

bool tf_limits_calendar_knows(const tf_limits *limits, uint32_t instrument, uint64_t ts) {
    if (instrument >= limits->room || limits->tradable[instrument].calendar == TF_RISK_NONE) return true;
    const tf_calendar *calendar = &limits->calendars[limits->tradable[instrument].calendar];
    if (ts < limits->now) ts = limits->now;
    return ts >= calendar->from && ts < calendar->to;
}

/* ---- what is counted ---- */

static bool touches_row(const tf_limit *spec, const tf_instrument *of, uint32_t strategy, uint32_t instrument) {
    switch (spec->scope) {
    case TF_SCOPE_VENUE: return of && of->facts.venue == spec->key;
    case TF_SCOPE_BUCKET: return of && of->facts.bucket == spec->key;
    case TF_SCOPE_INSTRUMENT: return instrument == spec->key;
    case TF_SCOPE_STRATEGY: return strategy == spec->key;
    default: return true;
    }
}

void tf_limits_on_cancel(tf_limits *limits, tf_risk *risk, uint32_t strategy, uint32_t instrument, uint64_t ts) {
    const tf_instrument *of = instrument < tf_state_instruments(risk) ? tf_state_instrument(risk, instrument) : NULL;
    if (ts > limits->now) limits->now = ts;
    else if (ts < limits->now) limits->counts.backwards++;
    for (uint32_t r = 0; r < limits->count; r++)
        if (limits->rows[r].spec.rule == TF_MAX_MESSAGE_RATE &&
            touches_row(&limits->rows[r].spec, of, strategy, instrument))
            tf_ring_put(&limits->rows[r].ring, limits->now);
}

void tf_limits_undo(tf_limits *limits, tf_risk *risk, uint32_t count) {
    if (count > TF_COUNTED) count = TF_COUNTED; /* what is not taken back counts against later orders */
    for (; count && limits->counted_last; count--) {
        const tf_counted *last = &limits->counted[--limits->counted_last % TF_COUNTED];
        const tf_instrument *of = tf_state_instrument(risk, last->instrument);
        for (uint32_t r = 0; r < limits->count; r++) {
            tf_row *row = &limits->rows[r];
            if (is_rate(&row->spec) && (last->order || row->spec.rule == TF_MAX_MESSAGE_RATE) &&
                touches_row(&row->spec, of, last->strategy, last->instrument))
                tf_ring_drop_last(&row->ring);
        }
        if (limits->config.duplicate_window && last->order) tf_duplicates_drop_last(&limits->duplicates);
    }
}

void tf_limits_unwarn(tf_limits *limits, uint32_t row, uint32_t instrument) {
    if (row >= limits->count) return;
    bool each = limits->rows[row].spec.scope == TF_SCOPE_EACH;
    if (each && instrument >= limits->room) return;
    limits->rows[row].soft_passed = false;
    limits->rows[row].levels[each ? instrument : 0] = 0;
}

void tf_limits_on_mid(tf_limits *limits, uint32_t instrument, double mid, uint64_t ts) {
    if (limits->mids && instrument < limits->room)
        tf_mids_put(&limits->mids[instrument], mid, ts, limits->config.collar_window);
}

void tf_limits_kills(tf_limits *limits, const uint8_t *scopes, const uint32_t *keys, uint32_t count) {
    limits->kill_all = count > 0; /* while the list is being written */
    limits->kill_count = 0;
    bool all = count > TF_KILLS_MAX;
    for (uint32_t k = 0; k < count && k < TF_KILLS_MAX; k++) {
        all |= scopes[k] == TF_SCOPE_PORTFOLIO;
        limits->kill_scopes[k] = scopes[k];
        limits->kill_keys[k] = keys[k];
    }
    limits->kill_count = count < TF_KILLS_MAX ? count : TF_KILLS_MAX;
    limits->kill_all = all;
}

void tf_limits_reset(tf_limits *limits) {
    for (uint32_t r = 0; r < limits->count; r++) {
        tf_row *row = &limits->rows[r];
        row->ring.count = 0;
        row->soft_passed = false;
        memset(row->levels, 0, row->spec.scope == TF_SCOPE_EACH ? limits->room : 1);
    }
    if (limits->duplicates.heads) {
        memset(limits->duplicates.heads, 0, TF_DUPLICATES_MAX * sizeof *limits->duplicates.heads);
        limits->duplicates.last = 0;
        limits->duplicates.first = 1;
    }
    tf_runs_free(&limits->runs);
    if (limits->mids) memset(limits->mids, 0, limits->room * sizeof *limits->mids);
    for (uint32_t i = 0; i < limits->room; i++) limits->tradable[i].halted = false;
    limits->account = NO_ACCOUNT;
    limits->next_day = 0;
    limits->now = 0;
    limits->counted_last = 0;
    limits->counts = (tf_limits_counts){0};
    limits->invalid = true;
}

tf_limits_counts tf_limits_counters(const tf_limits *limits) { return limits->counts; }
uint64_t tf_limits_now(const tf_limits *limits) { return limits->now; }

/* ---- what limits are used by ---- */

static double account_value(const tf_limits *limits, unsigned rule) {
    return rule == TF_MAX_DAILY_LOSS ? tf_account_daily_loss(&limits->account) : tf_account_drawdown(&limits->account);
}

static double position_of(tf_risk *risk, const tf_limit *spec, uint32_t i) {
    double low, high;
    if (spec->scope == TF_SCOPE_STRATEGY) {
        tf_sums_cell_reach(risk, i, spec->key, NULL, 0.0, &low, &high);
    } else {
        tf_state_reached(risk, i);
        low = tf_state_instrument(risk, i)->low;
        high = tf_state_instrument(risk, i)->high;
    }
    return fmax(-low, high);
}

/* The largest position or exposure of one instrument within a scope; a row of TF_SCOPE_EACH tells every one. */
static uint32_t usage_of_instruments(tf_limits *limits, tf_risk *risk, uint32_t r, tf_usage *usage, uint32_t room) {
    const tf_row *row = &limits->rows[r];
    const tf_limit *spec = &row->spec;
    bool position = spec->rule == TF_MAX_POSITION;
    double equity = tf_risk_equity(risk);
    tf_usage most = {r, TF_RISK_NONE, 0.0, spec->limit};
    uint32_t written = 0;
    for (uint32_t i = 0; i < limits->room; i++) {
        const tf_instrument *of = tf_state_instrument(risk, i);
        if (!of->exposed || (spec->scope != TF_SCOPE_STRATEGY && !touches_row(spec, of, TF_RISK_NONE, i))) continue;
        const tf_scope *scope = row->scope == TF_RISK_NONE ? NULL : &limits->scopes[row->scope];
        const tf_part *part = scope && scope->cells ? &scope->cells[i] : &limits->parts[i];
        double value = position ? position_of(risk, spec, i) : part->unvalued ? NAN : part->gross / equity;
        if (row->each) {
            if (written == room) return written;
            usage[written++] = (tf_usage){r, i, value, row->each[i]};
        } else if (!(value <= most.value)) { /* also NaN: not known */
            most.value = value;
            most.instrument = i;
            if (isnan(value)) break;
        }
    }
    if (row->each || room == 0) return written;
    usage[0] = most;
    return 1;
}

static double usage_value(tf_limits *limits, tf_risk *risk, const tf_row *row) {
    const tf_limit *spec = &row->spec;
    const tf_totals *sums = row->scope == TF_RISK_NONE ? NULL : &limits->scopes[row->scope].sums;
    double equity = tf_risk_equity(risk);
    uint32_t which;
    switch (spec->rule) {
    case TF_MAX_ORDER_RATE:
    case TF_MAX_MESSAGE_RATE: return tf_ring_within(&row->ring, limits->now, spec->window);
    case TF_MAX_WORKING_ORDERS: return sums->working;
    case TF_MAX_WORKING_NOTIONAL: return sums->unvalued_orders ? NAN : sums->notional;
    case TF_MAX_GROSS_EXPOSURE: return sums->unvalued ? NAN : sums->gross;
    case TF_MAX_NET_EXPOSURE: return sums->unvalued ? NAN : fmax(fmax(sums->high, -sums->low), 0.0);
    case TF_MAX_LEVERAGE: return sums->unvalued || !(equity > 0.0) ? NAN : sums->gross / equity;
    case TF_MAX_MARGIN_USE: return sums->unvalued || !(equity > 0.0) ? NAN : sums->margin / equity;
    case TF_MAX_DAILY_LOSS:
    case TF_MAX_DRAWDOWN: return account_value(limits, spec->rule);
    case TF_MAX_PORTFOLIO_VAR:
    case TF_MAX_PORTFOLIO_ES: {
        tf_risk_tail cases[TF_WHATS];
        if (tf_risk_scenarios(risk) == 0 || !(equity > 0.0) || tf_vector_blocked(risk, TF_RISK_NONE, &which))
            return NAN;
        unsigned count = tf_vector_what_if(risk, NULL, 0.0, cases);
        double most = -HUGE_VAL;
        for (unsigned k = 0; k < count; k++)
            most = fmax(most, spec->rule == TF_MAX_PORTFOLIO_VAR ? cases[k].var : cases[k].es);
        return most / equity;
    }
    case TF_MAX_STRESS_LOSS:
        if (tf_risk_stress_scenarios(risk) == 0 || !(equity > 0.0) ||
            tf_vector_stress_blocked(risk, TF_RISK_NONE, &which))
            return NAN;
        return tf_vector_stress(risk, NULL, 0.0, &which) / equity;
    default: return NAN;
    }
}

uint32_t tf_limits_usage(tf_limits *limits, tf_risk *risk, tf_usage *usage, uint32_t room) {
    uint32_t written = 0;
    tf_sums_drain(limits, risk);
    for (uint32_t r = 0; r < limits->count && written < room; r++) {
        const tf_row *row = &limits->rows[r];
        unsigned rule = row->spec.rule;
        if (rule == TF_MAX_ORDER_QUANTITY || rule == TF_MAX_ORDER_NOTIONAL)
            continue; /* of one order: nothing is used */
        if (rule == TF_MAX_POSITION || rule == TF_MAX_CONCENTRATION) {
            written += usage_of_instruments(limits, risk, r, usage + written, room - written);
            continue;
        }
        double limit = row->spec.limit * (row->spec.of_equity ? tf_risk_equity(risk) : 1.0);
        usage[written++] = (tf_usage){r, TF_RISK_NONE, usage_value(limits, risk, row), limit};
    }
    return written;
}
