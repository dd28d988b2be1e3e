/* Equity over the trading day and since arming.
 *
 * A day begins with the last equity known before its boundary, so a loss made over the boundary belongs to the new day.
 * A loss limit stays passed until a person says that trading goes on; the reference is then the equity of that time. */
#include <math.h>

#include "limits.h"

#define DAY_NS 86400000000000ull

double tf_account_daily_loss(const tf_account *account) {
    if (!(account->day_start > 0.0)) return NAN;
    return (account->day_start - account->equity) / account->day_start;
}

double tf_account_drawdown(const tf_account *account) {
    if (!(account->peak > 0.0)) return NAN;
    return (account->peak - account->equity) / account->peak;
}

unsigned tf_account_note(tf_limits *limits, double equity, uint64_t ts) {
    tf_account *account = &limits->account;
    if (ts < account->ts) ts = account->ts;
    account->ts = ts;
    if (equity == account->equity && ts < limits->next_day) return limits->breach;
    uint64_t since = ts >= limits->config.day_offset ? ts - limits->config.day_offset : 0;
    int64_t day = (int64_t)(since / DAY_NS);
    if (!isfinite(equity)) {
        account->equity = NAN;
        return 0; /* the day begins when equity is known again */
    }
    if (day > account->day || !(account->day_start > 0.0)) {
        account->day_start = account->day >= 0 && account->equity > 0.0 ? account->equity : equity;
        account->day = day;
    }
    limits->next_day = (uint64_t)(day + 1) * DAY_NS + limits->config.day_offset;
    account->equity = equity;
    if (!(account->peak >= equity)) account->peak = equity; /* also when it was NaN */
    unsigned breach = 0;
    for (uint32_t i = 0; i < limits->count; i++) {
        const tf_limit *spec = &limits->rows[i].spec;
        if (spec->rule == TF_MAX_DAILY_LOSS && tf_over(tf_account_daily_loss(account), spec->limit))
            breach |= TF_BREACH_DAILY_LOSS;
        if (spec->rule == TF_MAX_DRAWDOWN && tf_over(tf_account_drawdown(account), spec->limit))
            breach |= TF_BREACH_DRAWDOWN;
    }
    limits->breach = breach;
    return breach;
}

unsigned tf_limits_on_equity(tf_limits *limits, double equity, uint64_t ts) {
    if (ts > limits->now) limits->now = ts;
    else if (ts < limits->now) limits->counts.backwards++;
    return tf_account_note(limits, equity, limits->now);
}

void tf_limits_restart(tf_limits *limits, unsigned breach) {
    if (breach & TF_BREACH_DAILY_LOSS) limits->account.day_start = limits->account.equity;
    if (breach & TF_BREACH_DRAWDOWN) limits->account.peak = limits->account.equity;
    limits->next_day = 0;
}

const tf_account *tf_limits_account(const tf_limits *limits) { return &limits->account; }

void tf_limits_set_account(tf_limits *limits, const tf_account *account) {
    limits->account = *account;
    limits->next_day = 0;
    if (account->ts > limits->now) limits->now = account->ts;
}
