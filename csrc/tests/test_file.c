/* Compiled models: exact round trips on every instruction set, refusal of everything damaged, and survival of forged
 * files whose hashes are right.
 *
 * The last part draws random forgeries for TENGRI_FUZZ_SECONDS (1 when it is not set) from TENGRI_FUZZ_SEED (1). A
 * death names the case; TENGRI_FUZZ_CASE=N repeats it alone. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"
#include "networks.h"

#include "nn/file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

enum { STEPS = 40 };
static const char NOTE[] = "{\"name\": \"a note\", \"source\": \"test_file\"}";

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static char folder[64];
static const char *path_of(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static const char *write_file(const char *name, const void *data, size_t bytes) {
    const char *path = path_of(name);
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0) abort();
    return path;
}

static tf_model *create(const network *n, tf_isa isa) {
    tf_model *model = NULL;
    tf_fault fault = {0, ""};
    const tf_status status = tf_model_create(&n->net, isa, &model, &fault);
    CHECK(status == TF_OK);
    if (status != TF_OK) {
        printf("  %s: node %d: %s\n", n->name, (int)fault.node, fault.rule);
        exit(1);
    }
    return model;
}

/* A copy of exactly `bytes` on 64-byte alignment, so that AddressSanitizer sees the first byte read beyond it. */
static unsigned char *copy_of(const void *data, size_t bytes) {
    unsigned char *copy = NULL;
    if (posix_memalign((void **)&copy, 64, bytes > 0 ? bytes : 1) != 0) abort();
    if (bytes > 0) memcpy(copy, data, bytes);
    return copy;
}

static unsigned char *compile(const tf_model *model, size_t *bytes) {
    *bytes = tf_model_file_bytes(model, sizeof NOTE - 1);
    unsigned char *file = NULL;
    if (posix_memalign((void **)&file, 64, *bytes) != 0) abort();
    memset(file, 0xEE, *bytes);
    CHECK(tf_model_write(model, NOTE, sizeof NOTE - 1, file, *bytes) == TF_OK);
    return file;
}

/* STEPS answers of a session, with a save and load on the way. */
static void run(const tf_model *model, float *y) {
    const size_t in = (size_t)tf_model_input_size(model), out = (size_t)tf_model_output_size(model);
    const size_t bytes = tf_model_session_bytes(model), saved = tf_session_state_bytes(model);
    void *memory = network_block_of(bytes), *state = malloc(saved);
    tf_session *session = NULL;
    unsigned seed = 9;
    CHECK(state != NULL && tf_session_init(model, memory, bytes, &session) == TF_OK);
    for (int t = 0; t < STEPS; t++) {
        for (size_t i = 0; i < in; i++) tf_session_input(session)[i] = noise(&seed);
        tf_session_finish(model, session);
        memcpy(y + (size_t)t * out, tf_session_output(session), out * sizeof *y);
        tf_session_prepare(model, session);
        if (t == STEPS / 2) {
            CHECK(tf_session_save(model, session, state, saved) == TF_OK);
            tf_session_reset(session);
            CHECK(tf_session_load(model, session, state, saved) == TF_OK);
        }
    }
    free(memory), free(state);
}

static void test_round_trip(const network *n) {
    tf_model *first = create(n, TF_ISA_SCALAR);
    size_t bytes, other_bytes, note_bytes = 0;
    unsigned char *file = compile(first, &bytes);
    const size_t out = (size_t)tf_model_output_size(first);
    float *want = malloc(STEPS * out * sizeof *want), *got = malloc(STEPS * out * sizeof *got);
    CHECK(tf_model_note(first, &note_bytes)[0] == '\0' && note_bytes == 0);
    for (tf_isa isa = TF_ISA_SCALAR; isa < TF_ISA_COUNT; isa++) {
        tf_model *opened = (tf_model *)n;
        tf_fault fault = {7, "not touched"};
        if (!tf_isa_available(isa)) {
            CHECK(tf_model_open(file, bytes, isa, &opened, &fault) == TF_ERR_ISA && opened == NULL &&
                  fault.rule[0] != '\0');
            continue;
        }
        tf_model *created = create(n, isa);
        unsigned char *same = compile(created, &other_bytes);
        CHECK(other_bytes == bytes && memcmp(same, file, bytes) == 0); /* one file, whoever wrote it */
        const tf_status status = tf_model_open(file, bytes, isa, &opened, &fault);
        CHECK(status == TF_OK && fault.node == -1 && fault.rule[0] == '\0');
        if (status != TF_OK) {
            printf("  %s on %s: node %d: %s\n", n->name, tf_isa_name(isa), (int)fault.node, fault.rule);
            exit(1);
        }
        CHECK(tf_model_isa(opened) == isa && tf_model_hash(opened) == tf_model_hash(first));
        CHECK(tf_model_session_bytes(opened) == tf_model_session_bytes(created));
        CHECK(tf_session_state_bytes(opened) == tf_session_state_bytes(created));
        CHECK(tf_model_input_size(opened) == n->net.input && tf_model_output_size(opened) == (int32_t)out);
        CHECK(tf_model_period(opened) == tf_model_period(created) &&
              tf_model_max_steps(opened) == tf_model_max_steps(created));
        CHECK(strcmp(tf_model_note(opened, &note_bytes), NOTE) == 0 && note_bytes == sizeof NOTE - 1);
        run(created, want);
        run(opened, got);
        CHECK(memcmp(want, got, STEPS * out * sizeof *want) == 0);
        for (size_t i = 0; i < STEPS * out; i++) CHECK(isfinite(want[i]));
        CHECK(memcmp(want, want + (STEPS - 1) * out, out * sizeof *want) != 0); /* the answers move */
        memset(same, 0, bytes);
        CHECK(tf_model_write(opened, NOTE, sizeof NOTE - 1, same, bytes) == TF_OK && memcmp(same, file, bytes) == 0);
        tf_model_free(opened);
        tf_model_free(created);
        free(same);
    }
    free(want), free(got), free(file);
    tf_model_free(first);
}

static void test_arguments(const network *n) {
    tf_model *model = create(n, TF_ISA_SCALAR), *out = model;
    size_t bytes;
    unsigned char *file = compile(model, &bytes);
    tf_fault fault;
    CHECK(tf_model_file_bytes(NULL, 0) == 0 && tf_model_file_bytes(model, (64 << 10) + 1) == 0);
    CHECK(tf_model_file_bytes(model, SIZE_MAX) == 0);
    CHECK(tf_model_write(model, NOTE, sizeof NOTE - 1, file, bytes - 1) == TF_ERR_MEMORY);
    CHECK(tf_model_write(model, NOTE, (64 << 10) + 1, file, bytes) == TF_ERR_ARGUMENT);
    CHECK(tf_model_write(model, NULL, 1, file, bytes) == TF_ERR_ARGUMENT);
    CHECK(tf_model_write(model, NULL, 0, NULL, bytes) == TF_ERR_ARGUMENT);
    CHECK(tf_model_write(NULL, NULL, 0, file, bytes) == TF_ERR_ARGUMENT);
    CHECK(tf_model_open(NULL, bytes, TF_ISA_SCALAR, &out, &fault) == TF_ERR_ARGUMENT && out == NULL &&
          fault.node == -1);
    CHECK(tf_model_open(file, bytes, TF_ISA_SCALAR, NULL, NULL) == TF_ERR_ARGUMENT);
    CHECK(tf_model_open(file + 4, bytes - 4, TF_ISA_SCALAR, &out, &fault) == TF_ERR_ARGUMENT);
    CHECK(tf_model_load(NULL, TF_ISA_SCALAR, &out, &fault) == TF_ERR_ARGUMENT && fault.rule[0] != '\0');
    /* Without a note, and with the longest. */
    for (int i = 0; i < 2; i++) {
        const size_t length = i == 0 ? 0 : 64 << 10, whole = tf_model_file_bytes(model, length);
        char *note = malloc(length + 1);
        memset(note, 'n', length), note[length] = '\0';
        unsigned char *other = copy_of(file, 0);
        free(other);
        if (posix_memalign((void **)&other, 64, whole) != 0) abort();
        CHECK(tf_model_write(model, length ? note : NULL, length, other, whole) == TF_OK);
        CHECK(tf_model_open(other, whole, TF_ISA_SCALAR, &out, NULL) == TF_OK);
        size_t got = 1;
        CHECK(strcmp(tf_model_note(out, &got), note) == 0 && got == length && tf_model_note(out, NULL) != NULL);
        tf_model_free(out);
        free(other), free(note);
    }
    free(file);
    tf_model_free(model);
}

static tf_status open_copy(const void *data, size_t bytes, tf_fault *fault) {
    unsigned char *copy = copy_of(data, bytes);
    tf_model *model = NULL;
    const tf_status status = tf_model_open(copy, bytes, TF_ISA_SCALAR, &model, fault);
    CHECK((status == TF_OK) == (model != NULL));
    CHECK((status == TF_OK) == (fault->rule[0] == '\0'));
    tf_model_free(model);
    free(copy);
    return status;
}

static void refused(const void *data, size_t bytes, const char *words) {
    tf_fault fault = {0, ""};
    CHECK(open_copy(data, bytes, &fault) == TF_ERR_FORMAT);
    const int said = strstr(fault.rule, words) != NULL;
    CHECK(said);
    if (!said) printf("  expected \"%s\", was \"%s\"\n", words, fault.rule);
}

/* Every header field that a digest covers, so that a changed file is honest about its bytes. */
static void seal(unsigned char *file) {
    tf_file_header h;
    memcpy(&h, file, sizeof h);
    const size_t nodes = h.nodes > 0 && h.nodes <= TF_MAX_NODES ? (size_t)h.nodes : 0;
    const size_t text = sizeof h + nodes * sizeof(tf_plain);
    const size_t weights = (text + h.note_bytes + 1 + 63) / 64 * 64;
    if (h.bytes < weights || h.weight_bytes != h.bytes - weights) return; /* refused before any digest */
    h.model = tf_model_digest((const tf_plain *)(file + sizeof h), h.nodes, h.input, h.output, file + weights,
                              h.weight_bytes);
    h.check = tf_file_check(&h, file + text);
    memcpy(file, &h, sizeof h);
}

static void test_damage(const network *n) {
    tf_model *model = create(n, TF_ISA_SCALAR);
    size_t bytes;
    unsigned char *file = compile(model, &bytes);
    tf_fault fault;
    CHECK(open_copy(file, bytes, &fault) == TF_OK);
    const size_t dense = 128 + sizeof NOTE + 120 * (size_t)n->net.count; /* every byte of header, nodes and note */
    for (size_t i = 0; i < bytes; i += i < dense ? 1 : 37) {
        file[i] ^= (unsigned char)(1u << (i % 8));
        CHECK(open_copy(file, bytes, &fault) == TF_ERR_FORMAT);
        file[i] ^= (unsigned char)(1u << (i % 8));
    }
    for (size_t length = 0; length < bytes; length += length < dense ? 1 : 101)
        CHECK(open_copy(file, length, &fault) == TF_ERR_FORMAT);
    unsigned char *longer = copy_of(file, bytes);
    longer = realloc(longer, bytes + 64);
    memset(longer + bytes, 0, 64);
    refused(longer, bytes + 1, "truncated or appended");
    refused(longer, bytes + 64, "truncated or appended");
    free(longer);
    refused(file, 0, "empty");
    refused(file, 127, "truncated");
    refused(file, bytes - 64, "truncated or appended");

    unsigned char *bad = copy_of(file, bytes);
#define WITH(change, words)                                                                                            \
    do {                                                                                                               \
        tf_file_header *h = (tf_file_header *)bad;                                                                     \
        tf_plain *nodes = (tf_plain *)(bad + sizeof *h);                                                               \
        float *w = (float *)(bad + bytes - h->weight_bytes);                                                           \
        (void)nodes, (void)w;                                                                                          \
        change;                                                                                                        \
        seal(bad);                                                                                                     \
        refused(bad, bytes, words);                                                                                    \
        memcpy(bad, file, bytes);                                                                                      \
    } while (0)
    WITH(h->magic[1] = 't', "magic");
    WITH(h->order = 0x04030201, "byte order");
    WITH(h->version = TF_FILE_VERSION + 1, "format version");
    WITH(h->bytes += 64, "truncated or appended");
    WITH(h->nodes = 0, "1 to 1024 nodes");
    WITH(h->nodes = -1, "1 to 1024 nodes");
    WITH(h->nodes = INT32_MAX, "1 to 1024 nodes");
    WITH(h->nodes = TF_MAX_NODES, "fill the file");
    WITH(h->note_bytes = UINT32_MAX, "64 KiB");
    WITH(h->note_bytes += 64, "fill the file");
    WITH(h->weight_bytes = UINT64_MAX, "fill the file");
    WITH(h->weight_bytes -= 64, "fill the file");
    WITH(h->reserved[63] = 1, "reserved");
    WITH(bad[bytes - h->weight_bytes - 1] = 1, "padding");
    WITH(nodes[0].width += 16, ""); /* honest hash, another network: the size of its weights gives it away */
    WITH(nodes[0].input[0] = 5, "");
    WITH(nodes[0].input[0] = -2, "");
    WITH(h->input = -1, "");
    WITH(h->input = INT32_MAX, "");
    WITH(h->output = h->nodes, "");
    WITH(h->output = -1, "");
    WITH(w[0] = NAN, "finite");
    WITH(w[h->weight_bytes / 8] = INFINITY, "finite");
#undef WITH
    unsigned char *hash = bad + offsetof(tf_file_header, check);
    hash[3] ^= 16;
    refused(bad, bytes, "hash");
    free(bad), free(file);
    tf_model_free(model);
}

/* Weights that are no matrix are looked at as well: tables of positions (here without padding) and angles of RoPE. */
static void test_not_finite(network *n, int32_t rope) {
    network_build(n, 0, TF_FORMAT_F32, 1);
    n->net.count = 0;
    n->net.input = 16;
    if (rope) {
        network_attention(n, TF_MODEL_INPUT, TF_MODEL_INPUT, TF_MODEL_INPUT, 1, 1, 4, TF_POSITION_ROPE);
    } else {
        tf_node_desc *d = network_node(n, TF_OP_POSITION, 16, TF_MODEL_INPUT);
        d->size[0] = 4;
        d->extra = network_floats(n, 64, 1.0f, 0.0f);
    }
    tf_model *model = create(n, TF_ISA_SCALAR);
    size_t bytes;
    unsigned char *file = compile(model, &bytes);
    const uint64_t nan = UINT64_C(0x7FF800007FC00000); /* as a double and as two floats */
    const size_t weight_bytes = rope ? 8 * sizeof(double) : 64 * sizeof(float);
    for (size_t at = bytes - weight_bytes; at < bytes; at += sizeof nan) {
        unsigned char *bad = copy_of(file, bytes);
        memcpy(bad + at, &nan, sizeof nan);
        seal(bad);
        refused(bad, bytes, "finite");
        free(bad);
    }
    free(file);
    tf_model_free(model);
    network_free(n);
}

static tf_status load(const char *path, tf_fault *fault) {
    tf_model *model = NULL;
    const tf_status status = tf_model_load(path, tf_isa_active(), &model, fault);
    CHECK((status == TF_OK) == (model != NULL) && (status == TF_OK) == (fault->rule[0] == '\0'));
    tf_model_free(model);
    return status;
}

static int files_open(void) {
    int open_files = 0;
    for (int i = 0; i < 256; i++) open_files += fcntl(i, F_GETFD) != -1;
    return open_files;
}

static void test_paths(const network *n) {
    tf_model *model = create(n, tf_isa_active()), *loaded = NULL;
    const size_t out = (size_t)tf_model_output_size(model);
    float *want = malloc(STEPS * out * sizeof *want), *got = malloc(STEPS * out * sizeof *got);
    size_t bytes;
    unsigned char *file = compile(model, &bytes);
    tf_fault fault;
    const int before = files_open();
    const char *path = write_file("model.tgp", file, bytes);
    CHECK(tf_model_load(path, tf_isa_active(), &loaded, &fault) == TF_OK);
    CHECK(unlink(path) == 0); /* the model does not need the file any more */
    CHECK(strcmp(tf_model_note(loaded, NULL), NOTE) == 0);
    run(model, want);
    run(loaded, got);
    CHECK(memcmp(want, got, STEPS * out * sizeof *want) == 0);
    tf_model_free(loaded);

    CHECK(load(path, &fault) == TF_ERR_ARGUMENT && strstr(fault.rule, "`path`") != NULL && errno == ENOENT);
    CHECK(load(folder, &fault) == TF_ERR_ARGUMENT && strstr(fault.rule, "regular file") != NULL);
    CHECK(load(write_file("empty.tgp", file, 0), &fault) == TF_ERR_FORMAT && strstr(fault.rule, "empty") != NULL);
    unlink(path_of("empty.tgp"));
    CHECK(load(write_file("short.tgp", file, bytes - 1), &fault) == TF_ERR_FORMAT &&
          strstr(fault.rule, "truncated") != NULL);
    unlink(path_of("short.tgp"));
    CHECK(mkfifo(path_of("pipe"), 0600) == 0);
    CHECK(load(path_of("pipe"), &fault) == TF_ERR_ARGUMENT && strstr(fault.rule, "regular file") != NULL);
    unlink(path_of("pipe"));
    CHECK(files_open() == before);
    free(want), free(got), free(file);
    tf_model_free(model);
}

/* More than 8 MiB: mapped, not read. */
static void test_mapped(network *n) {
    network_build(n, 5, TF_FORMAT_F32, 1);
    n->net.count = 0;
    n->net.input = 64;
    network_dense(n, 3, network_dense(n, 1600, network_dense(n, 1600, TF_MODEL_INPUT, TF_ACT_TANH), TF_ACT_TANH),
                  TF_ACT_NONE);
    tf_model *model = create(n, tf_isa_active()), *loaded = NULL;
    size_t bytes;
    unsigned char *file = compile(model, &bytes);
    float want[STEPS * 3], got[STEPS * 3];
    tf_fault fault;
    CHECK(bytes > 8 << 20);
    const char *path = write_file("large.tgp", file, bytes);
    CHECK(tf_model_load(path, tf_isa_active(), &loaded, &fault) == TF_OK && loaded != NULL);
    run(model, want);
    run(loaded, got);
    CHECK(memcmp(want, got, sizeof want) == 0);
    tf_model_free(loaded);
    file[bytes / 2] ^= 1;
    CHECK(load(write_file("large.tgp", file, bytes), &fault) == TF_ERR_FORMAT && strstr(fault.rule, "hash") != NULL);
    unlink(path_of("large.tgp"));
    free(file);
    tf_model_free(model);
    network_free(n);
}

/* -- forgeries
 * -------------------------------------------------------------------------------------------------------- */

static unsigned fuzz_seed = 1;
static volatile unsigned fuzz_case;

/* Whoever ends the process says in which case: AddressSanitizer, UndefinedBehaviorSanitizer, or without them a signal.
 */
static void name_case(void) {
    fprintf(stderr, "test_file: TENGRI_FUZZ_SEED=%u TENGRI_FUZZ_CASE=%u\n", fuzz_seed, fuzz_case);
}
#if defined(__SANITIZE_ADDRESS__)
void __ubsan_on_report(void);
void __ubsan_on_report(void) { name_case(); }
static void watch(void) { __sanitizer_set_death_callback(name_case); }
#else
static void on_signal(int number) {
    name_case();
    signal(number, SIG_DFL);
    raise(number);
}
static void watch(void) {
    static const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    for (size_t i = 0; i < sizeof SIGNALS / sizeof *SIGNALS; i++) signal(SIGNALS[i], on_signal);
}
#endif

static uint32_t draw(uint64_t *state) { /* splitmix64 */
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return (uint32_t)((z ^ z >> 31) >> 32);
}

static int32_t hostile(uint64_t *random) {
    static const int32_t VALUES[] = {0,       1,       -1,        2,         3,     7,     15,      16,
                                     17,      31,      32,        63,        64,    65,    127,     255,
                                     256,     1023,    1024,      4096,      65535, 65536, 1 << 20, (1 << 20) + 1,
                                     1 << 24, 1 << 30, INT32_MAX, INT32_MIN, -2,    -16};
    return VALUES[draw(random) % (sizeof VALUES / sizeof *VALUES)];
}

static float hostile_float(uint64_t *random) {
    static const float VALUES[] = {0.0f,    -0.0f,    1.0f,  -1.0f, 1e-45f, 1e-38f,
                                   3.4e38f, -3.4e38f, 1e-8f, 1e8f,  0.5f,   127.0f};
    const uint32_t which = draw(random) % 16;
    if (which < sizeof VALUES / sizeof *VALUES) return VALUES[which];
    return which == 12 ? NAN : which == 13 ? INFINITY : which == 14 ? -INFINITY : (float)draw(random) * 1e-9f;
}

/* One change. Sizes of the file stay what the header says unless the header itself is the target. */
static void forge(unsigned char *file, size_t bytes, uint64_t *random) {
    tf_file_header *h = (tf_file_header *)file;
    tf_plain *nodes = (tf_plain *)(file + sizeof *h);
    const size_t weights = bytes - (size_t)h->weight_bytes, count = (size_t)h->nodes;
    if (weights > bytes || count == 0 || sizeof *h + count * sizeof *nodes > bytes)
        return; /* an earlier change was enough */
    tf_plain *node = &nodes[draw(random) % count];
    switch (draw(random) % 12) {
    case 0: node->op = (int32_t)(draw(random) % 16); break;
    case 1: node->format = (int32_t)(draw(random) % 7) - 1; break;
    case 2: node->activation = (int32_t)(draw(random) % 11) - 1; break;
    case 3:
        node->width = draw(random) % 2 ? hostile(random) : (int32_t)((uint32_t)node->width + draw(random) % 33 - 16);
        break;
    case 4: node->inputs = draw(random) % 4 ? (int32_t)(draw(random) % 10) : hostile(random); break;
    case 5:
        node->input[draw(random) % TF_MAX_INPUTS] =
            draw(random) % 3 ? (int32_t)(draw(random) % (count + 2)) - 1 : hostile(random);
        break;
    case 6: node->size[draw(random) % 8] = draw(random) % 2 ? hostile(random) : (int32_t)(draw(random) % 40); break;
    case 7: node->value[draw(random) % 8] = hostile_float(random); break;
    case 8: node->has = draw(random) % 2 ? draw(random) % 32 : draw(random); break;
    case 9: { /* any bytes of the weights: scales, corrections, tables */
        if (h->weight_bytes < 64) break;
        const size_t at = weights + draw(random) % (size_t)(h->weight_bytes - 16);
        for (int i = 0; i < 16; i++) file[at + (size_t)i] = (unsigned char)draw(random);
        break;
    }
    case 10: {
        if (h->weight_bytes < 64) break;
        const float value = hostile_float(random);
        memcpy(file + weights + draw(random) % (size_t)(h->weight_bytes / 4) * 4, &value, 4);
        break;
    }
    default:
        switch (draw(random) % 4) {
        case 0:
            h->input = draw(random) % 2 ? hostile(random) : (int32_t)((uint32_t)h->input + draw(random) % 17 - 8);
            break;
        case 1: h->output = draw(random) % 2 ? hostile(random) : (int32_t)(draw(random) % count); break;
        case 2: h->nodes = (int32_t)(1 + draw(random) % count); break;
        default: h->note_bytes = draw(random) % 256; break;
        }
        break;
    }
}

/* An accepted forgery must step, save and load, whatever its numbers are. */
static void exercise(const tf_model *model, uint64_t *random) {
    const size_t bytes = tf_model_session_bytes(model), saved = tf_session_state_bytes(model);
    if (bytes > 16 << 20) return;
    unsigned char *memory = NULL, *state = malloc(saved);
    if (posix_memalign((void **)&memory, 64, bytes) != 0 || state == NULL) abort();
    tf_session *session = NULL;
    CHECK(tf_session_init(model, memory, bytes, &session) == TF_OK);
    const int32_t in = tf_model_input_size(model);
    for (int t = 0; t < 5; t++) {
        for (int32_t i = 0; i < in; i++)
            tf_session_input(session)[i] =
                draw(random) % 16 ? (float)draw(random) * 1e-9f - 2.0f : hostile_float(random);
        tf_session_finish(model, session);
        tf_session_prepare(model, session);
        if (t == 2) {
            CHECK(tf_session_save(model, session, state, saved) == TF_OK);
            CHECK(tf_session_load(model, session, state, saved) == TF_OK);
        }
    }
    free(memory), free(state);
}

static void fuzz(double seconds) {
    static unsigned char *base[NETWORK_KINDS * NETWORK_FORMATS];
    static size_t length[NETWORK_KINDS * NETWORK_FORMATS];
    static network n;
    enum { BASES = NETWORK_KINDS * NETWORK_FORMATS };
    for (int32_t i = 0; i < BASES; i++) {
        network_build(&n, i / NETWORK_FORMATS, i % NETWORK_FORMATS, 1);
        tf_model *model = create(&n, TF_ISA_SCALAR);
        base[i] = compile(model, &length[i]);
        tf_model_free(model);
        network_free(&n);
    }
    const char *seed = getenv("TENGRI_FUZZ_SEED"), *only = getenv("TENGRI_FUZZ_CASE");
    if (seed != NULL) fuzz_seed = (unsigned)strtoul(seed, NULL, 10);
    fuzz_case = only != NULL ? (unsigned)strtoul(only, NULL, 10) : 0;
    watch();
    unsigned accepted = 0, rejected = 0, slowest_case = 0;
    double slowest = 0.0;
    for (const double end = now() + seconds; now() < end || (accepted == 0 && rejected == 0); fuzz_case++) {
        uint64_t random = (uint64_t)fuzz_seed << 32 | fuzz_case;
        const uint32_t which = draw(&random) % BASES;
        size_t bytes = length[which];
        unsigned char *file = copy_of(base[which], bytes);
        const uint32_t kind = draw(&random) % 8;
        if (kind == 0) { /* a part of it, honest about its size */
            bytes = draw(&random) % bytes / 64 * 64;
            unsigned char *part = copy_of(file, bytes);
            free(file);
            file = part;
            if (bytes >= sizeof(tf_file_header)) {
                tf_file_header *h = (tf_file_header *)file;
                const size_t gone = length[which] - bytes;
                h->bytes = bytes;
                h->weight_bytes -= h->weight_bytes < gone ? h->weight_bytes : gone;
            }
        } else if (kind == 1) { /* any bytes, no honest hash */
            for (uint32_t i = 1 + draw(&random) % 8; i > 0; i--)
                file[draw(&random) % bytes] = (unsigned char)draw(&random);
        } else {
            for (uint32_t i = 1 + draw(&random) % 3; i > 0; i--) forge(file, bytes, &random);
        }
        if (kind != 1 && bytes >= sizeof(tf_file_header) && ((tf_file_header *)file)->bytes == bytes) seal(file);
        tf_model *model = NULL;
        tf_fault fault;
        const tf_isa isa = draw(&random) % 4 ? TF_ISA_SCALAR : tf_isa_active();
        const double start = now();
        const tf_status status = tf_model_open(file, bytes, isa, &model, &fault);
        const double took = now() - start;
        if (took > slowest) slowest = took, slowest_case = fuzz_case;
        CHECK(status == TF_OK || status == TF_ERR_FORMAT || status == TF_ERR_MEMORY);
        CHECK((status == TF_OK) == (model != NULL));
        if (status == TF_OK) exercise(model, &random), accepted++;
        else rejected++;
        tf_model_free(model);
        free(file);
        if (only != NULL) break;
    }
    printf("test_file: fuzz seed %u: %u forgeries, %u accepted and run, slowest open %.2f ms (case %u)\n", fuzz_seed,
           accepted + rejected, accepted, 1e3 * slowest, slowest_case);
    if (only == NULL) CHECK(accepted > 0 && rejected > 0);
    for (int32_t i = 0; i < BASES; i++) free(base[i]);
}

int main(void) {
    static network n;
    const char *seconds = getenv("TENGRI_FUZZ_SECONDS");
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%.32s/test_file_XXXXXX", parent != NULL && strlen(parent) <= 32 ? parent : "/tmp");
    if (mkdtemp(folder) == NULL) abort();
    CHECK(tf_isa_select(NULL) == TF_OK);
    for (int32_t kind = 0; kind < NETWORK_KINDS; kind++)
        for (int32_t format = 0; format < NETWORK_FORMATS; format++) {
            network_build(&n, kind, format, 1);
            test_round_trip(&n);
            network_free(&n);
        }
    for (int32_t format = 0; format < NETWORK_FORMATS; format += TF_FORMAT_I8) {
        network_build(&n, 0, format, 1);
        if (format == TF_FORMAT_F32) test_damage(&n);
        test_arguments(&n);
        test_paths(&n);
        network_free(&n);
    }
    test_not_finite(&n, 0);
    test_not_finite(&n, 1);
    test_mapped(&n);
    CHECK(rmdir(folder) == 0);
    fuzz(seconds != NULL ? strtod(seconds, NULL) : 1.0);
    return done("test_file");
}
