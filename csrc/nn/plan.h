/* Inside a model and a session: what the files of this folder share beyond the public header.
 *
 * A network is compiled into three straight programs of 64-byte instructions (tf_code):
 *
 *     finish   what needs the new input row
 *     push     what keeps the new rows for later (rings), after the answer has left
 *     derive   what the next finish can already have: R h, older taps, masks, angles, pooled rows
 *
 * finish(x) runs the first, prepare runs the other two. Everything that derive computes is a function of the kept state
 * (h, c, rings), the cursors of the rings and the number of steps, so reset and load run derive alone and nothing it
 * makes has to be saved.
 *
 * A session is one block, addressed by byte offsets from its start:
 *
 *     tf_session | input row | kept region: state, rings, the answer | scratch region: all other rows, cursors
 *
 * The kept region is what a saved state holds, as it stands. Rows are float32, on 64 bytes, with room for a multiple of
 * 16.
 *
 * Weights are one area: those of finish in execution order, then those of derive. Layout of weights and session and the
 * programs follow from the plain node descriptions (tf_plain) alone, by one deterministic compiler, the same on every
 * instruction set. So a compiled file holds descriptions and weights and no offset that could lie: opening it checks
 * the descriptions as creation does, compiles them, and demands that the weight area has exactly the computed size.
 *
 * For whoever runs a program in another way (batches, teams): walk model->code[program] in order. TF_DO_GEMV and
 * TF_DO_LSTM are where the weights are read and worth sharing (after the product, and for LSTM the gates, call tf_tail
 * when code->tail is not 0); hand every other instruction to tf_run, one at a time. The operands are tf_code_x,
 * tf_code_base, tf_code_corr and tf_code_y; tf_step_begin, tf_step_end and tf_prepare_end keep the books of a session.
 * With model->period > 1 there are TF_DO_SKIP instructions, whose outcome depends on the session's steps. */
#ifndef TF_NN_PLAN_H
#define TF_NN_PLAN_H

#include "kernels.h"

enum { TF_LINE = 64, TF_HAS_BIAS = 1, TF_HAS_RBIAS = 2, TF_HAS_EXTRA = 4, TF_HAS_PROJECTION = 8 };

/* A tf_node_desc without its pointers: 120 bytes, no padding. `has` says which optional arrays there are. */
typedef struct tf_plain {
    int32_t op, format, activation, width, inputs;
    int32_t input[TF_MAX_INPUTS];
    int32_t size[8];
    float value[8];
    uint32_t has;
} tf_plain;

typedef enum tf_do {
    TF_DO_SKIP = 0,      /* unless (steps + c) % x == 0, leaves out the next `rows` instructions */
    TF_DO_QUANTIZE,      /* y = bytes of x [k], value = 1 / scale; format I8 or I8A16 */
    TF_DO_GEMV,          /* y = base + w x, rows, k; x may be a slot of a ring */
    TF_DO_LSTM,          /* gates of base + w x; c and y = h in place; rows = blocks of 16 units */
    TF_DO_GRU_GATES,     /* x = zx, base = zh, y = h in place; rows = blocks */
    TF_DO_GRU_RESET,     /* x = zx, base = zh, c = h, y = r h */
    TF_DO_GRU_LATE,      /* as GRU_GATES, zh_n made from r h */
    TF_DO_RELU,          /* y = f(x), k */
    TF_DO_TANH,
    TF_DO_SIGMOID,
    TF_DO_LEAKY_RELU,    /* value = slope */
    TF_DO_GELU,
    TF_DO_GELU_TANH,
    TF_DO_SILU,
    TF_DO_SOFTMAX,       /* rows groups of k each */
    TF_DO_ADD,           /* y = x + base, k */
    TF_DO_MUL,
    TF_DO_MAX,
    TF_DO_TAP,           /* y = base + w x by element, k; x may be a slot of a ring */
    TF_DO_LAYERNORM,     /* w = gamma, bias = beta or NULL, value = epsilon */
    TF_DO_RMSNORM,
    TF_DO_COPY,          /* y = x, k bytes */
    TF_DO_STORE,         /* the ring's slot at the cursor = x, k bytes */
    TF_DO_ADVANCE,       /* the ring's cursor moves on */
    TF_DO_POSITION,      /* y = x + row min(t, rows - 1) of w, k; t = rows seen before at period c */
    TF_DO_POOL_SUM,      /* y = sum of the ring's rows in order of age, oldest first, k */
    TF_DO_POOL_MAX,
    TF_DO_MEAN,          /* y = x / min(rows seen, rows), k; period c */
    TF_DO_ANGLES,        /* y = cos, sin of the next row's angles; w = frequencies (double), k pairs; period c */
    TF_DO_MASK,          /* bias of attention number `rows` for the next row */
    TF_DO_ATTEND         /* all of attention number `rows` for the newest row */
} tf_do;

/* One instruction, one cache line. Pointers go into the weight area or to a side table of the model; x, y, base, c are
 * byte offsets in the session. */
typedef struct tf_code {
    const void *w;
    const float *scale; /* int8: of each row, the input's scale included; tf_code_corr stands behind it */
    const float *bias;  /* base, when it is a weight; NULL: base is in the session */
    uint32_t x;         /* with a ring: how many slots before the cursor, and c bytes into the slot */
    uint32_t y, base, c;
    int32_t rows, k;
    uint32_t q;         /* tail: also quantises y to here (value = 1 / scale), I8; 0: does not */
    uint8_t what;       /* tf_do */
    uint8_t format;     /* tf_format */
    uint8_t tail;       /* TF_TAIL_... bits: what GEMV and LSTM do to y afterwards */
    uint8_t spare;      /* LSTM: padding lanes at the end of y. They may hold NaN, so the tail leaves them out */
    uint16_t ring;      /* 1 + index of the ring that x lies in, 0: none */
    uint16_t node;
    float value;
} tf_code;
/* y = base + w x;  LOG2E: y *= log2(e), for 16-bit GRU weights (gru_f32.h);  RELU: y = max(y, 0);  ADD: y += row at c;
 * RELU_LATE: y = max(y, 0);  QUANTIZE: q = bytes of y */
enum { TF_TAIL_RELU = 1, TF_TAIL_RELU_LATE = 2, TF_TAIL_ADD = 4, TF_TAIL_QUANTIZE = 8, TF_TAIL_LOG2E = 16 };

static inline int tf_is_half(int32_t format) { return format == TF_FORMAT_F16 || format == TF_FORMAT_BF16; }

/* Rows kept for later. The cursor (uint32_t in the session at `cursor`) is the slot of the next row: rows seen % slots.
 * It moves by one in push and is recomputed from the step counter on load, so no saved byte is ever an index. */
typedef struct tf_ring {
    uint32_t cursor, first; /* byte offsets in the session */
    uint32_t slot;          /* bytes from slot to slot */
    uint32_t slots;
    uint32_t period;        /* a row every so many steps */
    uint32_t fill;          /* of empty slots: TF_FILL_ZERO, ... */
    uint32_t plane;         /* TF_FILL_I8A16: bytes of one plane */
    uint64_t bytes;         /* of the whole ring; 0: only a cursor */
} tf_ring;
enum { TF_FILL_ZERO = 0, TF_FILL_I8 = 1, TF_FILL_I8A16 = 2, TF_FILL_LOWEST = 3 };

typedef struct tf_attention {
    const float *slopes;                            /* ALiBi, [heads]; else NULL */
    uint32_t q, k, v, y;                            /* rows */
    uint32_t keys, values, corr;                    /* the rings of attend_f32.h or attend_i8.h; corr only of int8 */
    uint32_t bias, p, turned_q, turned_k, query;    /* mask, scratch; query: the int8 copy of q */
    uint32_t angles;                                /* RoPE: cos, sin [dim / 2][2] */
    int32_t heads, kv_heads, dim, value_dim, window, slots, position, format;
    uint32_t period, cursor;                        /* steps from row to row; byte offset of the ring's cursor */
    int32_t node;
    float scale;                                    /* of scores, times log2(e), int8: times the scales of q and k */
    float inverse[3], value;                        /* int8: 1 / scale of q, k, v; scale of v */
} tf_attention;

typedef enum tf_program { TF_FINISH = 0, TF_PUSH = 1, TF_DERIVE = 2, TF_PROGRAMS = 3 } tf_program;

struct tf_model {
    const tf_kernels *kernels;
    const tf_code *code[TF_PROGRAMS];
    int32_t code_count[TF_PROGRAMS];
    tf_isa isa;
    uint32_t output_at;              /* byte offset of the answer */
    int32_t input, output;           /* widths */
    int32_t period, max_steps, count, output_node, rings, attentions;
    int32_t quantised;               /* some instruction reads int8: a NaN raises session->nan */
    const tf_plain *nodes;           /* [count] */
    const tf_ring *ring;
    const tf_attention *attention;
    const uint64_t *traffic;         /* [count][2]: bytes of weights of finish, of derive */
    const char *weights;             /* 64-byte aligned */
    size_t weight_bytes, finish_bytes; /* finish_bytes: where the weights of derive begin */
    size_t warm_bytes;               /* of the weights of finish, from the first on: what prepare fetches for it */
    size_t session_bytes, kept_at, kept_bytes;
    uint64_t hash;                   /* tf_model_digest */
    size_t plan_bytes;               /* this struct and all it points to except the weights and the note */
    /* Set by whoever opened a file; zero for a created model. tf_model_free calls `release` first. */
    void (*release)(struct tf_model *model);
    void *mapping;
    size_t mapping_bytes;
    const char *note;
    size_t note_bytes;
};

struct tf_session {
    const tf_model *model;
    uint64_t steps;      /* finishes since reset */
    int32_t prepared;    /* push and derive have run for the last finish */
    int32_t nan;         /* sticky: an int8 node has read a NaN */
    uint32_t output_at;
    char padding[TF_LINE - sizeof(void *) - 8 - 12];
    float input[];
};

/* Digest of descriptions and packed weights (digest.c): 64 bits, more than 5 GB/s. */
uint64_t tf_digest(uint64_t seed, const void *data, size_t bytes);
uint64_t tf_model_digest(const tf_plain *nodes, int32_t count, int32_t input, int32_t output, const void *weights,
                         size_t weight_bytes);

/* The rules of tengri/nn.h for descriptions: shapes, formats, scales, order, sizes. Any bytes are safe to pass. */
tf_status tf_plain_check(const tf_plain *nodes, int32_t count, int32_t input, int32_t output, tf_fault *fault);

/* A model over weights that are packed already, as a compiled file holds them: checks the descriptions, compiles,
 * demands that `weight_bytes` is exactly what was computed and that no integer in them can overflow a sum. `weights`
 * (64-byte aligned) is borrowed for the model's life. `hash` is stored as it is: the caller compares it with
 * tf_model_digest. */
tf_status tf_model_from_plain(const tf_plain *nodes, int32_t count, int32_t input, int32_t output, const void *weights,
                              size_t weight_bytes, uint64_t hash, tf_isa isa, tf_model **out, tf_fault *fault);

/* Runs `count` instructions on one session. t = index of the step they belong to (derive and push: the one that
 * finished last). `all` runs what TF_DO_SKIP would leave out. */
void tf_run(const tf_model *model, tf_session *session, const tf_code *code, int32_t count, uint64_t t, int all);

/* The tail of a GEMV or LSTM whose product (and gates) were computed elsewhere: what code->tail says, on the row y. */
void tf_tail(const tf_model *model, tf_session *session, const tf_code *code);

/* The books of one session around the programs; tf_session_finish is begin, the finish program at t = steps, end. */
static inline int tf_step_begin(const tf_session *session) { return session->prepared; } /* 0: prepare first */
void tf_step_end(const tf_model *model, tf_session *session); /* steps, NaN of int8, no longer prepared */
static inline void tf_prepare_end(tf_session *session) { session->prepared = 1; }

static inline void *tf_at(tf_session *session, uint32_t offset) { return (char *)session + offset; }
static inline const void *tf_at_const(const tf_session *session, uint32_t offset) {
    return (const char *)session + offset;
}

/* Slot `back` before the cursor, 0 <= back <= slots (back = slots is the slot that the next row will replace). */
static inline void *tf_ring_slot(const tf_ring *ring, tf_session *session, uint32_t back) {
    const uint32_t cursor = *(const uint32_t *)tf_at_const(session, ring->cursor);
    const uint32_t slot = cursor >= back ? cursor - back : cursor + ring->slots - back;
    return (char *)session + ring->first + (size_t)slot * ring->slot;
}
static inline const void *tf_code_x(const tf_model *model, const tf_code *code, tf_session *session) {
    if (code->ring == 0) return tf_at(session, code->x);
    return (const char *)tf_ring_slot(&model->ring[code->ring - 1], session, code->x) + code->c;
}
static inline const float *tf_code_base(const tf_code *code, tf_session *session) {
    return code->bias != NULL ? code->bias : tf_at(session, code->base);
}
/* Corrections of int8 rows (gemv_i8.h) stand right behind their scales. */
static inline const int32_t *tf_code_corr(const tf_code *code) {
    const int32_t rows = code->what == TF_DO_LSTM ? code->rows * 64 : (code->rows + 15) / 16 * 16;
    return (const int32_t *)(code->scale + rows);
}
static inline float *tf_code_y(const tf_code *code, tf_session *session) { return tf_at(session, code->y); }
/* Elements of y that mean something. Behind an LSTM's there may be NaN: 0 times an infinite input. */
static inline int32_t tf_code_n(const tf_code *code) {
    return code->what == TF_DO_LSTM ? code->rows * 16 - code->spare : code->rows;
}

#endif
