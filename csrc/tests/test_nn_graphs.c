/* Random graphs of every operation in every format, mixed, at odd widths: rows read by several nodes, parts of parts,
 * answers in the middle, strides that meet again. Each must
 *
 *     agree with the oracle (float32 closely; formats as far as their rounding carries through a graph)
 *     have the same bits stepped alone, in a batch, in a window, by a team, through saved states at any point, after a
 *         forgotten prepare, with an input row that the caller overwrites, after reset, and from a compiled file
 *     carry NaN and infinity the same way in all of these
 *
 * Sessions are allocated to the byte and filled with rubbish before, so that sanitizers see every stray access.
 * Arguments: how many graphs, number of the first. */
#include "check.h"
#include "networks.h"
#include "oracle.h"

#ifdef TF_TEST_EMULATED
enum { GRAPHS = 100 }; /* the first of those that run natively */
#else
enum { GRAPHS = 250 };
#endif
enum { STEPS = 24, MOST_WIDTH = 600, WIDTHS = 19, HAZARDS = 3 };

static uint64_t state;
static uint32_t draw(void) { /* splitmix64 */
    uint64_t z = state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return (uint32_t)(z ^ (z >> 31));
}
static int32_t below(int32_t n) { return (int32_t)(draw() % (uint32_t)n); }
static int32_t any_width(void) {
    static const int32_t WIDTH[WIDTHS] = {1, 2, 3, 4, 5, 6, 8, 12, 15, 16, 17, 20, 24, 31, 32, 33, 48, 50, 64};
    return WIDTH[below(WIDTHS)];
}

/* -- graphs
 * ----------------------------------------------------------------------------------------------------------- */

static int32_t any_row(const network *n) { /* the newest most often */
    if (n->net.count == 0 || below(6) == 0) return TF_MODEL_INPUT;
    return below(2) ? n->net.count - 1 : below(n->net.count);
}
static int32_t row_of_width(const network *n, int32_t width) { /* TF_MODEL_INPUT - 1: there is none */
    int32_t found[NETWORK_NODES + 1], count = 0;
    for (int32_t i = TF_MODEL_INPUT; i < n->net.count; i++)
        if (network_width(n, i) == width) found[count++] = i;
    return count > 0 ? found[below(count)] : TF_MODEL_INPUT - 1;
}
static int32_t any_divisor(int32_t of) {
    int32_t d = 1 + below(of);
    while (of % d != 0) d--;
    return d;
}

static void activate(tf_node_desc *d) {
    d->activation = below(3) ? below(2) ? TF_ACT_RELU : TF_ACT_NONE : below(TF_ACT_SILU + 1);
    d->value[7] = 0.1f;
    if (d->activation == TF_ACT_SOFTMAX && below(2)) d->size[7] = any_divisor(d->width);
}

static void add_conv(network *n, int32_t x, int32_t width) {
    int32_t size[7] = {1 + below(4), 1 + below(3), below(4) ? 1 : 1 + below(3), 1, 1, 1, 1}, channels;
    if (below(2)) {
        size[3] = below(3) ? any_divisor(width) : width;
        channels = size[3] * (1 + below(20));
        if (channels > 300) channels = size[3];
    } else {
        size[4] = any_divisor(width);
        size[5] = 1 + below(size[4]);
        size[6] = 1 + below(size[4]);
        channels = 1 + below(20);
        if (((size[4] - size[5]) / size[6] + 1) * channels > MOST_WIDTH) channels = 1;
    }
    tf_node_desc *d = &n->node[network_conv(n, channels, x, size, TF_ACT_NONE)];
    activate(d);
    if (below(4) == 0) d->bias = NULL;
}

static void add_attention(network *n, int32_t k, int32_t width) {
    const int32_t kv_heads = any_divisor(width), dim = width / kv_heads, more = kv_heads * (1 + below(3));
    const int32_t q = row_of_width(n, more * dim), heads = q >= TF_MODEL_INPUT ? more : kv_heads;
    int32_t v = any_row(n), position = below(TF_POSITION_ALIBI + 1);
    if (network_width(n, v) % kv_heads != 0) v = k;
    if (heads * (network_width(n, v) / kv_heads) > MOST_WIDTH) return;
    const int rope = position == TF_POSITION_ROPE || position == TF_POSITION_ROPE_INTERLEAVED;
    if (rope && dim % 2 != 0) position = TF_POSITION_NONE;
    if (n->format != TF_FORMAT_I8) n->format = TF_FORMAT_F32;
    network_attention(n, q >= TF_MODEL_INPUT ? q : k, k, v, heads, kv_heads, 1 + below(below(2) ? 4 : 40), position);
}

static void add_concat(network *n) {
    int32_t part[TF_MAX_INPUTS], width = 0;
    const int32_t count = 1 + below(5);
    for (int32_t i = 0; i < count; i++) width += network_width(n, part[i] = any_row(n));
    if (width > MOST_WIDTH) return;
    tf_node_desc *d = network_node(n, TF_OP_CONCAT, width, part[0]);
    d->inputs = count;
    memcpy(d->input, part, (size_t)count * sizeof *part);
}

static void add_node(network *n) {
    const int32_t x = any_row(n), width = network_width(n, x);
    tf_node_desc *d;
    switch (below(16)) {
    case 0:
    case 1:
        d = &n->node[network_dense(n, any_width(), x, TF_ACT_NONE)];
        activate(d);
        if (below(4) == 0) d->bias = NULL;
        break;
    case 2: {
        const int32_t units = any_width();
        d = &n->node[network_lstm(n, units, below(3) ? units : any_width(), x)];
        if (below(4) == 0) d->bias = NULL;
        break;
    }
    case 3:
        d = &n->node[network_gru(n, any_width(), x, below(2))];
        if (below(4) == 0) d->rbias = NULL;
        break;
    case 4:
    case 5:
    case 6: add_conv(n, x, width); break;
    case 7: add_attention(n, x, width); break;
    case 8:
        if (width < 4) break; /* a norm of few numbers magnifies rounding */
        d = &n->node[network_norm(n, x, below(2) ? TF_NORM_RMS : TF_NORM_LAYER)];
        d->value[3] = 0.1f;
        activate(d);
        break;
    case 9:
        d = network_node(n, TF_OP_AFFINE, width, x);
        d->extra = network_floats(n, (size_t)width, 0.1f, 1.0f);
        if (below(2)) d->bias = network_floats(n, (size_t)width, 0.1f, 0.0f);
        activate(d);
        break;
    case 10: activate(network_node(n, TF_OP_ACTIVATION, width, x)); break;
    case 11: {
        const int32_t other = below(4) ? row_of_width(n, width) : x;
        const int turned = below(2);
        network_two(n, below(3) ? TF_OP_ADD : TF_OP_MUL, turned ? other : x, turned ? x : other, TF_ACT_NONE);
        activate(&n->node[n->net.output]);
        break;
    }
    case 12: add_concat(n); break;
    case 13: {
        const int32_t part = 1 + below(width);
        network_node(n, TF_OP_SLICE, part, x)->size[0] = below(width - part + 1);
        break;
    }
    case 14:
        d = network_node(n, TF_OP_POOL, width, x);
        d->size[0] = 1 + below(6);
        d->size[1] = below(TF_POOL_SUM + 1);
        d->size[2] = below(2);
        break;
    default:
        d = network_node(n, TF_OP_POSITION, width, x);
        d->size[0] = 1 + below(8);
        d->extra = network_floats(n, (size_t)d->size[0] * (size_t)width, 0.1f, 0.0f);
        break;
    }
}

static void build(network *n, uint64_t number) {
    state = number * UINT64_C(7919);
    memset(n, 0, sizeof *n);
    n->net.nodes = n->node;
    n->seed = draw();
    n->net.input = any_width();
    const int32_t mode = below(NETWORK_FORMATS + 1), count = 2 + below(14);
    for (int32_t tries = 0; n->net.count < count && tries < 100; tries++) {
        n->format = mode < NETWORK_FORMATS ? mode : below(NETWORK_FORMATS);
        add_node(n);
    }
    if (n->net.count == 0) network_dense(n, 3, TF_MODEL_INPUT, TF_ACT_NONE);
    n->net.output = below(3) ? n->net.count - 1 : below(n->net.count);
}

/* How far an answer may be from the oracle's, relative to its size where that is above 1. */
static double allowed(const network *n) {
    double most = 1e-3;
    for (int32_t i = 0; i < n->net.count; i++) {
        const int32_t format = n->node[i].format;
        if (format == TF_FORMAT_I8 && most < 0.5) most = 0.5; /* a quantum across a tie, a dozen nodes later */
        if (format == TF_FORMAT_I8A16 && most < 1e-2) most = 1e-2;
    }
    return most;
}

/* -- one graph in all ways
 * -------------------------------------------------------------------------------------------- */

typedef struct bench {
    const tf_model *model;
    size_t in, out, bytes, saved; /* floats, floats, bytes, bytes */
    float *x, *y;                 /* [STEPS] rows in, right answers */
    void *scratch;
} bench;

static void *rubbish(size_t bytes) { /* what the library asks for is whole lines: nothing is rounded up */
    CHECK(bytes % 64 == 0);
    return memset(network_block_of(bytes), 0xA7, bytes);
}

static tf_session *open_session(const bench *b) {
    tf_session *session = NULL;
    CHECK(tf_session_init(b->model, rubbish(b->bytes), b->bytes, &session) == TF_OK);
    return session;
}

/* Equal bits, except that any NaN is as good as another. */
static int same(const float *a, const float *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0 && !(isnan(a[i]) && isnan(b[i]))) return 0;
    return 1;
}
static int right(const bench *b, const tf_session *session, int32_t t) {
    return same(tf_session_output(session), b->y + (size_t)t * b->out, b->out);
}
static void feed(const bench *b, tf_session *session, int32_t t) {
    memcpy(tf_session_input(session), b->x + (size_t)t * b->in, b->in * sizeof *b->x);
}

static int alone(const bench *b) {
    int wrong = 0;
    tf_session *session = open_session(b);
    char *saved = malloc(b->saved);
    for (int32_t t = 0; t < STEPS; t++) {
        feed(b, session, t);
        tf_session_finish(b->model, session);
        for (size_t j = 0; j < b->in; j++) tf_session_input(session)[j] = NAN; /* the row is the caller's again */
        wrong += !right(b, session, t);
        for (int32_t prepared = 0; prepared < 2; prepared++) {
            if (below(3) == 0) {
                tf_session *fresh = open_session(b);
                feed(b, fresh, 0);
                tf_session_finish(b->model, fresh);
                CHECK(tf_session_save(b->model, session, saved, b->saved) == TF_OK);
                CHECK(tf_session_load(b->model, fresh, saved, b->saved) == TF_OK);
                free(session);
                session = fresh;
                wrong += !right(b, session, t);
            }
            if (!prepared && below(3)) tf_session_prepare(b->model, session);
        }
    }
    tf_session_reset(session);
    for (int32_t t = 0; t < 8; t++) {
        feed(b, session, t);
        tf_session_finish(b->model, session);
        wrong += !right(b, session, t);
    }
    free(session);
    free(saved);
    return wrong;
}

static int with_team(const bench *b, tf_team *team) {
    int wrong = 0;
    tf_session *session = open_session(b);
    for (int32_t t = 0; t < STEPS; t++) {
        feed(b, session, t);
        tf_team_finish(team, b->model, session);
        wrong += !right(b, session, t);
        if (below(3)) tf_team_prepare(team, b->model, session);
    }
    free(session);
    return wrong;
}

enum { MOST_SESSIONS = 15, AHEAD = 6 };

static int in_batch(const bench *b) { /* sessions at different places of their streams */
    int wrong = 0;
    tf_session *session[MOST_SESSIONS];
    int32_t at[MOST_SESSIONS];
    const int32_t count = 2 + below(MOST_SESSIONS - 1);
    const size_t bytes = tf_batch_bytes(b->model, count);
    void *memory = rubbish(bytes);
    tf_batch *batch = NULL;
    CHECK(tf_batch_init(b->model, count, memory, bytes, &batch) == TF_OK);
    for (int32_t i = 0; i < count; i++) {
        session[i] = open_session(b);
        at[i] = below(AHEAD);
        for (int32_t t = 0; t < at[i]; t++) {
            feed(b, session[i], t);
            tf_session_finish(b->model, session[i]);
            if (below(2)) tf_session_prepare(b->model, session[i]);
        }
    }
    for (int32_t t = 0; t < STEPS - AHEAD; t++) {
        for (int32_t i = 0; i < count; i++) feed(b, session[i], at[i]);
        tf_batch_finish(batch, session, count);
        for (int32_t i = 0; i < count; i++) wrong += !right(b, session[i], at[i]++);
        if (below(3)) tf_batch_prepare(batch, session, count);
    }
    for (int32_t i = 0; i < count; i++) free(session[i]);
    free(memory);
    return wrong;
}

static int in_window(const bench *b) {
    int wrong = 0;
    const int32_t rows = 1 + below(6);
    const size_t bytes = tf_window_bytes(b->model, rows);
    float *y = malloc((size_t)rows * b->out * sizeof *y);
    tf_window *window = NULL, *fresh = NULL;
    CHECK(tf_window_init(b->model, rows, rubbish(bytes), bytes, &window) == TF_OK);
    const size_t saved = tf_window_state_bytes(window);
    char *bytes_saved = malloc(saved);
    for (int32_t t = 0; t < STEPS; t++) {
        const int32_t first = t < rows ? 0 : t - rows + 1, count = t - first + 1;
        memcpy(tf_window_input(window), b->x + (size_t)t * b->in, b->in * sizeof *b->x);
        tf_window_finish(window);
        CHECK(tf_model_run_window(b->model, b->scratch, b->bytes, b->x + (size_t)first * b->in, count, y) == TF_OK);
        wrong += !same(tf_window_output(window), y + (size_t)(count - 1) * b->out, b->out);
        if (below(2)) tf_window_prepare(window);
        if (below(4) == 0) {
            CHECK(tf_window_save(window, bytes_saved, saved) == TF_OK);
            CHECK(tf_window_init(b->model, rows, rubbish(bytes), bytes, &fresh) == TF_OK);
            CHECK(tf_window_load(fresh, bytes_saved, saved) == TF_OK);
            free(window);
            window = fresh;
        }
    }
    free(window), free(y), free(bytes_saved);
    return wrong;
}

static int from_file(const bench *b) {
    const size_t bytes = tf_model_file_bytes(b->model, 0);
    void *file = rubbish(bytes);
    float *y = malloc(STEPS * b->out * sizeof *y);
    tf_model *opened = NULL;
    tf_fault fault;
    CHECK(tf_model_write(b->model, NULL, 0, file, bytes) == TF_OK);
    CHECK(tf_model_open(file, bytes, tf_model_isa(b->model), &opened, &fault) == TF_OK);
    if (opened == NULL) return 1;
    CHECK(tf_model_session_bytes(opened) == b->bytes);
    CHECK(tf_model_run_window(opened, b->scratch, b->bytes, b->x, STEPS, y) == TF_OK);
    const int wrong = !same(y, b->y, STEPS * b->out);
    tf_model_free(opened);
    free(file), free(y);
    return wrong;
}

static double error_of(const bench *b, const network *n) {
    double most = 0;
    oracle o;
    oracle_open(&o, &n->net, STEPS);
    for (int32_t t = 0; t < STEPS; t++) {
        const double *truth = oracle_step(&o, t, b->x + (size_t)t * b->in);
        for (size_t j = 0; j < b->out; j++) {
            const double e = fabs((double)b->y[(size_t)t * b->out + j] - truth[j]) / fmax(1.0, fabs(truth[j]));
            if (!(e <= most)) most = e;
        }
    }
    oracle_close(&o);
    return most;
}

static void show(const network *n, uint64_t number, const char *what) {
    printf("graph %llu: %s; input %d, output node %d\n", (unsigned long long)number, what, n->net.input,
           n->net.output);
    for (int32_t i = 0; i < n->net.count; i++) {
        const tf_node_desc *d = &n->node[i];
        printf("  %d: op %d format %d activation %d width %d size", i, d->op, d->format, d->activation, d->width);
        for (int32_t j = 0; j < 8; j++) printf(" %d", d->size[j]);
        printf(" inputs");
        for (int32_t j = 0; j < d->inputs; j++) printf(" %d", d->input[j]);
        printf("\n");
    }
}

static void test_graph(uint64_t number, tf_team *team) {
    static network n;
    static const float HAZARD[HAZARDS] = {NAN, INFINITY, -INFINITY};
    tf_isa isa = TF_ISA_SCALAR;
    tf_model *model = NULL;
    tf_fault fault;
    build(&n, number);
    do isa = (tf_isa)below(TF_ISA_COUNT);
    while (!tf_isa_available(isa));
    CHECK(tf_model_create(&n.net, isa, &model, &fault) == TF_OK);
    if (model == NULL) {
        show(&n, number, fault.rule);
        network_free(&n);
        return;
    }
    bench b = {.model = model, .in = (size_t)n.net.input, .out = (size_t)tf_model_output_size(model),
               .bytes = tf_model_session_bytes(model), .saved = tf_session_state_bytes(model)};
    b.x = malloc(STEPS * b.in * sizeof *b.x);
    b.y = malloc(STEPS * b.out * sizeof *b.y);
    b.scratch = rubbish(b.bytes);
    for (size_t i = 0; i < STEPS * b.in; i++) b.x[i] = noise(&n.seed);
    for (int32_t hazard = -1; hazard < HAZARDS; hazard++) {
        float *spot = &b.x[5 * b.in + (size_t)below((int32_t)b.in)];
        const float before = *spot;
        if (hazard >= 0) *spot = HAZARD[hazard];
        CHECK(tf_model_run_window(model, b.scratch, b.bytes, b.x, STEPS, b.y) == TF_OK);
        const double error = hazard < 0 ? error_of(&b, &n) : 0.0;
        const int wrong[5] = {alone(&b), in_batch(&b), in_window(&b), with_team(&b, team), from_file(&b)};
        static const char *const WAY[5] = {"alone", "in a batch", "in a window", "by a team", "from a file"};
        for (int i = 0; i < 5; i++) {
            CHECK(wrong[i] == 0);
            if (wrong[i] != 0) show(&n, number, WAY[i]);
        }
        CHECK(error <= allowed(&n));
        if (!(error <= allowed(&n))) show(&n, number, "against the oracle");
        *spot = before;
    }
    free(b.x), free(b.y), free(b.scratch);
    tf_model_free(model);
    network_free(&n);
}

int main(int argc, char **argv) {
    const uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : GRAPHS;
    const uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    tf_team *team = NULL;
    CHECK(tf_team_create(1, NULL, 0, &team) == TF_OK);
    for (uint64_t i = 0; i < count && failures < 20; i++) test_graph(first + i, team);
    tf_team_free(team);
    return done("test_nn_graphs");
}
