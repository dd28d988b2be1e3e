/* A team: helper threads that take their share of the large products of one step (team.h).
 *
 * All threads count stages on one clock that never turns back. Each publishes how far it is on a cache line pair of
 * its own (release), and whoever depends on it spins on that line (acquire); there is no lock in a step. A job
 * begins when the caller stores its first tick in `go`, after the words that say what it is. One line crosses between
 * cores for `go` and one for each meeting.
 *
 * Helpers spin for spin_ns after the last work and then sleep on a condition variable. A step that finds one of them
 * asleep is done by the caller alone (the same bits), and the prepare that follows wakes it, so that the price of
 * waking is never between a tick and its answer; only a step with more than WAKE_BYTES of shared weights waits for the
 * sleepers. Thus the first finish after a pause has the latency of one thread.
 *
 * Nobody is left asleep with work to do: the helper adds itself to `asleep` and then looks at `go` once more; the
 * caller stores `go` and then adds 0 to `asleep`. Of two such additions one comes later, and its thread sees what the
 * other did before. (The caller's comes after its first share, so that a locked instruction delays nobody.)
 *
 * Threads without a core of their own (too many workers, a quota, a busy neighbour) cost the caller a time slice of the
 * scheduler at each meeting, which is a thousand times what they save. After about 1,000 turns of a wait a thread
 * yields; and a job in which the caller waited longer than uneven shares explain sends all helpers to sleep and is
 * followed by steps that the caller makes alone: 16 of them, then twice as many each time it happens again.
 *
 * A forked child has the team's memory but not its threads: it makes all steps alone. */
#define _GNU_SOURCE
#include "team.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    MOST_WORKERS = 63,
    APART = 128, /* bytes: neighbouring lines are fetched in pairs */
    EAGER = 64,  /* turns of a wait without a pause */
    SPINS = 1024, /* turns until the thread yields */
    WAKE_BYTES = 8 << 20,
    STALL_NS = 1000000,      /* a job that waits so long, and longer by 1 ns for each so many bytes, ... */
    STALL_BYTES_PER_NS = 10, /* ... has met threads that do not run */
    LEAST_ALONE = 16,        /* steps after the first stall, and the most after many */
    MOST_ALONE = 1 << 20,
    CALM = 1024              /* jobs without a stall after which it counts as the first again */
};
#define QUIT UINT64_MAX

typedef struct lane {
    _Alignas(APART) _Atomic uint64_t done; /* ticks of the clock that this thread has behind it */
    int32_t nan;                           /* its shares have read a NaN; for the caller, after the job */
} lane;

typedef struct member {
    tf_team *team;
    int32_t part;
    pthread_t thread;
} member;

struct tf_team {
    _Alignas(APART) _Atomic uint64_t go; /* first tick of the newest job */
    const tf_model *model;               /* the job; these lie on the line of `go` */
    tf_session *session;
    const tf_schedule *schedule;
    const tf_code *code;
    lane lanes[MOST_WORKERS + 1]; /* 0: the caller */
    _Alignas(APART) _Atomic int32_t asleep;
    _Atomic int32_t crowded; /* helpers are to sleep until this is 0 */
    pthread_mutex_t lock; /* only around sleeping and waking */
    pthread_cond_t wake;
    uint64_t wakes; /* under the lock */
    _Alignas(APART) uint64_t clock; /* from here on the caller's own */
    int32_t workers;
    int32_t left, alone, calm; /* steps still to be made alone, after the next stall, jobs since the last */
    uint64_t waited_ns;        /* of the present job, beyond the first turns of each wait */
    uint64_t generation;       /* of the process that has the threads */
    uint64_t spin_ns;
    const tf_model *scheduled; /* what the schedules were made for */
    const char *scheduled_weights;
    uint64_t scheduled_hash;
    tf_schedule finish, derive;
    member members[MOST_WORKERS];
};

static inline void rest(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

/* Adds to *waited_ns (unless NULL) what the wait took from the first yield on. */
static void wait_for(_Atomic uint64_t *done, uint64_t tick, uint64_t *waited_ns) {
    uint64_t since = 0;
    for (int32_t turns = 0; atomic_load_explicit(done, memory_order_acquire) < tick;) {
        if (++turns < EAGER) continue; /* a pause can take longer than the line needs from core to core */
        rest();
        if (turns == SPINS) {
            turns = EAGER;
            if (since == 0 && waited_ns != NULL) since = now_ns();
            sched_yield();
        }
    }
    if (since != 0) *waited_ns += now_ns() - since;
}

static void wait_for_all(tf_team *team, int32_t me, uint64_t tick) {
    for (int32_t i = 0; i <= team->workers; i++)
        if (i != me) wait_for(&team->lanes[i].done, tick, me == 0 ? &team->waited_ns : NULL);
}

/* -- processes --------------------------------------------------------------------------------------------------- */

static uint64_t generation; /* of processes: 0, in a forked child 1, in its child 2 ... */
static pthread_once_t watching = PTHREAD_ONCE_INIT;
static void next_generation(void) { generation++; }
static void watch_forks(void) { (void)pthread_atfork(NULL, NULL, next_generation); }

/* -- helpers ----------------------------------------------------------------------------------------------------- */

static void help(tf_team *team, int32_t me, uint64_t start) {
    const tf_schedule *s = team->schedule;
    const tf_model *model = team->model;
    tf_session *session = team->session;
    const tf_code *code = team->code;
    const int32_t last = s->last; /* after its last share the schedule may change under this thread */
    for (int32_t i = s->first; i <= last; i++) {
        const tf_stage *stage = &s->stage[i];
        if (!stage->shared) continue;
        if (stage->caller > s->first) wait_for(&team->lanes[0].done, start + (uint64_t)stage->caller, NULL);
        if (stage->meet) wait_for_all(team, me, start + (uint64_t)stage->others);
        tf_share_run(model, session, code + stage->first, me, team->workers + 1, &team->lanes[me].nan);
        atomic_store_explicit(&team->lanes[me].done, start + (uint64_t)i + 1, memory_order_release);
    }
}

static uint64_t sleep_until_work(tf_team *team, uint64_t seen) {
    uint64_t go;
    pthread_mutex_lock(&team->lock);
    const uint64_t wakes = team->wakes;
    atomic_fetch_add(&team->asleep, 1);
    while ((go = atomic_load(&team->go)) == seen && team->wakes == wakes) pthread_cond_wait(&team->wake, &team->lock);
    atomic_fetch_sub(&team->asleep, 1);
    pthread_mutex_unlock(&team->lock);
    return go;
}

/* The next job's first tick. */
static uint64_t await(tf_team *team, uint64_t seen) {
    uint64_t since = 0;
    for (int32_t turns = 0;;) {
        const uint64_t go = atomic_load_explicit(&team->go, memory_order_acquire);
        if (go != seen) return go;
        rest();
        if (++turns < 256) continue;
        turns = 0;
        const uint64_t now = now_ns();
        if (since == 0) since = now;
        if (now - since < team->spin_ns && atomic_load_explicit(&team->crowded, memory_order_relaxed) == 0) continue;
        const uint64_t woken = sleep_until_work(team, seen);
        if (woken != seen) return woken;
        since = 0; /* woken ahead of the work: spin again */
    }
}

static void *helper(void *argument) {
    member *m = argument;
    for (uint64_t seen = 0;;) {
        const uint64_t go = await(m->team, seen);
        if (go == QUIT) return NULL;
        help(m->team, m->part, go);
        seen = go;
    }
}

static void wake_all(tf_team *team) {
    pthread_mutex_lock(&team->lock);
    team->wakes++;
    pthread_cond_broadcast(&team->wake);
    pthread_mutex_unlock(&team->lock);
}

/* -- the caller -------------------------------------------------------------------------------------------------- */

static void learn(tf_team *team, const tf_model *model) {
    if (team->scheduled == model && team->scheduled_hash == model->hash && team->scheduled_weights == model->weights)
        return;
    tf_schedule_make(model, TF_FINISH, &team->finish);
    tf_schedule_make(model, TF_DERIVE, &team->derive);
    team->scheduled = model;
    team->scheduled_hash = model->hash;
    team->scheduled_weights = model->weights;
}

/* Whether the team takes part in a program; 0: it has nothing to share, or sleeps and is not worth waiting for. */
static int together(tf_team *team, const tf_schedule *s) {
    return s->first >= 0 && team->left == 0 && team->generation == generation &&
           (s->bytes >= WAKE_BYTES || atomic_load(&team->asleep) == 0);
}

/* After a job: whether the caller had to wait for threads that did not run, and what follows from it. */
static void judge(tf_team *team, const tf_schedule *s) {
    if (team->waited_ns < STALL_NS + s->bytes / STALL_BYTES_PER_NS) {
        if (team->calm < CALM && ++team->calm == CALM) team->alone = LEAST_ALONE;
        return;
    }
    team->left = team->alone;
    if (team->alone < MOST_ALONE) team->alone *= 2;
    team->calm = 0;
    atomic_store_explicit(&team->crowded, 1, memory_order_relaxed);
}

/* One step fewer to be made alone; after the last one the helpers may be woken again. */
static void count_down(tf_team *team) {
    if (team->left > 0 && --team->left == 0) atomic_store_explicit(&team->crowded, 0, memory_order_relaxed);
}

static void run(tf_team *team, const tf_model *model, tf_session *session, const tf_schedule *s, tf_program program,
                uint64_t t) {
    const tf_code *code = model->code[program];
    lane *mine = &team->lanes[0];
    const uint64_t start = team->clock;
    team->waited_ns = 0;
    for (int32_t i = 0; i < s->count; i++) {
        const tf_stage *stage = &s->stage[i];
        if (i == s->first) {
            team->model = model;
            team->session = session;
            team->schedule = s;
            team->code = code;
            atomic_store_explicit(&team->go, start, memory_order_release);
        }
        if (stage->meet) wait_for_all(team, 0, start + (uint64_t)stage->others);
        if (stage->shared)
            tf_share_run(model, session, code + stage->first, 0, team->workers + 1, &mine->nan);
        else
            tf_run(model, session, code + stage->first, stage->count, t, 0);
        if (i < s->first) continue;
        atomic_store_explicit(&mine->done, start + (uint64_t)i + 1, memory_order_release);
        /* Whoever counts itself asleep after this sees `go`; whoever did so before is seen here (see above). */
        if (i == s->first && atomic_fetch_add(&team->asleep, 0) > 0) wake_all(team);
    }
    wait_for_all(team, 0, start + (uint64_t)s->last + 1);
    for (int32_t i = 0; i <= team->workers; i++) {
        session->nan |= team->lanes[i].nan;
        team->lanes[i].nan = 0;
    }
    team->clock = start + (uint64_t)s->count + 1;
    judge(team, s);
}

void tf_team_prepare(tf_team *team, const tf_model *model, tf_session *session) {
    if (tf_step_begin(session)) return;
    learn(team, model);
    if (together(team, &team->derive)) {
        const uint64_t t = session->steps - 1;
        tf_run(model, session, model->code[TF_PUSH], model->code_count[TF_PUSH], t, 0);
        run(team, model, session, &team->derive, TF_DERIVE, t);
        tf_prepare_end(session);
    } else {
        tf_session_prepare(model, session);
    }
    if ((team->finish.first >= 0 || team->derive.first >= 0) && team->left == 0 && team->generation == generation &&
        atomic_load(&team->asleep) > 0)
        wake_all(team);
}

void tf_team_finish(tf_team *team, const tf_model *model, tf_session *session) {
    learn(team, model);
    count_down(team);
    if (!together(team, &team->finish)) {
        tf_session_finish(model, session);
        return;
    }
    if (!tf_step_begin(session)) tf_team_prepare(team, model, session);
    run(team, model, session, &team->finish, TF_FINISH, session->steps);
    tf_step_end(model, session);
}

/* -- life -------------------------------------------------------------------------------------------------------- */

static int start_thread(member *m, const int32_t *cpus) {
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return 0;
    int ok = 1;
    if (cpus != NULL) {
#ifdef __linux__
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((size_t)cpus[m->part - 1], &set);
        ok = pthread_attr_setaffinity_np(&attributes, sizeof set, &set) == 0;
#else
        ok = 0; /* this system cannot pin a thread */
#endif
    }
    /* Signals sent to the process are for the host's threads; those that a thread causes itself stay open. */
    static const int OWN[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    sigset_t held, before;
    sigfillset(&held);
    for (size_t i = 0; i < sizeof OWN / sizeof OWN[0]; i++) sigdelset(&held, OWN[i]);
    ok = ok && pthread_sigmask(SIG_SETMASK, &held, &before) == 0;
    if (ok) {
        ok = pthread_create(&m->thread, &attributes, helper, m) == 0;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    pthread_attr_destroy(&attributes);
    return ok;
}

static void stop(tf_team *team, int32_t started) {
    atomic_store(&team->go, QUIT);
    wake_all(team);
    for (int32_t i = 0; i < started; i++) pthread_join(team->members[i].thread, NULL);
    pthread_cond_destroy(&team->wake);
    pthread_mutex_destroy(&team->lock);
    free(team);
}

tf_status tf_team_create(int32_t workers, const int32_t *cpus, uint64_t spin_ns, tf_team **out) {
    if (out == NULL) return TF_ERR_ARGUMENT;
    *out = NULL;
    if (workers < 1 || workers > MOST_WORKERS) return TF_ERR_ARGUMENT;
    for (int32_t i = 0; cpus != NULL && i < workers; i++) {
#ifdef __linux__
        if (cpus[i] < 0 || cpus[i] >= CPU_SETSIZE) return TF_ERR_ARGUMENT;
#else
        return TF_ERR_ARGUMENT;
#endif
    }
    tf_team *team = aligned_alloc(APART, (sizeof *team + APART - 1) / APART * APART);
    if (team == NULL) return TF_ERR_MEMORY;
    memset(team, 0, sizeof *team);
    atomic_init(&team->go, 0);
    atomic_init(&team->asleep, 0);
    atomic_init(&team->crowded, 0);
    for (int32_t i = 0; i <= MOST_WORKERS; i++) atomic_init(&team->lanes[i].done, 0);
    team->clock = 1;
    team->workers = workers;
    team->alone = LEAST_ALONE;
    (void)pthread_once(&watching, watch_forks);
    team->generation = generation;
    team->spin_ns = spin_ns;
    if (pthread_mutex_init(&team->lock, NULL) != 0) {
        free(team);
        return TF_ERR_MEMORY;
    }
    if (pthread_cond_init(&team->wake, NULL) != 0) {
        pthread_mutex_destroy(&team->lock);
        free(team);
        return TF_ERR_MEMORY;
    }
    for (int32_t i = 0; i < workers; i++) {
        team->members[i] = (member){.team = team, .part = i + 1};
        if (start_thread(&team->members[i], cpus)) continue;
        stop(team, i);
        return cpus != NULL ? TF_ERR_ARGUMENT : TF_ERR_MEMORY;
    }
    *out = team;
    return TF_OK;
}

void tf_team_free(tf_team *team) {
    if (team == NULL) return;
    if (team->generation == generation)
        stop(team, team->workers);
    else /* nobody to wait for, and the lock may be that of a thread which is not here */
        free(team);
}
