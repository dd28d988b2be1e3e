/* Every operation, in every format it has, on every instruction set of this machine, against the double-precision
 * oracle over 320 random steps; and that a stream is its window, bit for bit, through copies, saved states and a late
 * prepare. */
#include "networks.h"
#include "oracle.h"

enum { STEPS = 320 };

static void pool(network *n, int32_t input, int32_t rows, int32_t kind, int32_t seen) {
    tf_node_desc *d = network_node(n, TF_OP_POOL, network_width(n, input), input);
    d->size[0] = rows;
    d->size[1] = kind;
    d->size[2] = seen;
}

static int32_t slice(network *n, int32_t input, int32_t first, int32_t width) {
    network_node(n, TF_OP_SLICE, width, input)->size[0] = first;
    return n->net.output;
}

static int32_t concat(network *n, const int32_t *parts, int32_t count) {
    int32_t width = 0;
    for (int32_t i = 0; i < count; i++) width += network_width(n, parts[i]);
    tf_node_desc *d = network_node(n, TF_OP_CONCAT, width, parts[0]);
    d->inputs = count;
    memcpy(d->input, parts, (size_t)count * sizeof *parts);
    return n->net.output;
}

static int32_t position(network *n, int32_t input, int32_t rows) {
    const int32_t width = network_width(n, input);
    tf_node_desc *d = network_node(n, TF_OP_POSITION, width, input);
    d->size[0] = rows;
    d->extra = network_floats(n, (size_t)rows * (size_t)width, 0.2f, 0.0f);
    return n->net.output;
}

static int32_t conv(network *n, int32_t channels, int32_t input, int32_t taps, int32_t dilation, int32_t stride,
                    int32_t groups) {
    return network_conv(n, channels, input, (int32_t[7]){taps, dilation, stride, groups, 1, 1, 1}, TF_ACT_NONE);
}
static int32_t book(network *n, int32_t channels, int32_t input, int32_t taps, int32_t levels, int32_t kernel,
                    int32_t stride) {
    return network_conv(n, channels, input, (int32_t[7]){taps, 1, 1, 1, levels, kernel, stride}, TF_ACT_RELU);
}
static int32_t dense(network *n, int32_t width, int32_t input, int32_t activation) {
    return network_dense(n, width, input, activation);
}

/* Small networks around the corners that the ready-made ones leave out. Returns 0 when there is no such case. */
static int build(network *n, int32_t which, int32_t format) {
    const int32_t in = TF_MODEL_INPUT;
    memset(n, 0, sizeof *n);
    if (which < NETWORK_KINDS) {
        network_build(n, which, format, 1);
        return 1;
    }
    n->net.nodes = n->node;
    n->format = format;
    n->seed = 991u + (unsigned)(which * 8 + format);
    n->net.input = 6;
    int32_t a, b, c;
    switch (which - NETWORK_KINDS) {
    case 0: network_lstm(n, 1, 1, in); break;
    case 1: network_lstm(n, 48, 48, in); break;
    case 2: network_lstm(n, 33, 40, in); break; /* a projection wider than the cell */
    case 3: network_gru(n, 32, network_gru(n, 1, in, 0), 1); break;
    case 4: network_gru(n, 40, network_gru(n, 23, in, 0), 0); break;
    case 5: conv(n, 6, in, 4, 3, 1, 6); break; /* depthwise, on the model's input */
    case 6: conv(n, 12, conv(n, 12, in, 2, 1, 1, 3), 3, 2, 1, 6); break;
    case 7: conv(n, 64, dense(n, 32, in, TF_ACT_TANH), 3, 1, 1, 4); break; /* groups of whole vectors */
    case 8: conv(n, 32, conv(n, 16, in, 3, 1, 1, 1), 2, 5, 1, 16); break;
    case 9: conv(n, 5, conv(n, 7, in, 3, 2, 2, 1), 4, 1, 3, 1); break; /* period 6 */
    case 10: n->net.input = 20, book(n, 16, book(n, 3, in, 2, 5, 2, 1), 3, 4, 2, 2); break;
    case 11: n->net.input = 30, book(n, 5, book(n, 20, in, 1, 10, 3, 2), 2, 4, 4, 1); break;
    case 12: /* strided, then everything that has a state */
        a = conv(n, 8, in, 3, 1, 3, 1);
        b = network_lstm(n, 8, 8, a);
        c = network_attention(n, a, b, a, 2, 2, 5, TF_POSITION_ROPE);
        position(n, c, 9);
        pool(n, n->net.output, 4, TF_POOL_MEAN, 1);
        conv(n, 4, n->net.output, 2, 2, 1, 2);
        break;
    case 13: /* two strides meet */
        a = conv(n, 8, in, 2, 1, 2, 1);
        b = conv(n, 8, in, 2, 1, 3, 2);
        network_two(n, TF_OP_ADD, a, b, TF_ACT_RELU);
        concat(n, (int32_t[]){a, n->net.output, b}, 3);
        break;
    case 14: pool(n, in, 7, TF_POOL_MAX, 0); break;
    case 15: pool(n, dense(n, 9, in, TF_ACT_NONE), 5, TF_POOL_SUM, 0); break;
    case 16: pool(n, in, 20, TF_POOL_MEAN, 0), pool(n, n->net.output, 1, TF_POOL_MEAN, 1); break;
    case 17: network_attention(n, dense(n, 12, in, TF_ACT_NONE), in, dense(n, 10, in, TF_ACT_TANH), 4, 2, 1,
                               TF_POSITION_NONE); break;
    case 18: network_attention(n, dense(n, 24, in, TF_ACT_NONE), dense(n, 6, in, TF_ACT_NONE),
                               dense(n, 20, in, TF_ACT_NONE), 4, 1, 16, TF_POSITION_ROPE); break;
    case 19: network_attention(n, dense(n, 15, in, TF_ACT_NONE), dense(n, 15, in, TF_ACT_NONE),
                               dense(n, 18, in, TF_ACT_NONE), 3, 3, 33, TF_POSITION_ALIBI); break;
    case 20: /* parts that are written in place, and parts that are not */
        a = network_lstm(n, 16, 16, in);
        b = dense(n, 32, a, TF_ACT_RELU);
        c = dense(n, 5, b, TF_ACT_GELU);
        c = concat(n, (int32_t[]){a, b, c}, 3);
        concat(n, (int32_t[]){c, in, slice(n, c, 10, 30), in}, 4);
        dense(n, 4, n->net.output, TF_ACT_SILU);
        break;
    case 21: /* sums that a product can take over, and sums that it cannot */
        a = dense(n, 16, in, TF_ACT_RELU);
        b = network_two(n, TF_OP_ADD, dense(n, 16, a, TF_ACT_RELU), a, TF_ACT_RELU);
        c = network_two(n, TF_OP_ADD, b, dense(n, 16, b, TF_ACT_NONE), TF_ACT_NONE);
        a = network_two(n, TF_OP_ADD, c, c, TF_ACT_LEAKY_RELU);
        n->node[a].value[7] = -0.5f;
        b = dense(n, 16, a, TF_ACT_RELU);
        c = network_two(n, TF_OP_ADD, b, a, TF_ACT_NONE);
        a = network_two(n, TF_OP_MUL, b, c, TF_ACT_TANH);
        slice(n, network_norm(n, a, TF_NORM_LAYER), 2, 11);
        break;
    case 22: /* slices of the input, convolved and shown */
        n->net.input = 11;
        a = conv(n, 6, slice(n, in, 1, 7), 3, 1, 1, 1);
        pool(n, slice(n, in, 4, 6), 3, TF_POOL_MAX, 0);
        network_two(n, TF_OP_MUL, a, n->net.output, TF_ACT_NONE);
        break;
    case 23: slice(n, in, 2, 3); break;
    case 24: /* one row, read by several int8 products with the same scale and another */
        a = dense(n, 20, in, TF_ACT_TANH);
        b = network_lstm(n, 20, 20, a);
        c = network_lstm(n, 20, 20, b);
        if (format >= TF_FORMAT_I8) n->node[c].value[0] = n->node[b].value[1];
        dense(n, 3, network_two(n, TF_OP_ADD, b, c, TF_ACT_NONE), TF_ACT_NONE);
        break;
    case 25: n->net.input = 70, dense(n, 130, dense(n, 200, in, TF_ACT_RELU), TF_ACT_SIGMOID); break;
    case 26: /* a branch that nobody reads, and no bias anywhere */
        a = dense(n, 8, in, TF_ACT_TANH);
        conv(n, 8, a, 2, 1, 7, 1);
        b = network_lstm(n, 8, 8, a);
        network_gru(n, 8, b, 1);
        for (int32_t i = 0; i < n->net.count; i++) n->node[i].bias = n->node[i].rbias = NULL;
        break;
    case 27: network_norm(n, network_norm(n, in, TF_NORM_RMS), TF_NORM_LAYER); break;
    default: return 0;
    }
    return 1;
}

/* How far an answer may be from the oracle's: rounding of float32 through a few dozen steps of memory; of integer
 * formats also a quantum or two that fell to the other side of a tie. */
static double allowed(int32_t format) {
    switch (format) {
    case TF_FORMAT_I8: return 6e-2;
    case TF_FORMAT_I8A16: return 6e-4;
    default: return 3e-5;
    }
}

typedef struct bench {
    const tf_model *model;
    int32_t input, output;
    size_t bytes, saved;
    float *x, *y;
} bench;

static void feed(const bench *b, tf_session *session, int32_t t) {
    memcpy(tf_session_input(session), b->x + t * b->input, (size_t)b->input * sizeof *b->x);
    tf_session_finish(b->model, session);
}

static int differs(const bench *b, const tf_session *session, int32_t t) {
    return memcmp(tf_session_output(session), b->y + t * b->output, (size_t)b->output * sizeof *b->y) != 0;
}

/* Streams with copies and saved states at random places, before and after prepare. */
static void check_stream(const bench *b, unsigned seed) {
    char *memory = network_block_of(b->bytes), *other = network_block_of(b->bytes);
    char *state = malloc(b->saved), *again = malloc(b->saved);
    tf_session *session, *fresh;
    int wrong = 0;
    CHECK(tf_session_init(b->model, memory, b->bytes, &session) == TF_OK);
    for (int32_t t = 0; t < STEPS; t++) {
        feed(b, session, t);
        wrong += differs(b, session, t);
        for (int32_t when = 0; when < 2; when++) {
            const int32_t what = (int32_t)((noise(&seed) + 2.0f) * 4.0f);
            if (what == 0) { /* a copy of the block */
                memcpy(other, memory, b->bytes);
                memset(memory, 0x5A, b->bytes);
            } else if (what == 1) { /* a saved state, into memory that held something else */
                CHECK(tf_session_save(b->model, session, state, b->saved) == TF_OK);
                memset(other, 0xA5, b->bytes);
                CHECK(tf_session_init(b->model, other, b->bytes, &fresh) == TF_OK);
                feed(b, fresh, 1);
                CHECK(tf_session_load(b->model, fresh, state, b->saved) == TF_OK);
                CHECK(tf_session_save(b->model, fresh, again, b->saved) == TF_OK);
                wrong += memcmp(state, again, b->saved) != 0;
            }
            if (what < 2) {
                char *swap = memory;
                memory = other, other = swap;
                session = (tf_session *)memory;
                wrong += differs(b, session, t);
            }
            if (when == 0 && what != 2) tf_session_prepare(b->model, session); /* else finish has to */
            if (what == 3) tf_session_prepare(b->model, session);              /* once more changes nothing */
        }
    }
    CHECK(tf_session_steps(session) == STEPS);
    CHECK(wrong == 0);
    tf_session_reset(session);
    for (int32_t t = 0; t < 20; t++) {
        feed(b, session, t);
        wrong += differs(b, session, t);
    }
    CHECK(wrong == 0);
    free(memory), free(other), free(state), free(again);
}

/* A NaN in the input comes out as NaN wherever an integer node could have hidden it, and reset forgets it. */
static void check_nan(const bench *b) {
    char *memory = network_block_of(b->bytes);
    tf_session *session;
    CHECK(tf_session_init(b->model, memory, b->bytes, &session) == TF_OK);
    for (int32_t t = 0; t < 30; t++) {
        memcpy(tf_session_input(session), b->x + t * b->input, (size_t)b->input * sizeof *b->x);
        for (int32_t j = 0; t == 12 && j < b->input; j++) tf_session_input(session)[j] = NAN;
        tf_session_finish(b->model, session);
        tf_session_prepare(b->model, session);
        if (t >= 12)
            for (int32_t j = 0; j < b->output; j++) CHECK(isnan(tf_session_output(session)[j]));
    }
    tf_session_reset(session);
    feed(b, session, 0);
    CHECK(memcmp(tf_session_output(session), b->y, (size_t)b->output * sizeof *b->y) == 0);
    free(memory);
}

static void check_case(network *n, int32_t which, tf_isa isa, const double *truth, double *worst) {
    tf_model *model;
    tf_fault fault;
    CHECK(tf_model_create(&n->net, isa, &model, &fault) == TF_OK);
    if (model == NULL) {
        printf("case %d format %d: node %d: %s\n", which, n->format, fault.node, fault.rule);
        return;
    }
    bench b = {.model = model, .input = n->net.input, .output = n->node[n->net.output].width,
               .bytes = tf_model_session_bytes(model), .saved = tf_session_state_bytes(model)};
    CHECK(tf_model_output_size(model) == b.output && tf_model_input_size(model) == b.input);
    CHECK(b.saved < b.bytes + 64);
    b.x = malloc((size_t)STEPS * (size_t)b.input * sizeof *b.x);
    b.y = malloc((size_t)STEPS * (size_t)b.output * sizeof *b.y);
    unsigned seed = 5u + (unsigned)which;
    for (int32_t i = 0; i < STEPS * b.input; i++) b.x[i] = noise(&seed);
    char *scratch = network_block_of(b.bytes);
    CHECK(tf_model_run_window(model, scratch, b.bytes, b.x, STEPS, b.y) == TF_OK);
    free(scratch);
    double error = 0;
    int32_t where = 0;
    for (int32_t i = 0; i < STEPS * b.output; i++) {
        const double e = fabs((double)b.y[i] - truth[i]) / fmax(1.0, fabs(truth[i]));
        if (!(e <= error)) error = e, where = i;
    }
    CHECK(error <= allowed(n->format));
    if (!(error <= allowed(n->format)))
        printf("case %d format %d %s: off by %g at step %d, column %d\n", which, n->format, tf_isa_name(isa), error,
               where / b.output, where % b.output);
    if (error > *worst) *worst = error;
    check_stream(&b, 17u + (unsigned)which);
    const int integer = n->format >= TF_FORMAT_I8;
    if (integer && (which == 0 || which == 1 || which == 5 || which == 6 || which == NETWORK_KINDS)) check_nan(&b);
    free(b.x), free(b.y);
    tf_model_free(model);
}

static double *truth_of(const network *n, int32_t which) {
    oracle o;
    const int32_t output = n->node[n->net.output].width, input = n->net.input;
    double *truth = malloc((size_t)STEPS * (size_t)output * sizeof *truth);
    float *x = malloc((size_t)input * sizeof *x);
    unsigned seed = 5u + (unsigned)which;
    oracle_open(&o, &n->net, STEPS);
    for (int32_t t = 0; t < STEPS; t++) {
        for (int32_t j = 0; j < input; j++) x[j] = noise(&seed);
        memcpy(truth + t * output, oracle_step(&o, t, x), (size_t)output * sizeof *truth);
    }
    oracle_close(&o);
    free(x);
    return truth;
}

int main(void) {
    for (int32_t format = 0; format < NETWORK_FORMATS; format++) {
        double worst = 0;
        int32_t cases = 0;
        network n;
        for (int32_t which = 0; build(&n, which, format); which++, cases++) {
            double *truth = truth_of(&n, which);
            for (int isa = 0; isa < TF_ISA_COUNT; isa++)
                if (tf_isa_available((tf_isa)isa)) check_case(&n, which, (tf_isa)isa, truth, &worst);
            free(truth);
            network_free(&n);
        }
        printf("format %d: %d networks, worst error %.2e of %.0e\n", format, cases, worst, allowed(format));
    }
    return done("test_nn_nodes");
}
