/* Models and sessions: refusals, hostile states, models over packed weights, and a hot path that allocates nothing.
 * What the answers are worth is tested in test_nn_nodes.c. */
#include "networks.h"

#include "nn/plan.h"

#include <stdatomic.h>

/* The linker sends the library's allocation calls here (-Wl,--wrap), so the test counts instead of believing. */
static atomic_long allocations;
void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
void *__real_aligned_alloc(size_t, size_t);
void __real_free(void *);
void *__wrap_malloc(size_t n) { return atomic_fetch_add(&allocations, 1), __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t m) { return atomic_fetch_add(&allocations, 1), __real_calloc(n, m); }
void *__wrap_realloc(void *p, size_t n) { return atomic_fetch_add(&allocations, 1), __real_realloc(p, n); }
void *__wrap_aligned_alloc(size_t a, size_t n) { return atomic_fetch_add(&allocations, 1), __real_aligned_alloc(a, n); }
void __wrap_free(void *p) { atomic_fetch_add(&allocations, p != NULL), __real_free(p); }

/* -- refusals
 * --------------------------------------------------------------------------------------------------------- */

static network base;
static network *n = &base;

/* A network of one kind (networks.h), to be spoiled by the caller. */
static void start(int32_t kind, int32_t format) {
    network_free(n);
    network_build(n, kind, format, 1);
}

static void refused(tf_status status, int32_t node, const char *part, int line) {
    tf_model *model = (tf_model *)n;
    tf_fault fault = {7, NULL};
    const tf_status got = tf_model_create(&n->net, TF_ISA_SCALAR, &model, &fault);
    if (fault.rule == NULL) fault.rule = "(none)";
    const int right = got == status && model == NULL && fault.node == node && strstr(fault.rule, part) != NULL;
    CHECK(right);
    if (!right)
        printf("  line %d: status %d, node %d: %s\n", line, (int)got, fault.node, fault.rule);
    if (got == TF_OK) tf_model_free(model);
}
#define REFUSED(status, node, part) refused(status, node, part, __LINE__)

static tf_node_desc *only(int32_t op) {
    for (int32_t i = 0; i < n->net.count; i++)
        if (n->node[i].op == op) return &n->node[i];
    abort();
}
static int32_t index_of(const tf_node_desc *d) { return (int32_t)(d - n->node); }

static void test_refused_networks(void) {
    tf_model *model = (tf_model *)n;
    tf_fault fault;
    CHECK(tf_model_create(NULL, TF_ISA_SCALAR, &model, &fault) == TF_ERR_ARGUMENT && model == NULL && fault.node == -1);
    start(0, TF_FORMAT_F32);
    CHECK(tf_model_create(&n->net, TF_ISA_SCALAR, NULL, NULL) == TF_ERR_ARGUMENT);
    CHECK(tf_model_create(&n->net, TF_ISA_COUNT, &model, NULL) == TF_ERR_ISA && model == NULL);
    n->net.count = 0;
    REFUSED(TF_ERR_ARGUMENT, -1, "1,024 nodes");
    n->net.count = TF_MAX_NODES + 1;
    REFUSED(TF_ERR_ARGUMENT, -1, "1,024 nodes");
    start(0, TF_FORMAT_F32), n->net.input = 0;
    REFUSED(TF_ERR_SHAPE, -1, "input's width");
    start(0, TF_FORMAT_F32), n->net.output = n->net.count;
    REFUSED(TF_ERR_ARGUMENT, -1, "output must be one of the nodes");
    start(0, TF_FORMAT_F32), n->node[1].input[0] = 1;
    REFUSED(TF_ERR_ARGUMENT, 1, "earlier nodes");
    start(0, TF_FORMAT_F32), n->node[1].input[0] = -2;
    REFUSED(TF_ERR_ARGUMENT, 1, "earlier nodes");
    start(0, TF_FORMAT_F32), n->node[0].op = 15;
    REFUSED(TF_ERR_ARGUMENT, 0, "operation is unknown");
    start(0, TF_FORMAT_F32), n->node[0].format = 5;
    REFUSED(TF_ERR_ARGUMENT, 0, "format is unknown");
    start(0, TF_FORMAT_F32), n->node[0].width = 0;
    REFUSED(TF_ERR_SHAPE, 0, "width must be in");
    start(0, TF_FORMAT_F32), n->node[0].width = INT32_MAX;
    REFUSED(TF_ERR_SHAPE, 0, "width must be in");
    start(0, TF_FORMAT_F32), n->node[0].inputs = 2;
    REFUSED(TF_ERR_ARGUMENT, 0, "number of inputs");
    start(0, TF_FORMAT_F32), n->node[0].activation = TF_ACT_RELU;
    REFUSED(TF_ERR_ARGUMENT, 0, "takes no activation");
    start(0, TF_FORMAT_F32), n->node[3].activation = 9;
    REFUSED(TF_ERR_ARGUMENT, 3, "activation is unknown");
    start(0, TF_FORMAT_F32), n->node[3].size[7] = 2;
    REFUSED(TF_ERR_SHAPE, 3, "groups of softmax");
    start(6, TF_FORMAT_F32), n->node[0].value[7] = NAN;
    REFUSED(TF_ERR_NONFINITE, 0, "slope");
    start(0, TF_FORMAT_F32), n->node[0].size[0] = 18;
    REFUSED(TF_ERR_SHAPE, 0, "must equal size[0]");
    start(0, TF_FORMAT_F32), n->node[0].size[0] = -1;
    REFUSED(TF_ERR_SHAPE, 0, "the units");
    start(1, TF_FORMAT_F32), n->node[0].size[1] = 2;
    REFUSED(TF_ERR_ARGUMENT, 0, "reset gate");
    start(7, TF_FORMAT_F32), only(TF_OP_AFFINE)->format = TF_FORMAT_F16;
    REFUSED(TF_ERR_ARGUMENT, index_of(only(TF_OP_AFFINE)), "no such format");
    start(3, TF_FORMAT_F32), only(TF_OP_ATTENTION)->format = TF_FORMAT_I8A16;
    REFUSED(TF_ERR_ARGUMENT, index_of(only(TF_OP_ATTENTION)), "no such format");
}

static void test_refused_shapes(void) {
    static const struct {
        int32_t kind, op, index, value;
        const char *part;
    } SIZES[] = {
        {2, TF_OP_CONV, 0, 0, "taps"},           {2, TF_OP_CONV, 0, 65537, "taps"},
        {2, TF_OP_CONV, 1, 0, "dilation"},       {2, TF_OP_CONV, 1, INT32_MAX, "dilation"},
        {2, TF_OP_CONV, 2, 0, "stride"},         {2, TF_OP_CONV, 3, 0, "groups, must be"},
        {2, TF_OP_CONV, 3, 2, "divide the input's and the output's"},
        {2, TF_OP_CONV, 4, 2, "levels, must divide"},
        {2, TF_OP_CONV, 4, 0, "levels, must divide"},
        {2, TF_OP_CONV, 5, 2, "level kernel"},   {2, TF_OP_CONV, 6, 0, "level stride"},
        {2, TF_OP_CONV, 6, 2, "level stride"},   {6, TF_OP_CONV, 3, 2, "single level"},
        {6, TF_OP_CONV, 6, 3, "output levels"},  {3, TF_OP_ATTENTION, 0, 0, "heads"},
        {3, TF_OP_ATTENTION, 0, 3, "divide"},    {3, TF_OP_ATTENTION, 1, 3, "key heads"},
        {3, TF_OP_ATTENTION, 1, 4, "kv_heads"},  {3, TF_OP_ATTENTION, 2, 0, "window"},
        {3, TF_OP_ATTENTION, 3, 4, "positions"}, {2, TF_OP_POOL, 0, 0, "window"},
        {2, TF_OP_POOL, 1, 3, "pooling"},        {2, TF_OP_POOL, 2, 2, "mean divides"},
        {7, TF_OP_SLICE, 0, -1, "slice"},        {7, TF_OP_SLICE, 0, 6, "slice"},
        {7, TF_OP_POSITION, 0, 0, "rows"},       {3, TF_OP_NORM, 0, 2, "kind of norm"},
    };
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
        start(SIZES[i].kind, TF_FORMAT_F32);
        tf_node_desc *d = only(SIZES[i].op);
        d->size[SIZES[i].index] = SIZES[i].value;
        tf_model *model;
        tf_fault fault;
        const tf_status status = tf_model_create(&n->net, TF_ISA_SCALAR, &model, &fault);
        const int right = (status == TF_ERR_SHAPE || status == TF_ERR_ARGUMENT) && fault.node == index_of(d) &&
                          strstr(fault.rule, SIZES[i].part) != NULL;
        CHECK(right && model == NULL);
        if (!right) printf("  row %zu: status %d, node %d: %s\n", i, (int)status, fault.node, fault.rule);
    }
    start(3, TF_FORMAT_F32), only(TF_OP_ATTENTION)->width++;
    REFUSED(TF_ERR_SHAPE, index_of(only(TF_OP_ATTENTION)), "heads * value_dim");
    start(3, TF_FORMAT_F32), only(TF_OP_ATTENTION)->extra = NULL;
    REFUSED(TF_ERR_ARGUMENT, index_of(only(TF_OP_ATTENTION)), "slopes");
    start(4, TF_FORMAT_F32), only(TF_OP_ATTENTION)->value[4] = 0;
    REFUSED(TF_ERR_ARGUMENT, index_of(only(TF_OP_ATTENTION)), "base of RoPE");
    start(4, TF_FORMAT_F32), only(TF_OP_ATTENTION)->value[3] = INFINITY;
    REFUSED(TF_ERR_NONFINITE, index_of(only(TF_OP_ATTENTION)), "scale of scores");
    start(7, TF_FORMAT_F32), only(TF_OP_CONCAT)->width--;
    REFUSED(TF_ERR_SHAPE, index_of(only(TF_OP_CONCAT)), "sum of the inputs");
    start(7, TF_FORMAT_F32), only(TF_OP_MUL)->input[1] = TF_MODEL_INPUT;
    REFUSED(TF_ERR_SHAPE, index_of(only(TF_OP_MUL)), "equally wide");
    start(7, TF_FORMAT_F32), only(TF_OP_AFFINE)->width++;
    REFUSED(TF_ERR_SHAPE, index_of(only(TF_OP_AFFINE)), "that of the input");
    start(3, TF_FORMAT_F32), only(TF_OP_NORM)->value[3] = -1;
    REFUSED(TF_ERR_ARGUMENT, index_of(only(TF_OP_NORM)), "epsilon");
    start(3, TF_FORMAT_F32), only(TF_OP_NORM)->extra = NULL;
    REFUSED(TF_ERR_ARGUMENT, index_of(only(TF_OP_NORM)), "gamma");
}

/* 16-bit weights of a tanh gate are stored doubled, so their largest is half of the format's; other gates have all. */
static void test_doubled_weight(int32_t format, float most, float more) {
    for (int32_t gru = 0; gru < 2; gru++) {
        start(gru ? 1 : 0, format);
        tf_node_desc *d = only(gru ? TF_OP_GRU : TF_OP_LSTM);
        const size_t in = (size_t)(d->input[0] == TF_MODEL_INPUT ? n->net.input : n->node[d->input[0]].width);
        float *tanh_gate = (float *)d->w.data + 2 * (size_t)d->size[0] * in;
        tf_model *model;
        ((float *)d->w.data)[0] = more;
        *tanh_gate = -most;
        CHECK(tf_model_create(&n->net, TF_ISA_SCALAR, &model, NULL) == TF_OK);
        tf_model_free(model);
        *tanh_gate = -more;
        REFUSED(TF_ERR_NONFINITE, index_of(d), "16-bit");
    }
}

static void test_refused_weights(void) {
    start(0, TF_FORMAT_F32), n->node[1].r.data = NULL;
    REFUSED(TF_ERR_ARGUMENT, 1, "matrix is missing");
    start(0, TF_FORMAT_F32), ((float *)n->node[1].r.data)[3] = NAN;
    REFUSED(TF_ERR_NONFINITE, 1, "finite");
    start(0, TF_FORMAT_F32), ((float *)n->node[2].p.data)[0] = INFINITY;
    REFUSED(TF_ERR_NONFINITE, 2, "finite");
    start(0, TF_FORMAT_F32), ((float *)n->node[3].bias)[2] = -INFINITY;
    REFUSED(TF_ERR_NONFINITE, 3, "finite");
    start(7, TF_FORMAT_F32), ((float *)only(TF_OP_POSITION)->extra)[599] = NAN;
    REFUSED(TF_ERR_NONFINITE, index_of(only(TF_OP_POSITION)), "finite");
    start(3, TF_FORMAT_F32), ((float *)only(TF_OP_ATTENTION)->extra)[3] = NAN;
    REFUSED(TF_ERR_NONFINITE, index_of(only(TF_OP_ATTENTION)), "finite");
    start(0, TF_FORMAT_F32), ((float *)n->node[0].w.data)[0] = 3e38f; /* times 2 log2(e) of the gate it belongs to */
    REFUSED(TF_ERR_NONFINITE, 0, "too large for float32");
    start(5, TF_FORMAT_F16), ((float *)n->node[0].w.data)[0] = 65520.0f;
    REFUSED(TF_ERR_NONFINITE, 0, "16-bit");
    start(5, TF_FORMAT_BF16), ((float *)n->node[0].w.data)[0] = 3.4e38f;
    REFUSED(TF_ERR_NONFINITE, 0, "16-bit");
    test_doubled_weight(TF_FORMAT_F16, 32752.0f, 32768.0f);
    test_doubled_weight(TF_FORMAT_BF16, 0x1.fep+126f, 0x1p+127f);
    start(0, TF_FORMAT_I8), ((int8_t *)n->node[0].w.data)[7] = -128;
    REFUSED(TF_ERR_ARGUMENT, 0, "[-127, 127]");
    start(0, TF_FORMAT_I8), n->node[0].r.scale = NULL;
    REFUSED(TF_ERR_ARGUMENT, 0, "scale per row");
    const float bad[] = {0.0f, -1.0f, NAN, INFINITY, 1e-42f};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        start(0, TF_FORMAT_I8), ((float *)n->node[0].w.scale)[5] = bad[i];
        REFUSED(TF_ERR_ARGUMENT, 0, "scales of int8 weights");
        for (int32_t v = 0; v < 3; v++) {
            start(0, TF_FORMAT_I8A16), n->node[2].value[v] = bad[i];
            REFUSED(TF_ERR_ARGUMENT, 2, "scales of int8 inputs");
            start(3, TF_FORMAT_I8), only(TF_OP_ATTENTION)->value[v] = bad[i];
            REFUSED(TF_ERR_ARGUMENT, index_of(only(TF_OP_ATTENTION)), "scales of int8 inputs");
        }
    }
    start(3, TF_FORMAT_I8), only(TF_OP_ATTENTION)->value[0] = only(TF_OP_ATTENTION)->value[1] = 1e30f;
    REFUSED(TF_ERR_ARGUMENT, index_of(only(TF_OP_ATTENTION)), "product that float32 can hold");
    start(3, TF_FORMAT_I8), only(TF_OP_ATTENTION)->value[0] = only(TF_OP_ATTENTION)->value[1] = 1e-25f;
    REFUSED(TF_ERR_ARGUMENT, index_of(only(TF_OP_ATTENTION)), "product that float32 can hold");
    start(5, TF_FORMAT_I8), n->node[0].value[0] = 1e30f, ((float *)n->node[0].w.scale)[0] = 1e30f;
    REFUSED(TF_ERR_NONFINITE, 0, "multiply to infinity");
}

/* Sizes that no machine has, and products of strides: caught by arithmetic, not by trying. */
static void test_refused_sizes(void) {
    static tf_node_desc node[TF_MAX_NODES];
    const tf_network net = {.nodes = node, .count = TF_MAX_NODES, .input = 1, .output = TF_MAX_NODES - 1};
    float one[1] = {1.0f};
    tf_model *model;
    tf_fault fault;
    for (int32_t i = 0; i < TF_MAX_NODES; i++) {
        node[i] = (tf_node_desc){.op = TF_OP_CONV, .width = 1, .inputs = 1, .input = {i - 1}};
        const int32_t size[7] = {1, 1, i % 64 == 1 ? 8 : 1, 1, 1, 1, 1};
        memcpy(node[i].size, size, sizeof size);
        node[i].w.data = one;
    }
    CHECK(tf_model_create(&net, TF_ISA_SCALAR, &model, &fault) == TF_ERR_SHAPE && strstr(fault.rule, "strides"));
    for (int32_t i = 0; i < TF_MAX_NODES; i++) {
        node[i] = (tf_node_desc){.op = TF_OP_POOL, .width = 1, .inputs = 1, .input = {i - 1}, .size = {1 << 20}};
    }
    CHECK(tf_model_create(&net, TF_ISA_SCALAR, &model, &fault) == TF_ERR_MEMORY && strstr(fault.rule, "2 GiB"));
    static tf_plain plain[TF_MAX_NODES];
    _Alignas(64) static char weights[64];
    for (int32_t i = 0; i < TF_MAX_NODES; i++) {
        memset(&plain[i], 0, sizeof plain[i]);
        plain[i] = (tf_plain){.op = TF_OP_DENSE, .width = 1 << 20, .inputs = 1, .input = {i - 1}};
    }
    CHECK(tf_model_from_plain(plain, TF_MAX_NODES, 1 << 20, 5, weights, 64, 0, TF_ISA_SCALAR, &model, &fault) ==
              TF_ERR_MEMORY && strstr(fault.rule, "1 TiB"));
    CHECK(tf_model_from_plain(plain, 1, 16, 0, weights, 64, 0, TF_ISA_SCALAR, &model, &fault) == TF_ERR_FORMAT &&
          strstr(fault.rule, "exactly"));
    CHECK(tf_model_from_plain(plain, 1, 16, 0, weights + 4, 64, 0, TF_ISA_SCALAR, &model, &fault) == TF_ERR_ARGUMENT);
    plain[0] = (tf_plain){.op = TF_OP_CONV, .width = 1 << 20, .inputs = 1, .input = {-1},
                          .size = {1 << 16, 1 << 20, 1 << 20, 1, 1, 1, 1}, .format = TF_FORMAT_I8, .value = {1}};
    CHECK(tf_model_from_plain(plain, 1, 1, 0, weights, 64, 0, TF_ISA_SCALAR, &model, &fault) == TF_ERR_MEMORY);
    plain[0].has = 16;
    CHECK(tf_model_from_plain(plain, 1, 1, 0, weights, 64, 0, TF_ISA_SCALAR, &model, &fault) == TF_ERR_ARGUMENT);
}

/* -- descriptions of any bytes
 * ---------------------------------------------------------------------------------------- */

/* Random descriptions either are refused or make a model that runs; sanitizers watch. */
static void test_random_descriptions(void) {
    unsigned seed = 4711;
    int32_t made = 0, ran[16] = {0};
    _Alignas(64) static char weights[1 << 16];
    memset(weights, 0, sizeof weights);
    for (int32_t round = 0; round < 60000; round++) {
        tf_plain plain[4];
        const int32_t count = 1 + round % 4;
        for (int32_t i = 0; i < count; i++) {
            int32_t *words = (int32_t *)(void *)&plain[i];
            for (size_t j = 0; j < sizeof plain[i] / 4; j++) words[j] = (int32_t)((noise(&seed) + 2.0f) * 1.1f);
            for (int j = 0; j < 8; j++) plain[i].value[j] = noise(&seed) + 1.9f;
            plain[i].op = 1 + (int32_t)((noise(&seed) + 2.0f) * 3.4999f);
            const int pair = plain[i].op == TF_OP_ADD || plain[i].op == TF_OP_MUL;
            plain[i].inputs = plain[i].op == TF_OP_ATTENTION ? 3 : pair ? 2 : 1;
            plain[i].has &= 15;
            if (plain[i].op != TF_OP_LSTM) plain[i].has |= TF_HAS_EXTRA;
            for (int j = 0; j < TF_MAX_INPUTS; j++) plain[i].input[j] = i - 1 - (round >> (5 + j)) % 2;
            if (round % 3 != 0) plain[i].width = 4;
            if (round % 3 != 0 && plain[i].op == TF_OP_CONV) plain[i].size[3] = plain[i].size[4] = plain[i].size[5] = 1;
            if (plain[i].op > TF_OP_ATTENTION) plain[i].format = 0;
            if (plain[i].op < TF_OP_DENSE || plain[i].op == TF_OP_ATTENTION) plain[i].activation = 0;
            if (round % 3 != 0 && plain[i].op <= TF_OP_GRU) plain[i].size[0] = 4;
        }
        tf_model *model;
        tf_fault fault;
        const tf_isa isa = TF_ISA_SCALAR;
        tf_status status = tf_model_from_plain(plain, count, 4, count - 1, weights, 0, 0, isa, &model, &fault);
        CHECK(status == TF_OK || fault.rule[0] != '\0');
        if (status == TF_ERR_FORMAT) /* well formed; now with as many zero weights as it wants */
            for (size_t bytes = 64; bytes <= sizeof weights && status != TF_OK; bytes += 64)
                status = tf_model_from_plain(plain, count, 4, count - 1, weights, bytes, 0, isa, &model, &fault);
        if (status != TF_OK) continue;
        made++;
        for (int32_t i = 0; i < count; i++) ran[plain[i].op]++;
        void *memory = network_block_of(tf_model_session_bytes(model));
        tf_session *session;
        CHECK(tf_session_init(model, memory, tf_model_session_bytes(model), &session) == TF_OK);
        for (int32_t t = 0; t < 9; t++) {
            for (int j = 0; j < 4; j++) tf_session_input(session)[j] = noise(&seed);
            tf_session_finish(model, session);
            if (t % 3 != 1) tf_session_prepare(model, session);
        }
        free(memory);
        tf_model_free(model);
    }
    CHECK(made > 2000);
    for (int32_t op = TF_OP_LSTM; op <= TF_OP_POSITION; op++) CHECK(ran[op] > 20);
}

/* -- states
 * ------------------------------------------------------------------------------------------------------------ */

static void step(const tf_model *model, tf_session *session, unsigned *seed) {
    for (int32_t j = 0; j < tf_model_input_size(model); j++) tf_session_input(session)[j] = noise(seed);
    tf_session_finish(model, session);
    tf_session_prepare(model, session);
}

/* The checksum of a state, made right again after its bytes were changed. */
static void forge(const tf_model *model, char *state, size_t bytes) {
    const uint64_t checksum = tf_digest(tf_model_hash(model), state + 24, bytes - 24);
    memcpy(state + 16, &checksum, sizeof checksum);
}

static void test_states(const tf_model *model) {
    const size_t bytes = tf_model_session_bytes(model), saved = tf_session_state_bytes(model);
    char *memory = network_block_of(bytes), *state = malloc(saved), *other = malloc(saved);
    tf_session *session;
    unsigned seed = 3;
    CHECK(tf_session_init(model, memory + 4, bytes, &session) == TF_ERR_ARGUMENT && session == NULL);
    CHECK(tf_session_init(model, memory, bytes - 1, &session) == TF_ERR_MEMORY && session == NULL);
    CHECK(tf_session_init(NULL, memory, bytes, &session) == TF_ERR_ARGUMENT);
    CHECK(tf_session_init(model, memory, bytes, &session) == TF_OK && (char *)session == memory);
    for (int32_t t = 0; t < 70; t++) step(model, session, &seed);
    CHECK(tf_session_save(model, session, state, saved - 1) == TF_ERR_MEMORY);
    CHECK(tf_session_save(model, session, state, saved) == TF_OK);
    for (size_t i = 0; i < saved; i += 1 + i / 64) {
        state[i] ^= 4;
        CHECK(tf_session_load(model, session, state, saved) == TF_ERR_FORMAT);
        state[i] ^= 4;
    }
    for (size_t length = 0; length < saved; length += 1 + length / 16)
        CHECK(tf_session_load(model, session, state, length) == TF_ERR_FORMAT);
    CHECK(tf_session_save(model, session, other, saved) == TF_OK && memcmp(state, other, saved) == 0);

    /* Right checksums over hostile counters and bytes: whatever is loaded may be wrong, but never reads elsewhere. */
    const uint64_t all = UINT64_MAX, wide = (uint64_t)UINT32_MAX + 1;
    const uint64_t counters[8] = {0, 1, 63, wide - 1, wide, all / 2, all - 1, all};
    for (uint32_t i = 0; i < 8 * 4; i++) {
        memcpy(other, state, saved);
        memcpy(other + 24, &counters[i / 4], 8);
        const uint32_t flags[2] = {i & 1, i >> 1 & 1};
        memcpy(other + 32, flags, sizeof flags);
        for (size_t j = 48; i % 8 >= 4 && j < saved; j++) other[j] = (char)(int)(64.0f * noise(&seed));
        forge(model, other, saved);
        const tf_status status = tf_session_load(model, session, other, saved);
        CHECK(status == (counters[i / 4] == 0 && flags[0] == 0 ? TF_ERR_FORMAT : TF_OK));
        for (int32_t t = 0; t < 40; t++) step(model, session, &seed);
        if (status == TF_OK) CHECK(tf_session_steps(session) == counters[i / 4] + 40);
    }
    const uint32_t two = 2;
    for (size_t at = 32; at <= 36; at += 4) {
        memcpy(other, state, saved);
        memcpy(other + at, &two, 4);
        forge(model, other, saved);
        CHECK(tf_session_load(model, session, other, saved) == TF_ERR_FORMAT);
    }
    free(memory), free(state), free(other);
}

/* -- the rest
 * ---------------------------------------------------------------------------------------------------------- */

static void test_packed(const tf_model *model) {
    tf_model *twin;
    CHECK(model->hash == tf_model_digest(model->nodes, model->count, model->input, model->output_node, model->weights,
                                         model->weight_bytes));
    char *weights = network_block_of(model->weight_bytes);
    memcpy(weights, model->weights, model->weight_bytes);
    for (int64_t more = -64; more <= 64; more += 128)
        CHECK(tf_model_from_plain(model->nodes, model->count, model->input, model->output_node, weights,
                                  model->weight_bytes + (size_t)more, 0, model->isa, &twin, NULL) == TF_ERR_FORMAT);
    CHECK(tf_model_from_plain(model->nodes, model->count, model->input, model->output_node, weights,
                              model->weight_bytes, model->hash, model->isa, &twin, NULL) == TF_OK);
    CHECK(tf_model_session_bytes(twin) == tf_model_session_bytes(model));
    CHECK(tf_model_bytes(twin) == tf_model_bytes(model));
    size_t finish[3], prepare[3];
    tf_model_traffic(model, -1, &finish[0], &prepare[0]);
    finish[2] = prepare[2] = 0;
    for (int32_t i = 0; i < model->count; i++) {
        tf_model_traffic(twin, i, &finish[1], &prepare[1]);
        finish[2] += finish[1], prepare[2] += prepare[1];
    }
    CHECK(finish[0] == finish[2] && prepare[0] == prepare[2] && finish[0] > 0);
    CHECK(finish[0] + prepare[0] <= model->weight_bytes);
    enum { STEPS = 50 };
    float *x = malloc((size_t)STEPS * (size_t)model->input * sizeof *x), *y[2];
    unsigned seed = 8;
    for (int32_t i = 0; i < STEPS * model->input; i++) x[i] = noise(&seed);
    const size_t bytes = tf_model_session_bytes(model), out = (size_t)STEPS * (size_t)model->output * sizeof(float);
    void *scratch = network_block_of(bytes);
    y[0] = malloc(out), y[1] = malloc(out);
    CHECK(tf_model_run_window(model, scratch, bytes, x, STEPS, y[0]) == TF_OK);
    CHECK(tf_model_run_window(twin, scratch, bytes, x, STEPS, y[1]) == TF_OK);
    CHECK(memcmp(y[0], y[1], out) == 0);
    CHECK(tf_model_run_window(model, scratch, bytes - 1, x, STEPS, y[1]) == TF_ERR_MEMORY);
    CHECK(tf_model_run_window(model, scratch, bytes, NULL, STEPS, y[1]) == TF_ERR_ARGUMENT);
    CHECK(tf_model_run_window(model, scratch, bytes, x, -1, y[1]) == TF_ERR_ARGUMENT);
    CHECK(tf_model_run_window(model, scratch, bytes, NULL, 0, NULL) == TF_OK);
    free(x), free(y[0]), free(y[1]), free(scratch), free(weights);
    tf_model_free(twin);
}

#ifdef TF_TEST_EMULATED
enum { STEADY_STEPS = 500 };
#else
enum { STEADY_STEPS = 20000 };
#endif

static void test_no_allocation(const tf_model *model) {
    const size_t bytes = tf_model_session_bytes(model), saved = tf_session_state_bytes(model);
    void *memory = network_block_of(bytes), *second = network_block_of(bytes);
    char *state = malloc(saved);
    float *x = calloc(4 * (size_t)tf_model_input_size(model), sizeof *x);
    float *y = malloc(4 * (size_t)tf_model_output_size(model) * sizeof *y);
    double times[2][16];
    tf_session *session;
    unsigned seed = 5;
    const long before = atomic_load(&allocations);
    CHECK(tf_session_init(model, memory, bytes, &session) == TF_OK);
    for (int32_t t = 0; t < STEADY_STEPS; t++) step(model, session, &seed);
    CHECK(tf_session_save(model, session, state, saved) == TF_OK);
    CHECK(tf_session_load(model, session, state, saved) == TF_OK);
    CHECK(tf_model_run_window(model, second, bytes, x, 4, y) == TF_OK);
    CHECK(tf_session_time(model, session, x, 4, 16, state, saved, 1000, times[0], times[1]) == TF_OK);
    tf_session_reset(session);
    CHECK(atomic_load(&allocations) == before);
    for (int i = 0; i < 16; i++) CHECK(times[0][i] > 0 && times[1][i] > 0);
    CHECK(tf_session_time(model, session, x, 0, 16, NULL, 0, 0, times[0], times[1]) == TF_ERR_ARGUMENT);
    free(memory), free(second), free(state), free(x), free(y);
}

static void test_strangers(void) {
    tf_model *model, *stranger;
    tf_session *session;
    start(0, TF_FORMAT_F32);
    CHECK(tf_model_create(&n->net, TF_ISA_SCALAR, &model, NULL) == TF_OK);
    ((float *)n->node[3].bias)[0] += 1;
    CHECK(tf_model_create(&n->net, TF_ISA_SCALAR, &stranger, NULL) == TF_OK);
    CHECK(tf_model_hash(model) != tf_model_hash(stranger));
    const size_t bytes = tf_model_session_bytes(model), saved = tf_session_state_bytes(model);
    void *memory = network_block_of(bytes);
    char *state = malloc(saved);
    CHECK(tf_session_init(model, memory, bytes, &session) == TF_OK);
    CHECK(tf_session_save(model, session, state, saved) == TF_OK);
    CHECK(tf_session_save(stranger, session, state, saved) == TF_ERR_ARGUMENT);
    CHECK(tf_session_load(stranger, session, state, saved) == TF_ERR_ARGUMENT);
    CHECK(tf_session_init(stranger, memory, bytes, &session) == TF_OK);
    CHECK(tf_session_load(stranger, session, state, saved) == TF_ERR_FORMAT);
    tf_model_free(model), tf_model_free(stranger);
    free(memory), free(state);
}

/* A state saved on one instruction set goes on exactly on another, where all kernels agree to the bit. */
static void test_across_isas(void) {
    start(5, TF_FORMAT_I8);
    n->node[0].activation = n->node[1].activation = TF_ACT_RELU;
    n->node[2].activation = TF_ACT_NONE;
    tf_model *first;
    CHECK(tf_model_create(&n->net, TF_ISA_SCALAR, &first, NULL) == TF_OK);
    const size_t bytes = tf_model_session_bytes(first), saved = tf_session_state_bytes(first);
    char *memory[2] = {network_block_of(bytes), network_block_of(bytes)}, *state = malloc(saved);
    for (int isa = 1; isa < TF_ISA_COUNT; isa++) {
        tf_model *second;
        tf_session *session[2];
        unsigned seed[2] = {9, 9};
        if (!tf_isa_available((tf_isa)isa)) continue;
        CHECK(tf_model_create(&n->net, (tf_isa)isa, &second, NULL) == TF_OK);
        CHECK(tf_model_hash(first) == tf_model_hash(second) && tf_session_state_bytes(second) == saved);
        CHECK(tf_session_init(first, memory[0], bytes, &session[0]) == TF_OK);
        CHECK(tf_session_init(second, memory[1], bytes, &session[1]) == TF_OK);
        for (int32_t t = 0; t < 10; t++) step(first, session[0], &seed[0]);
        CHECK(tf_session_save(first, session[0], state, saved) == TF_OK);
        CHECK(tf_session_load(second, session[1], state, saved) == TF_OK);
        seed[1] = seed[0];
        step(first, session[0], &seed[0]), step(second, session[1], &seed[1]);
        CHECK(memcmp(tf_session_output(session[0]), tf_session_output(session[1]), 6 * sizeof(float)) == 0);
        tf_model_free(second);
    }
    free(memory[0]), free(memory[1]), free(state);
    tf_model_free(first);
}

/* The answer of a float LSTM and an int8 layer that reads the first `read` of its units, for an infinite input. The
 * units saturate; their padding lanes become NaN (0 times infinity), which nobody may read. With `nan_at` >= 0 that one
 * unit is NaN as well. */
static int answer_is_nan(int32_t format, int32_t units, int32_t read, int32_t nan_at, tf_isa isa) {
    start(0, format);
    n->net.count = 0;
    n->net.input = 1;
    int32_t x = network_lstm(n, units, units, TF_MODEL_INPUT);
    float *w = (float *)(uintptr_t)n->node[x].w.data;
    for (int32_t i = 0; i < 4 * units; i++) w[i] = i % units == nan_at ? 0.0f : 1.0f;
    if (read < units) {
        network_node(n, TF_OP_SLICE, read, x);
        x = n->net.output;
    }
    n->format = TF_FORMAT_I8;
    network_dense(n, 3, x, TF_ACT_NONE);
    tf_model *model;
    tf_session *session;
    CHECK(tf_model_create(&n->net, isa, &model, NULL) == TF_OK);
    const size_t bytes = tf_model_session_bytes(model);
    void *memory = network_block_of(bytes);
    CHECK(tf_session_init(model, memory, bytes, &session) == TF_OK);
    tf_session_input(session)[0] = INFINITY;
    tf_session_finish(model, session);
    const int answer = isnan(tf_session_output(session)[0]);
    free(memory);
    tf_model_free(model);
    return answer;
}

static void test_infinite_input(void) {
    for (int isa = 0; isa < TF_ISA_COUNT; isa++)
        for (int32_t format = TF_FORMAT_F32; format <= TF_FORMAT_BF16 && tf_isa_available((tf_isa)isa); format++) {
            for (int32_t units = 15; units <= 17; units++)
                CHECK(!answer_is_nan(format, units, units, -1, (tf_isa)isa));
            CHECK(!answer_is_nan(format, 20, 17, 18, (tf_isa)isa)); /* NaN that is not read */
            CHECK(answer_is_nan(format, 20, 17, 16, (tf_isa)isa));
            CHECK(answer_is_nan(format, 20, 20, 19, (tf_isa)isa));
        }
}

/* Numbers that are finite but make scores which are not: NaN in float, any answer at all in int8. */
static void test_scores_overflow(void) {
    tf_model *model;
    tf_fault fault;
    for (int32_t format = TF_FORMAT_F32; format <= TF_FORMAT_I8; format += TF_FORMAT_I8) {
        for (int32_t i = 0; i < 3; i++) {
            static const float SLOPE[3] = {3e38f, -1e38f, 1e37f}; /* times log2(e) and a window of 4 */
            start(0, format);
            n->net.count = 0;
            n->net.input = 8;
            network_attention(n, TF_MODEL_INPUT, TF_MODEL_INPUT, TF_MODEL_INPUT, 2, 2, 4, TF_POSITION_ALIBI);
            ((float *)(uintptr_t)n->node[0].extra)[1] = SLOPE[i];
            const tf_status status = tf_model_create(&n->net, TF_ISA_SCALAR, &model, &fault);
            CHECK(status == (i < 2 ? TF_ERR_NONFINITE : TF_OK));
            if (i < 2) CHECK(fault.node == 0 && strstr(fault.rule, "ALiBi") != NULL);
            tf_model_free(model);
        }
        n->node[0].value[3] = 1e35f; /* times log2(e), int8: times 2^14 dim, less the scales of q and k */
        n->node[0].value[0] = n->node[0].value[1] = 1.0f;
        CHECK(tf_model_create(&n->net, TF_ISA_SCALAR, &model, &fault) ==
              (format == TF_FORMAT_I8 ? TF_ERR_NONFINITE : TF_OK));
        tf_model_free(model);
    }
}

/* The angles of RoPE are weights, so their bits must not depend on a processor's or a C library's pow: the digest is
 * that of every machine. */
static void test_angles(void) {
    static const float BASE[5] = {1e-30f, 1.0f, 10000.0f, 1e6f, 3e38f};
    for (int i = 0; i < 5; i++) {
        tf_model *model;
        start(0, TF_FORMAT_F32);
        n->net.count = 0;
        n->net.input = 512;
        network_attention(n, TF_MODEL_INPUT, TF_MODEL_INPUT, TF_MODEL_INPUT, 1, 1, 4, TF_POSITION_ROPE);
        n->node[0].value[4] = BASE[i];
        CHECK(tf_model_create(&n->net, TF_ISA_SCALAR, &model, NULL) == TF_OK);
        CHECK(model->weight_bytes == 256 * sizeof(double));
        const double *turns = (const double *)(const void *)model->weights;
        for (int j = 0; j < 256; j++) {
            const long double truth = powl((long double)BASE[i], -2.0L * j / 512);
            CHECK(fabsl((long double)turns[j] - truth) <= 2e-14L * truth);
        }
        if (i == 2) CHECK(tf_digest(1, turns, 256 * sizeof *turns) == UINT64_C(0x66048ad4f7b63ec6));
        tf_model_free(model);
    }
}

static void test_facts(void) {
    tf_model *model;
    start(7, TF_FORMAT_F32); /* strided by 2, positions for 50 rows */
    CHECK(tf_model_create(&n->net, TF_ISA_SCALAR, &model, NULL) == TF_OK);
    CHECK(tf_model_period(model) == 2 && tf_model_max_steps(model) == 50 && tf_model_isa(model) == TF_ISA_SCALAR);
    tf_model_free(model);
    start(0, TF_FORMAT_F32);
    CHECK(tf_model_create(&n->net, TF_ISA_SCALAR, &model, NULL) == TF_OK);
    CHECK(tf_model_period(model) == 1 && tf_model_max_steps(model) == 0);
    tf_model_free(model);
    tf_model_free(NULL);
    unsigned char bytes[300];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)(i * 37);
    const uint64_t whole = tf_digest(1, bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof bytes * 8; i++) { /* every bit counts, and so do length and seed */
        bytes[i / 8] ^= (unsigned char)(1u << i % 8);
        CHECK(tf_digest(1, bytes, sizeof bytes) != whole);
        bytes[i / 8] ^= (unsigned char)(1u << i % 8);
    }
    CHECK(tf_digest(1, bytes, 299) != whole && tf_digest(2, bytes, 300) != whole && tf_digest(1, bytes, 300) == whole);
    bytes[299] = 0;
    CHECK(tf_digest(1, bytes, 300) != tf_digest(1, bytes, 299));
}

int main(void) {
    const long before = atomic_load(&allocations);
    void *volatile probe = malloc(1); /* volatile: or the pair would be optimised away */
    free(probe);
    CHECK(atomic_load(&allocations) == before + 2); /* the counter does count */
    CHECK(tf_isa_select(NULL) == TF_OK);
    test_refused_networks();
    test_refused_shapes();
    test_refused_weights();
    test_refused_sizes();
    test_random_descriptions();
    test_strangers();
    test_across_isas();
    test_facts();
    test_angles();
    test_infinite_input();
    test_scores_overflow();
    for (int32_t kind = 0; kind < NETWORK_KINDS; kind++)
        for (int32_t format = 0; format < NETWORK_FORMATS; format++) {
            tf_model *model;
            start(kind, format);
            CHECK(tf_model_create(&n->net, tf_isa_active(), &model, NULL) == TF_OK);
            test_states(model);
            test_packed(model);
            test_no_allocation(model);
            tf_model_free(model);
        }
    network_free(n);
    return done("test_nn");
}
