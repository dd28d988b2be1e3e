/* Ticks to signals without Python: a compiled model and the C feature engine in one process.
 *
 *     tick_signal MODEL.tgp FEATURES.csv TICKS.csv [ANSWERS.f32]
 *
 * Replays the ticks, and at every quote for which all features are ready steps the model on the new feature row.
 * Prints how long a tick takes until its answer is there; with a fourth argument, writes the answers as raw float32.
 * The instruction set is the best of this machine, or the one named by TENGRI_ISA. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tengri.h>

enum { MAX_COLUMNS = 256, MAX_FIELDS = 16, MAX_LINE = 1024 };

typedef struct tick {
    int is_quote;
    tf_quote quote;
    tf_trade trade;
} tick;

static void fail(const char *where, const char *what) {
    fprintf(stderr, "tick_signal: %s: %s\n", where, what);
    exit(1);
}

static void *take(size_t bytes) { /* 64-byte aligned, as sessions and feature plans want it */
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes > 0 ? bytes : 1) != 0) fail("memory", "allocation failed");
    return memory;
}

/* Cuts a line at its commas; the fields point into it. */
static int split(char *line, char *field[MAX_FIELDS]) {
    int count = 0;
    line[strcspn(line, "\r\n")] = '\0';
    for (char *next = line; next != NULL && count < MAX_FIELDS; count++) {
        field[count] = next;
        next = strchr(next, ',');
        if (next != NULL) *next++ = '\0';
    }
    return count;
}

static double number(const char *path, const char *text) {
    char *end;
    errno = 0;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0' || errno != 0) fail(path, text);
    return value;
}

static FILE *open_csv(const char *path, const char *header) {
    char line[MAX_LINE];
    FILE *file = fopen(path, "r");
    if (file == NULL) fail(path, strerror(errno));
    if (fgets(line, sizeof line, file) == NULL || strncmp(line, header, strlen(header)) != 0)
        fail(path, "the first line must be the header that prepare.py writes");
    return file;
}

/* name,p0,p1,p2,p3,mean,scale,clip: one feature a line, parameters as the feature table stores them. */
static int32_t read_features(const char *path, tf_feature_spec *specs) {
    char line[MAX_LINE], *field[MAX_FIELDS];
    int32_t count = 0;
    FILE *file = open_csv(path, "name,");
    while (fgets(line, sizeof line, file) != NULL) {
        if (split(line, field) != 8) fail(path, "a line must have 8 fields");
        if (count == MAX_COLUMNS) fail(path, "too many features");
        tf_feature_spec *spec = &specs[count++];
        memset(spec, 0, sizeof *spec);
        int32_t kind = 0;
        while (kind < tf_feature_kinds() && strcmp(tf_feature_describe(kind)->name, field[0]) != 0) kind++;
        if (kind == tf_feature_kinds()) fail(path, field[0]);
        spec->kind = (uint32_t)kind;
        for (int i = 0; i < TF_FEATURE_PARAMS; i++) spec->param[i] = number(path, field[1 + i]);
        spec->mean = number(path, field[5]);
        spec->scale = number(path, field[6]);
        spec->clip = number(path, field[7]);
    }
    fclose(file);
    return count;
}

/* quote,ts,bid,ask,bid_size,ask_size or trade,ts,price,size,aggressor; times in nanoseconds. */
static tick *read_ticks(const char *path, size_t *count) {
    char line[MAX_LINE], *field[MAX_FIELDS];
    size_t room = 1 << 16;
    tick *ticks = malloc(room * sizeof *ticks);
    FILE *file = open_csv(path, "kind,ts,");
    *count = 0;
    while (ticks != NULL && fgets(line, sizeof line, file) != NULL) {
        const int fields = split(line, field);
        if (*count == room) {
            tick *more = realloc(ticks, (room *= 2) * sizeof *ticks);
            if (more == NULL) free(ticks);
            ticks = more;
            if (ticks == NULL) break;
        }
        tick *t = &ticks[(*count)++];
        memset(t, 0, sizeof *t);
        const uint64_t ts = fields > 1 ? strtoull(field[1], NULL, 10) : 0;
        if (fields == 6 && strcmp(field[0], "quote") == 0) {
            t->is_quote = 1;
            t->quote.ts_event = t->quote.ts_init = ts;
            t->quote.bid_price = number(path, field[2]);
            t->quote.ask_price = number(path, field[3]);
            t->quote.bid_size = number(path, field[4]);
            t->quote.ask_size = number(path, field[5]);
        } else if (fields == 5 && strcmp(field[0], "trade") == 0) {
            t->trade.ts_event = t->trade.ts_init = ts;
            t->trade.price = number(path, field[2]);
            t->trade.size = number(path, field[3]);
            t->trade.aggressor = (int32_t)number(path, field[4]);
        } else {
            fail(path, "a line must be a quote of 6 fields or a trade of 5");
        }
    }
    fclose(file);
    if (ticks == NULL) fail(path, "allocation failed");
    return ticks;
}

static int by_size(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void print_times(const char *label, uint64_t *ticks, size_t count, double ns_per_tick) {
    if (count == 0) return;
    qsort(ticks, count, sizeof *ticks, by_size);
    const double share[4] = {0.5, 0.99, 0.999, 1.0};
    printf("%-16s", label);
    for (int i = 0; i < 4; i++) {
        size_t at = (size_t)(share[i] * (double)count);
        if (at >= count) at = count - 1;
        printf("  %s %9.0f ns", (const char *const[]){"p50", "p99", "p99.9", "max"}[i],
               (double)ticks[at] * ns_per_tick);
    }
    printf("\n");
}

int main(int arguments, char **argument) {
    if (arguments != 4 && arguments != 5) {
        fprintf(stderr, "usage: tick_signal MODEL.tgp FEATURES.csv TICKS.csv [ANSWERS.f32]\n");
        return 2;
    }
    tf_status status = tf_isa_select(NULL); /* once, before any kernel runs */
    if (status != TF_OK) fail("TENGRI_ISA", tf_status_text(status));

    tf_model *model;
    tf_fault fault;
    status = tf_model_load(argument[1], tf_isa_active(), &model, &fault);
    if (status != TF_OK) fail(argument[1], fault.rule[0] != '\0' ? fault.rule : tf_status_text(status));
    const size_t session_bytes = tf_model_session_bytes(model);
    void *session_memory = take(session_bytes);
    tf_session *session;
    status = tf_session_init(model, session_memory, session_bytes, &session);
    if (status != TF_OK) fail("session", tf_status_text(status));

    static tf_feature_spec specs[MAX_COLUMNS];
    const int32_t columns = read_features(argument[2], specs);
    if (columns != tf_model_input_size(model)) fail(argument[2], "must hold one feature for each input of the model");
    size_t plan_bytes;
    tf_features *features;
    status = tf_features_size(specs, columns, &plan_bytes);
    void *plan_memory = take(status == TF_OK ? plan_bytes : 0);
    if (status == TF_OK) status = tf_features_init(plan_memory, plan_bytes, specs, columns, &features);
    if (status != TF_OK) fail(argument[2], tf_status_text(status));

    size_t count, answers = 0;
    tick *ticks = read_ticks(argument[3], &count);
    const size_t width = (size_t)tf_model_output_size(model);
    uint64_t *to_answer = malloc((count + 1) * sizeof *to_answer),
             *to_prepare = malloc((count + 1) * sizeof *to_prepare);
    float *answer = malloc((count + 1) * width * sizeof *answer);
    if (to_answer == NULL || to_prepare == NULL || answer == NULL) fail("memory", "allocation failed");

    /* From here on nothing allocates, locks or calls the operating system. */
    for (size_t i = 0; i < count; i++) {
        const uint64_t start = tf_timer_ticks();
        if (!ticks[i].is_quote) {
            tf_features_on_trade(features, &ticks[i].trade);
            continue;
        }
        if (!tf_features_on_quote(features, &ticks[i].quote) || !tf_features_ready(features)) continue;
        (void)tf_features_emit(features, tf_session_input(session)); /* straight into the model's input row */
        tf_session_finish(model, session);
        const uint64_t answered = tf_timer_ticks();
        memcpy(answer + answers * width, tf_session_output(session), width * sizeof *answer); /* act on it here */
        const uint64_t acted = tf_timer_ticks();
        tf_session_prepare(model, session); /* what does not need the next tick, while nobody waits */
        to_prepare[answers] = tf_timer_ticks() - acted;
        to_answer[answers++] = answered - start;
    }

    size_t note_bytes;
    const char *note = tf_model_note(model, &note_bytes);
    printf("model %016" PRIx64 ", %zu bytes, session %zu bytes, %s\n", tf_model_hash(model), tf_model_bytes(model),
           session_bytes, tf_isa_name(tf_model_isa(model)));
    printf("note %.*s\n", (int)(note_bytes < 200 ? note_bytes : 200), note);
    printf("%zu ticks, %zu answers\n", count, answers);
    const double ns_per_tick = tf_timer_ns_per_tick();
    print_times("tick to answer", to_answer, answers, ns_per_tick);
    print_times("prepare", to_prepare, answers, ns_per_tick);
    if (answers > 0) {
        printf("last answer");
        for (size_t i = 0; i < width; i++) printf(" %.9g", (double)answer[(answers - 1) * width + i]);
        printf("\n");
    }
    if (arguments == 5) {
        FILE *file = fopen(argument[4], "wb");
        if (file == NULL || fwrite(answer, width * sizeof *answer, answers, file) != answers || fclose(file) != 0)
            fail(argument[4], strerror(errno));
    }
    free(ticks), free(to_answer), free(to_prepare), free(answer), free(plan_memory), free(session_memory);
    tf_model_free(model);
    return 0;
}
