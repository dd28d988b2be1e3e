/* The compiler: node descriptions to programs, session layout and weight layout (plan.h).
 *
 * It walks the nodes several times with the same code. Early walks only measure: which rows must be kept for the next
 * step (the first walk), how long the regions of session and weights are (the second); the last one has a place for
 * everything and writes the programs and, when there are source weights, packs them. A walk's decisions depend on the
 * descriptions and on what earlier walks found, never on addresses.
 *
 * Nodes on which the answer does not depend are left out.
 *
 * A walk emits the finish program of all nodes first, then push and derive, so that a derive product can use the int8
 * copy of a row that finish made. Instructions are joined where a kernel does both at once (tf_code.tail): ReLU, an
 * addition, and the int8 copy of what a product has just written. */
#ifndef TF_NN_COMPILE_H
#define TF_NN_COMPILE_H

#include "check.h"

enum { TF_CRITICAL = 0, TF_LATER = 1, TF_AREAS = 2 };

/* Where a packed row comes from: row of the source (-1: zeros), column of the packed row at which it begins, factor. */
typedef struct tf_pick {
    int32_t row, column;
    double factor;
} tf_pick;
typedef struct tf_pick_rule {
    tf_pick (*pick)(const struct tf_pick_rule *rule, int32_t row);
    int32_t a, b, c, d;
} tf_pick_rule;

/* An int8 copy of a row, or of `copies` slices of it, `step` floats apart. */
typedef struct tf_bytes {
    int32_t root;            /* node whose storage the row lies in, -1: the model's input */
    uint32_t offset;         /* bytes from the start of that storage */
    int32_t n, copies, step, format;
    float scale;
    uint32_t at, each;       /* in the session; bytes of one slice's copy */
    int32_t shared;          /* made by finish at the row's period: whoever comes later can use it */
    int32_t kept;            /* found by the first walk */
} tf_bytes;

typedef struct tf_node_place {
    uint32_t at;        /* of the row, in the session */
    int32_t root;       /* whose storage it lies in */
    uint32_t offset;    /* bytes from the start of that storage */
    int32_t uses;       /* how many nodes read the row; the answer counts as one more */
    int32_t period;     /* a new row every so many steps */
    int32_t alias;      /* 1 + the concat node whose row this one is a part of; 0: none */
    uint32_t alias_offset;
    uint8_t live;       /* the answer depends on it; no other node is compiled */
    uint8_t kept, dead; /* dead: joined into its only reader, has no storage */
    uint32_t state[4];  /* offsets of what the node keeps beside its row, from finish to derive emission */
    int32_t bytes[2];   /* int8 copies, likewise */
    uint16_t ring;
} tf_node_place;

typedef struct tf_program_draft {
    tf_code *code;
    int32_t count, room;
    int32_t skip;              /* 1 + index of the open TF_DO_SKIP, 0: none */
    uint32_t period, phase;    /* of what is being emitted */
    int32_t joinable;          /* the last instruction may still be joined */
} tf_program_draft;

typedef struct tf_compiler {
    const tf_plain *nodes;
    const tf_node_desc *source; /* weights to pack; NULL: they are packed already */
    int32_t count, input, output;
    int32_t walk, node;         /* the present walk and node */
    tf_node_place *place;
    tf_program_draft program[TF_PROGRAMS];
    tf_bytes *bytes;
    int32_t bytes_count, bytes_room;
    tf_ring *ring;              /* [3 count] */
    int32_t rings;
    uint32_t cursors;           /* offset of their cursors in the session */
    tf_attention *attention;    /* [count] */
    int32_t attentions;
    uint64_t *traffic;          /* [count][2] */
    uint64_t region[2], region_at[2]; /* bytes and start of the scratch [0] and the kept [1] region */
    uint64_t area[TF_AREAS], area_at[TF_AREAS];
    char *weights;              /* NULL until the last walk */
    int32_t quantised;
    tf_status status;
    tf_fault fault;
} tf_compiler;

/* Each returns at once when something has failed already (status). */
void tf_fail(tf_compiler *c, tf_status status, const char *rule);
uint32_t tf_reserve(tf_compiler *c, int kept, uint64_t bytes);              /* of the session; its offset */
void *tf_weights_reserve(tf_compiler *c, int area, uint64_t bytes);         /* of the weights; NULL while measuring */
void tf_when(tf_compiler *c, tf_program program, uint32_t period, uint32_t phase);
tf_code *tf_emit(tf_compiler *c, tf_program program, tf_code code); /* valid until the next emission, never NULL */
tf_code *tf_joinable(tf_compiler *c);                               /* last of finish, if it is a product; or NULL */
void tf_keep(tf_compiler *c, int32_t input);                                /* the row outlives finish */
uint16_t tf_new_ring(tf_compiler *c, uint64_t slot, uint64_t slots, int32_t period, uint32_t fill);

uint32_t tf_row_at(const tf_compiler *c, int32_t input);
int32_t tf_row_period(const tf_compiler *c, int32_t input);
/* Index of the int8 copy of a row (and its emission, unless there is one): made in `program`. May move c->bytes. */
int32_t tf_row_bytes(tf_compiler *c, tf_program program, int32_t input, int32_t n, int32_t copies, int32_t step,
                     int32_t format, float scale);
int32_t tf_scratch_bytes(tf_compiler *c, tf_program program, uint32_t at, int32_t n, int32_t format, float scale);
uint64_t tf_bytes_size(int32_t n, int32_t format);

/* A matrix of `rows` x k, packed for the node's format; src_k columns in the source, whose rows begin at row
 * `first`. */
typedef struct tf_packed {
    const void *w;
    const float *scale;
} tf_packed;
tf_packed tf_pack_matrix(tf_compiler *c, int area, const tf_matrix *source, int64_t first, int32_t src_k, int32_t rows,
                         int32_t k, float input_scale, const tf_pick_rule *rule);
const float *tf_pack_vector(tf_compiler *c, int area, const float *source, int32_t rows, const tf_pick_rule *rule);
const tf_node_desc *tf_source(const tf_compiler *c); /* of the present node, or NULL */

tf_pick_rule tf_pick_rows(int32_t rows);                                   /* row -> row */
/* Order and factors of lstm_f32.h and gru_f32.h. */
tf_pick_rule tf_pick_lstm(int32_t hidden, int32_t format);
tf_pick_rule tf_pick_gru(int32_t hidden, int32_t first_gate, int32_t format);
tf_pick_rule tf_pick_groups(int32_t rows, int32_t group_rows, int32_t group_k); /* block diagonal */

void tf_activate(tf_compiler *c, uint32_t from, uint32_t to, int32_t n);   /* the node's activation */

void tf_finish_recurrent(tf_compiler *c);
void tf_derive_recurrent(tf_compiler *c);
void tf_finish_product(tf_compiler *c); /* DENSE and CONV */
void tf_derive_conv(tf_compiler *c);
void tf_finish_attention(tf_compiler *c);
void tf_derive_attention(tf_compiler *c);
void tf_finish_other(tf_compiler *c);
void tf_derive_pool(tf_compiler *c);

/* Compiles checked descriptions into a model whose weights are packed from `source`, or borrowed when it is NULL. */
tf_status tf_compile(const tf_plain *nodes, int32_t count, int32_t input, int32_t output, const tf_node_desc *source,
                     const void *weights, size_t weight_bytes, tf_isa isa, tf_model **out, tf_fault *fault);

#endif
