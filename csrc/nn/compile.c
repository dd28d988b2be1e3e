/* The walks of the compiler, and the places of rows. See compile.h. */
#define _DEFAULT_SOURCE
#include "compile.h"

#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

enum {
    HUGE_PAGE = 2 << 20,
    HUGE_FROM = 512 << 10, /* below, 4 KiB pages stay in the TLB anyway */
    STAYS_BYTES = 28 << 10, /* these three: of weights, for a first cache of 32 KiB */
    WARM_BYTES = 24 << 10,
    WORTH_BYTES = 256 << 10,
    FIRST_CODE = 64,
    FIRST_BYTES = 16,
    RINGS_PER_NODE = 3, /* its own and the int8 copies of its input and of its state */
    MAX_CODE = 1 << 20,
    WALKS = 3
};
#define MAX_SESSION (UINT64_C(1) << 31) /* offsets have 32 bits, and while measuring each region has half of them */
#define MAX_WEIGHTS (UINT64_C(1) << 40)

static uint64_t lines(uint64_t bytes) { return (bytes + TF_LINE - 1) / TF_LINE * TF_LINE; }

void tf_fail(tf_compiler *c, tf_status status, const char *rule) {
    if (c->status != TF_OK) return;
    c->status = status;
    c->fault = (tf_fault){c->node, rule};
}

uint32_t tf_reserve(tf_compiler *c, int kept, uint64_t bytes) {
    const uint64_t at = c->region[kept];
    if (bytes >= MAX_SESSION || at + bytes >= MAX_SESSION) {
        tf_fail(c, TF_ERR_MEMORY, "a session would need more than 2 GiB");
        return 0;
    }
    c->region[kept] = at + lines(bytes);
    return (uint32_t)(c->region_at[kept] + at);
}

void *tf_weights_reserve(tf_compiler *c, int area, uint64_t bytes) {
    const uint64_t at = c->area[area];
    if (bytes >= MAX_WEIGHTS || at + bytes >= MAX_WEIGHTS) {
        tf_fail(c, TF_ERR_MEMORY, "the weights would need more than 1 TiB");
        return NULL;
    }
    c->area[area] = at + lines(bytes);
    c->traffic[2 * c->node + area] += bytes;
    return c->weights != NULL ? c->weights + c->area_at[area] + at : NULL;
}

const tf_node_desc *tf_source(const tf_compiler *c) { return c->source != NULL ? &c->source[c->node] : NULL; }

/* -- programs
 * ------------------------------------------------------------------------------------------------------- */

static void close_skip(tf_program_draft *p) {
    if (p->skip != 0) p->code[p->skip - 1].rows = p->count - p->skip;
    p->skip = 0;
}

tf_code *tf_emit(tf_compiler *c, tf_program program, tf_code code) {
    tf_program_draft *p = &c->program[program];
    if (p->count == p->room) {
        const int32_t room = 2 * p->room;
        tf_code *grown = room <= MAX_CODE ? realloc(p->code, (size_t)room * sizeof *grown) : NULL;
        if (grown != NULL) {
            p->code = grown;
            p->room = room;
        } else { /* goes on in the same place, to no effect: the compiler has failed */
            tf_fail(c, TF_ERR_MEMORY, "the network needs too many instructions");
            p->count = 0;
            p->skip = 0;
        }
    }
    code.node = (uint16_t)c->node;
    p->code[p->count] = code;
    p->joinable = 1;
    return &p->code[p->count++];
}

void tf_when(tf_compiler *c, tf_program program, uint32_t period, uint32_t phase) {
    tf_program_draft *p = &c->program[program];
    if (p->period == period && p->phase == phase) return;
    close_skip(p);
    p->period = period;
    p->phase = phase;
    if (period > 1) {
        tf_emit(c, program, (tf_code){.what = TF_DO_SKIP, .x = period, .c = phase});
        p->skip = p->count;
    }
    p->joinable = 0;
}

tf_code *tf_joinable(tf_compiler *c) {
    const tf_program_draft *p = &c->program[TF_FINISH];
    if (!p->joinable || p->count == 0) return NULL;
    tf_code *last = &p->code[p->count - 1];
    return last->what == TF_DO_GEMV || last->what == TF_DO_LSTM ? last : NULL;
}

uint16_t tf_new_ring(tf_compiler *c, uint64_t slot, uint64_t slots, int32_t period, uint32_t fill) {
    if (slots >= MAX_SESSION || slot >= MAX_SESSION) {
        tf_fail(c, TF_ERR_MEMORY, "a session would need more than 2 GiB");
        return 1;
    }
    tf_ring *ring = &c->ring[c->rings];
    *ring = (tf_ring){.slot = (uint32_t)slot,
                      .slots = (uint32_t)slots,
                      .period = (uint32_t)period,
                      .fill = fill,
                      .bytes = slot * slots};
    ring->first = tf_reserve(c, 1, ring->bytes);
    ring->cursor = c->cursors + (uint32_t)c->rings * (uint32_t)sizeof(uint32_t);
    return (uint16_t)++c->rings;
}

/* -- rows
 * ----------------------------------------------------------------------------------------------------------- */

uint32_t tf_row_at(const tf_compiler *c, int32_t input) {
    return input == TF_MODEL_INPUT ? (uint32_t)offsetof(tf_session, input) : c->place[input].at;
}

int32_t tf_row_period(const tf_compiler *c, int32_t input) {
    return input == TF_MODEL_INPUT ? 1 : c->place[input].period;
}

void tf_keep(tf_compiler *c, int32_t input) {
    if (input != TF_MODEL_INPUT) c->place[c->place[input].root].kept = 1;
}

uint64_t tf_bytes_size(int32_t n, int32_t format) {
    return lines((uint64_t)n) * (format == TF_FORMAT_I8A16 ? 2 : 1);
}

static int32_t new_bytes(tf_compiler *c, tf_bytes bytes) {
    if (c->bytes_count == c->bytes_room) {
        const int32_t room = 2 * c->bytes_room;
        tf_bytes *grown = realloc(c->bytes, (size_t)room * sizeof *grown);
        if (grown == NULL) {
            tf_fail(c, TF_ERR_MEMORY, "out of memory");
            return -1;
        }
        c->bytes = grown;
        c->bytes_room = room;
    }
    tf_bytes *slot = &c->bytes[c->bytes_count];
    bytes.kept = c->walk > 0 ? slot->kept : 0;
    const uint64_t each = tf_bytes_size(bytes.n, bytes.format);
    bytes.each = (uint32_t)each;
    /* A slice of a row is read in fours, up to three bytes beyond it. */
    const uint64_t whole = each * (uint64_t)bytes.copies + (bytes.format == TF_FORMAT_I8 ? TF_LINE : 0);
    if (bytes.kept) { /* a ring of one slot: reset fills it with quantised zeros, which derive may read at once */
        const uint16_t ring = tf_new_ring(c, whole, 1, 1, bytes.format == TF_FORMAT_I8 ? TF_FILL_I8 : TF_FILL_I8A16);
        c->ring[ring - 1].plane = (uint32_t)(each / 2);
        bytes.at = c->ring[ring - 1].first;
    } else {
        bytes.at = tf_reserve(c, 0, whole);
    }
    *slot = bytes;
    return c->bytes_count++;
}

static void emit_bytes(tf_compiler *c, tf_program program, const tf_bytes *bytes, uint32_t at) {
    c->quantised = 1;
    const float inverse = 1.0f / bytes->scale;
    tf_code *last = program == TF_FINISH && bytes->format == TF_FORMAT_I8 ? tf_joinable(c) : NULL;
    if (last != NULL && last->y == at && !(last->tail & TF_TAIL_QUANTIZE) && tf_code_n(last) == bytes->n) {
        last->tail |= TF_TAIL_QUANTIZE;
        last->q = bytes->at;
        last->value = inverse;
        return;
    }
    for (int32_t i = 0; i < bytes->copies; i++)
        tf_emit(c, program, (tf_code){.what = TF_DO_QUANTIZE,
                                      .format = (uint8_t)bytes->format,
                                      .x = at + (uint32_t)(i * bytes->step) * 4u,
                                      .y = bytes->at + (uint32_t)i * bytes->each,
                                      .k = bytes->n,
                                      .value = inverse});
}

int32_t tf_row_bytes(tf_compiler *c, tf_program program, int32_t input, int32_t n, int32_t copies, int32_t step,
                     int32_t format, float scale) {
    const int32_t root = input == TF_MODEL_INPUT ? -1 : c->place[input].root;
    const uint32_t offset = input == TF_MODEL_INPUT ? 0 : c->place[input].offset;
    for (int32_t i = 0; i < c->bytes_count; i++) {
        tf_bytes *b = &c->bytes[i];
        if (b->shared && b->root == root && b->offset == offset && b->n == n && b->copies == copies &&
            b->step == step && b->format == format && !(b->scale < scale) && !(b->scale > scale)) {
            if (program != TF_FINISH) b->kept = 1;
            return i;
        }
    }
    tf_bytes fresh = {.root = root, .offset = offset, .n = n, .copies = copies, .step = step,
                      .format = format, .scale = scale, .shared = program == TF_FINISH};
    const int32_t index = new_bytes(c, fresh);
    if (index < 0) return 0;
    if (program == TF_FINISH) tf_when(c, program, (uint32_t)tf_row_period(c, input), 0);
    emit_bytes(c, program, &c->bytes[index], tf_row_at(c, input));
    return index;
}

int32_t tf_scratch_bytes(tf_compiler *c, tf_program program, uint32_t at, int32_t n, int32_t format, float scale) {
    const tf_bytes fresh = {.root = -1, .n = n, .copies = 1, .format = format, .scale = scale};
    const int32_t index = new_bytes(c, fresh);
    if (index < 0) return 0;
    emit_bytes(c, program, &c->bytes[index], at);
    return index;
}

/* -- what is known before the first walk
 * ---------------------------------------------------------------------------- */

static uint64_t common_multiple(uint64_t a, uint64_t b) {
    uint64_t x = a, y = b;
    while (y != 0) {
        const uint64_t rest = x % y;
        x = y;
        y = rest;
    }
    return a / x * b;
}

static uint64_t row_floats(const tf_compiler *c, int32_t index) {
    const tf_plain *node = &c->nodes[index];
    uint64_t floats = ((uint64_t)node->width + 15) / 16 * 16;
    if (node->op == TF_OP_CONV) { /* the last slice writes whole vectors */
        tf_conv conv;
        tf_conv_shape(node, tf_width_of(c->nodes, node->input[0], c->input), &conv);
        floats = (uint64_t)(conv.count - 1) * (uint64_t)conv.y_step + ((uint64_t)conv.rows + 15) / 16 * 16;
        if (floats < ((uint64_t)node->width + 15) / 16 * 16) floats = ((uint64_t)node->width + 15) / 16 * 16;
    }
    return floats;
}

/* A part of a concatenated row that can be written there at once: on whole vectors, as often as the row itself. */
static void alias_parts(tf_compiler *c, int32_t index) {
    const tf_plain *node = &c->nodes[index];
    uint64_t at = 0;
    for (int32_t i = 0; i < node->inputs; i++) {
        const int32_t part = node->input[i];
        const int32_t width = tf_width_of(c->nodes, part, c->input);
        if (part != TF_MODEL_INPUT && at % 16 == 0 && (width % 16 == 0 || i == node->inputs - 1) &&
            c->place[part].alias == 0 && c->place[part].period == c->place[index].period &&
            c->nodes[part].op != TF_OP_SLICE && c->nodes[part].op != TF_OP_CONCAT &&
            row_floats(c, part) == ((uint64_t)width + 15) / 16 * 16) {
            c->place[part].alias = index + 1;
            c->place[part].alias_offset = (uint32_t)(at * 4);
        }
        at += (uint64_t)width;
    }
}

static void analyse(tf_compiler *c) {
    c->place[c->output].live = 1;
    for (int32_t i = c->count - 1; i >= 0; i--)
        for (int32_t j = 0; j < c->nodes[i].inputs && c->place[i].live; j++)
            if (c->nodes[i].input[j] != TF_MODEL_INPUT) c->place[c->nodes[i].input[j]].live = 1;
    for (int32_t i = 0; i < c->count; i++) {
        const tf_plain *node = &c->nodes[i];
        uint64_t period = 1;
        if (!c->place[i].live) continue;
        c->node = i;
        for (int32_t j = 0; j < node->inputs; j++) {
            period = common_multiple(period, (uint64_t)tf_row_period(c, node->input[j]));
            if (node->input[j] != TF_MODEL_INPUT) c->place[node->input[j]].uses++;
            if (period > TF_MAX_PERIOD) break;
        }
        if (node->op == TF_OP_CONV) period *= (uint64_t)node->size[2];
        if (period > TF_MAX_PERIOD) {
            tf_fail(c, TF_ERR_SHAPE, "the product of the strides must be at most 2^30");
            return;
        }
        c->place[i].period = (int32_t)period;
        if (node->op == TF_OP_CONCAT) alias_parts(c, i);
    }
    if (c->status != TF_OK) return;
    c->place[c->output].uses++;
    for (int32_t i = 0; i < c->count; i++) {
        tf_node_place *place = &c->place[i];
        const tf_plain *node = &c->nodes[i];
        place->root = i;
        if (place->alias != 0) {
            place->root = place->alias - 1;
            place->offset = place->alias_offset;
        } else if (node->op == TF_OP_SLICE && node->input[0] != TF_MODEL_INPUT) {
            place->root = c->place[node->input[0]].root;
            place->offset = c->place[node->input[0]].offset + (uint32_t)node->size[0] * 4u;
        }
    }
    c->place[c->place[c->output].root].kept = 1;
}

/* -- a walk
 * --------------------------------------------------------------------------------------------------------- */

static void place_rows(tf_compiler *c) {
    for (int32_t i = 0; i < c->count; i++) {
        c->node = i;
        tf_node_place *place = &c->place[i];
        const int own = place->root == i && place->live && !place->dead;
        place->at = own ? tf_reserve(c, place->kept, row_floats(c, i) * 4) : 0;
    }
    for (int32_t i = 0; i < c->count; i++) {
        tf_node_place *place = &c->place[i];
        if (place->root != i) place->at = c->place[place->root].at + place->offset;
    }
}

static void finish_node(tf_compiler *c) {
    tf_when(c, TF_FINISH, (uint32_t)c->place[c->node].period, 0);
    switch (c->nodes[c->node].op) {
    case TF_OP_LSTM:
    case TF_OP_GRU: tf_finish_recurrent(c); break;
    case TF_OP_DENSE:
    case TF_OP_CONV: tf_finish_product(c); break;
    case TF_OP_ATTENTION: tf_finish_attention(c); break;
    default: tf_finish_other(c); break;
    }
}

static void derive_node(tf_compiler *c) {
    switch (c->nodes[c->node].op) {
    case TF_OP_LSTM:
    case TF_OP_GRU: tf_derive_recurrent(c); break;
    case TF_OP_CONV: tf_derive_conv(c); break;
    case TF_OP_ATTENTION: tf_derive_attention(c); break;
    case TF_OP_POOL: tf_derive_pool(c); break;
    default: break;
    }
}

static void walk(tf_compiler *c, int32_t number) {
    const uint64_t cursors = (uint64_t)(number < WALKS - 1 ? RINGS_PER_NODE * c->count : c->rings) * sizeof(uint32_t);
    c->walk = number;
    memset(c->region, 0, sizeof c->region);
    memset(c->area, 0, sizeof c->area);
    c->cursors = tf_reserve(c, 0, cursors);
    c->bytes_count = c->rings = c->attentions = 0;
    memset(c->traffic, 0, 2 * (size_t)c->count * sizeof *c->traffic);
    for (int32_t i = 0; i < TF_PROGRAMS; i++) {
        tf_program_draft *p = &c->program[i];
        *p = (tf_program_draft){.code = p->code, .room = p->room, .period = 1};
    }
    place_rows(c);
    for (int32_t i = 0; i < c->count && c->status == TF_OK; i++) {
        c->node = i;
        if (c->place[i].live) finish_node(c);
    }
    for (int32_t i = 0; i < c->count && c->status == TF_OK; i++) {
        c->node = i;
        if (c->place[i].live) derive_node(c);
    }
    for (int32_t i = 0; i < TF_PROGRAMS; i++) close_skip(&c->program[i]);
}

/* -- the model
 * ------------------------------------------------------------------------------------------------------ */

static void *allocate(size_t bytes) {
#ifdef __linux__
    if (bytes >= HUGE_FROM) {
        const size_t whole = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
        void *memory = aligned_alloc(HUGE_PAGE, whole);
        /* A wish: without huge pages the model works all the same. */
        if (memory != NULL) (void)madvise(memory, whole, MADV_HUGEPAGE);
        return memory;
    }
#endif
    return aligned_alloc(TF_LINE, (size_t)lines(bytes));
}

/* The block of a model: the struct, its tables, and behind them the weights unless they are borrowed. */
static tf_model *new_model(tf_compiler *c, const void *weights, size_t weight_bytes) {
    size_t at[7], total = (size_t)lines(sizeof(tf_model));
    const size_t sizes[7] = {
        (size_t)c->program[0].count * sizeof(tf_code), (size_t)c->program[1].count * sizeof(tf_code),
        (size_t)c->program[2].count * sizeof(tf_code), (size_t)c->count * sizeof(tf_plain),
        (size_t)c->rings * sizeof(tf_ring),            (size_t)c->attentions * sizeof(tf_attention),
        2 * (size_t)c->count * sizeof(uint64_t),
    };
    for (int i = 0; i < 7; i++) {
        at[i] = total;
        total += (size_t)lines(sizes[i]);
    }
    char *block = allocate(weights == NULL ? total + weight_bytes : total);
    if (block == NULL) return NULL;
    memset(block, 0, weights == NULL ? total + weight_bytes : total);
    tf_model *model = (tf_model *)block;
    for (int i = 0; i < TF_PROGRAMS; i++) {
        model->code[i] = (const tf_code *)(block + at[i]);
        model->code_count[i] = c->program[i].count;
    }
    model->nodes = (const tf_plain *)(block + at[3]);
    model->ring = (const tf_ring *)(block + at[4]);
    model->attention = (const tf_attention *)(block + at[5]);
    model->traffic = (const uint64_t *)(block + at[6]);
    model->weights = weights != NULL ? weights : block + total;
    model->weight_bytes = weight_bytes;
    model->plan_bytes = total;
    return model;
}

/* How much of the weights of finish is worth fetching at the end of prepare. Nothing when all weights stay in the first
 * cache anyway, when finish reads so much that the beginning hardly counts, or when it is busy with arithmetic rather
 * than waiting for weights, as it is when they must be widened or multiplied twice. */
static size_t warm_bytes(const tf_model *model) {
    if (model->weight_bytes <= STAYS_BYTES || model->finish_bytes > WORTH_BYTES) return 0;
    for (int32_t i = 0; i < model->code_count[TF_FINISH]; i++) {
        const tf_code *code = &model->code[TF_FINISH][i];
        if ((code->what == TF_DO_GEMV || code->what == TF_DO_LSTM) && code->format != TF_FORMAT_F32 &&
            code->format != TF_FORMAT_I8)
            return 0;
    }
    return model->finish_bytes < WARM_BYTES ? model->finish_bytes : WARM_BYTES;
}

static void complete(tf_compiler *c, tf_model *model, tf_isa isa) {
    for (int i = 0; i < TF_PROGRAMS; i++)
        if (model->code_count[i] > 0)
            memcpy((void *)model->code[i], c->program[i].code, (size_t)model->code_count[i] * sizeof(tf_code));
    memcpy((void *)model->nodes, c->nodes, (size_t)c->count * sizeof(tf_plain));
    if (c->rings > 0) memcpy((void *)model->ring, c->ring, (size_t)c->rings * sizeof(tf_ring));
    if (c->attentions > 0)
        memcpy((void *)model->attention, c->attention, (size_t)c->attentions * sizeof(tf_attention));
    memcpy((void *)model->traffic, c->traffic, 2 * (size_t)c->count * sizeof(uint64_t));
    model->kernels = tf_kernels_of(isa);
    model->isa = isa;
    model->input = c->input;
    model->output = c->nodes[c->output].width;
    model->output_node = c->output;
    model->output_at = c->place[c->output].at;
    model->period = c->place[c->output].period;
    model->count = c->count;
    model->rings = c->rings;
    model->attentions = c->attentions;
    model->quantised = c->quantised;
    model->finish_bytes = (size_t)c->area[TF_CRITICAL];
    model->warm_bytes = warm_bytes(model);
    model->kept_at = (size_t)c->region_at[1];
    model->kept_bytes = (size_t)c->region[1];
    model->session_bytes = (size_t)(c->region_at[0] + c->region[0]);
    for (int32_t i = 0; i < c->count; i++) {
        if (c->nodes[i].op != TF_OP_POSITION || !c->place[i].live) continue;
        const int64_t steps = (int64_t)c->nodes[i].size[0] * c->place[i].period;
        const int32_t most = steps > INT32_MAX ? INT32_MAX : (int32_t)steps;
        if (model->max_steps == 0 || most < model->max_steps) model->max_steps = most;
    }
}

static tf_model *compile(tf_compiler *c, const void *weights, size_t weight_bytes, tf_isa isa) {
    const uint64_t kept_at = lines(sizeof(tf_session) + (uint64_t)c->input * sizeof(float));
    tf_model *model = NULL;
    analyse(c);
    for (int32_t number = 0; number < WALKS && c->status == TF_OK; number++) {
        c->region_at[1] = kept_at;
        c->region_at[0] = number < WALKS - 1 ? MAX_SESSION : kept_at + c->region[1];
        if (number == WALKS - 1) {
            const uint64_t session = kept_at + c->region[0] + c->region[1], total = c->area[0] + c->area[1];
            c->node = -1;
            if (session >= MAX_SESSION) tf_fail(c, TF_ERR_MEMORY, "a session would need more than 2 GiB");
            if (weights != NULL && weight_bytes != total)
                tf_fail(c, TF_ERR_FORMAT, "the weights must have exactly the size that the nodes need");
            if (c->status != TF_OK) break;
            model = new_model(c, weights, (size_t)total);
            if (model == NULL) {
                tf_fail(c, TF_ERR_MEMORY, "out of memory");
                break;
            }
            c->weights = (char *)model->weights;
            c->area_at[TF_CRITICAL] = 0;
            c->area_at[TF_LATER] = c->area[TF_CRITICAL];
        }
        walk(c, number);
    }
    if (c->status != TF_OK) {
        free(model);
        return NULL;
    }
    complete(c, model, isa);
    return model;
}

tf_status tf_compile(const tf_plain *nodes, int32_t count, int32_t input, int32_t output, const tf_node_desc *source,
                     const void *weights, size_t weight_bytes, tf_isa isa, tf_model **out, tf_fault *fault) {
    const size_t n = (size_t)count;
    tf_compiler c = {.nodes = nodes, .source = source, .count = count, .input = input, .output = output, .node = -1};
    c.place = calloc(n, sizeof *c.place);
    c.ring = calloc(RINGS_PER_NODE * n, sizeof *c.ring);
    c.attention = calloc(n, sizeof *c.attention);
    c.traffic = calloc(2 * n, sizeof *c.traffic);
    c.bytes = malloc(FIRST_BYTES * sizeof *c.bytes);
    c.bytes_room = FIRST_BYTES;
    if (c.place == NULL || c.ring == NULL || c.attention == NULL || c.traffic == NULL || c.bytes == NULL)
        tf_fail(&c, TF_ERR_MEMORY, "out of memory");
    for (int i = 0; i < TF_PROGRAMS; i++) {
        c.program[i].room = FIRST_CODE;
        c.program[i].code = malloc(FIRST_CODE * sizeof(tf_code));
        if (c.program[i].code == NULL) tf_fail(&c, TF_ERR_MEMORY, "out of memory");
    }
    *out = c.status == TF_OK ? compile(&c, weights, weight_bytes, isa) : NULL;
    free(c.place);
    free(c.ring);
    free(c.attention);
    free(c.traffic);
    free(c.bytes);
    for (int i = 0; i < TF_PROGRAMS; i++) free(c.program[i].code);
    if (fault != NULL) *fault = c.status == TF_OK ? (tf_fault){-1, ""} : c.fault;
    return c.status;
}
