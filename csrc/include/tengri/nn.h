/* Streaming networks: an immutable model, a mutable session, one arena each.
 *
 * A network is a list of nodes in topological order. Every node yields one row of floats per step and reads rows of
 * earlier nodes or the model's input row. All nodes are causal. */
#ifndef TENGRI_NN_H
#define TENGRI_NN_H

#include "isa.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tf_op {
    TF_OP_LSTM = 1,
    TF_OP_GRU = 2,
    TF_OP_DENSE = 3,
    TF_OP_CONV = 4,
    TF_OP_ATTENTION = 5,
    TF_OP_NORM = 6,
    TF_OP_AFFINE = 7,
    TF_OP_ACTIVATION = 8,
    TF_OP_ADD = 9,
    TF_OP_MUL = 10,
    TF_OP_CONCAT = 11,
    TF_OP_SLICE = 12,
    TF_OP_POOL = 13,
    TF_OP_POSITION = 14
} tf_op;

typedef enum tf_activation {
    TF_ACT_NONE = 0,
    TF_ACT_RELU = 1,
    TF_ACT_TANH = 2,
    TF_ACT_SIGMOID = 3,
    TF_ACT_SOFTMAX = 4,
    TF_ACT_LEAKY_RELU = 5,
    TF_ACT_GELU = 6,      /* x Phi(x), by erf */
    TF_ACT_GELU_TANH = 7, /* its tanh approximation */
    TF_ACT_SILU = 8
} tf_activation;

/* Number format of a node's weights (and, for the last two, of its inputs). Accumulators, gates, norms and biases are
 * float32 or int32 throughout. */
typedef enum tf_format {
    TF_FORMAT_F32 = 0,
    TF_FORMAT_F16 = 1,   /* IEEE binary16 weights, float32 arithmetic */
    TF_FORMAT_BF16 = 2,  /* bfloat16 weights, float32 arithmetic */
    TF_FORMAT_I8 = 3,    /* int8 weights with a scale per output row, int8 inputs with one scale */
    TF_FORMAT_I8A16 = 4  /* int8 weights with a scale per output row, int16 inputs with one scale */
} tf_format;

typedef enum tf_norm { TF_NORM_LAYER = 0, TF_NORM_RMS = 1 } tf_norm;
typedef enum tf_pool { TF_POOL_MEAN = 0, TF_POOL_MAX = 1, TF_POOL_SUM = 2 } tf_pool;
typedef enum tf_position {
    TF_POSITION_NONE = 0,
    TF_POSITION_ROPE = 1,             /* pairs (i, i + dim / 2) */
    TF_POSITION_ROPE_INTERLEAVED = 2, /* pairs (2 i, 2 i + 1) */
    TF_POSITION_ALIBI = 3
} tf_position;

enum { TF_MAX_INPUTS = 8, TF_MODEL_INPUT = -1, TF_MAX_NODES = 1024 };

/* A weight matrix, row major. float32 for F32, F16 and BF16 nodes (rounded to nearest even when it is packed); int8 in
 * [-127, 127] with `scale` (one positive float per row) for I8 and I8A16 nodes. */
typedef struct tf_matrix {
    const void *data;
    const float *scale;
} tf_matrix;

/* One node; everything it points to is borrowed during tf_model_create only. `size` and `value` by operation:
 *
 * LSTM       w [4H][in], r [4H][width], bias [4H] (sum of both biases), gates i, f, g, o; size[0] = H. With a
 *            projection p [width][H] (else p.data is NULL and width = H).
 * GRU        w [3H][in], r [3H][H], bias [3H], rbias [3H], gates r, z, n; size[0] = H = width; size[1] = 1: the reset
 *            gate acts on R_n h + rbias_n (PyTorch; linear_before_reset), 0: on h.
 * DENSE      w [width][in], bias.
 * CONV       causal in time. Input row [levels][channels], output row [out_levels][out_channels]. size: [0] taps,
 *            [1] dilation, [2] stride, [3] groups, [4] levels, [5] level kernel, [6] level stride;
 *            out_levels = (levels - kernel) / stride + 1; a plain Conv1d has levels = kernel = stride = 1. groups > 1
 *            needs levels = 1. w [taps][out_channels][kernel * channels / groups], tap 0 on the newest row (int8: a
 *            scale per tap and output channel); bias [out_channels].
 *            Rows before the first are zero. With a stride the node yields a new row at steps 0, stride, 2 stride ...
 * ATTENTION  inputs q [heads * dim], k [kv_heads * dim], v [kv_heads * value_dim]; causal, over the last size[2] rows
 *            that were seen, the newest included. size: [0] heads, [1] kv_heads, [2] window, [3] tf_position. value:
 *            [3] scale of scores (usually 1 / sqrt(dim)), [4] base of RoPE. extra: slopes of ALiBi [heads] (score -
 *            slope * age). format I8 keeps keys and values as int8: value [0] scale of q, [1] of k, [2] of v.
 * NORM       size[0] tf_norm; value[3] epsilon; extra gamma [width], bias beta [width] or NULL.
 * AFFINE     y = extra x + bias, by element.
 * ACTIVATION activation of the input; DENSE, CONV, ADD, MUL, AFFINE and NORM apply theirs to their own output.
 * ADD, MUL   of two rows.
 * CONCAT     of up to TF_MAX_INPUTS rows.
 * SLICE      width floats from size[0] on.
 * POOL       over the last size[0] rows; size[1] tf_pool; mean: size[2] = 1 divides by the rows seen so far until there
 *            are size[0], 0 always by size[0].
 * POSITION   adds row min(t, size[0] - 1) of extra [size[0]][width], t = rows of its input since reset.
 *
 * Activations: SOFTMAX runs over size[7] groups of equal width (0 means one); LEAKY_RELU has slope value[7].
 * Scales of int8 inputs: value[0] of the input row, value[1] of an LSTM's or GRU's own state, value[2] of what enters
 * p. */
typedef struct tf_node_desc {
    int32_t op;
    int32_t format;
    int32_t activation;
    int32_t width; /* of the output row */
    int32_t inputs;
    int32_t input[TF_MAX_INPUTS]; /* index of an earlier node, or TF_MODEL_INPUT */
    int32_t size[8];
    float value[8];
    tf_matrix w, r, p;
    const float *bias, *rbias, *extra;
} tf_node_desc;

typedef struct tf_network {
    const tf_node_desc *nodes;
    int32_t count;
    int32_t input;  /* width of the input row */
    int32_t output; /* the node whose row is the answer */
} tf_network;

/* What a refused network or file broke: the node (or -1) and the rule, a fixed English sentence. */
typedef struct tf_fault {
    int32_t node;
    const char *rule;
} tf_fault;

typedef struct tf_model tf_model;
typedef struct tf_session tf_session; /* position independent inside its block: memcpy to an aligned block is a copy */

/* All or nothing; `fault` may be NULL. Nodes on which the answer does not depend are checked and then left out. A
 * missing bias means zeros. A session may need at most 2 GiB. A model keeps its instruction set for life, so that its
 * answers do not change under it; tf_isa_active() is the usual choice, TF_ERR_ISA says that this machine cannot run
 * `isa`. */
tf_status tf_model_create(const tf_network *network, tf_isa isa, tf_model **out, tf_fault *fault);
void tf_model_free(tf_model *model);
tf_isa tf_model_isa(const tf_model *model);
uint64_t tf_model_hash(const tf_model *model); /* of shapes, formats and weights, the same on every instruction set */
int32_t tf_model_input_size(const tf_model *model);
int32_t tf_model_output_size(const tf_model *model);
/* Steps between two new answers: the product of the strides on the way, the lowest common multiple of several ways. */
int32_t tf_model_period(const tf_model *model);
int32_t tf_model_max_steps(const tf_model *model);    /* steps after reset for which positions exist; 0: no limit */
size_t tf_model_bytes(const tf_model *model);         /* packed weights and plan */
size_t tf_model_session_bytes(const tf_model *model); /* exact */
/* Bytes of weights that finish reads and that prepare reads, of one node (-1: of all). */
void tf_model_traffic(const tf_model *model, int32_t node, size_t *finish_bytes, size_t *prepare_bytes);

/* `memory` is 64-byte aligned. The model must outlive the session. */
tf_status tf_session_init(const tf_model *model, void *memory, size_t bytes, tf_session **out);
void tf_session_reset(tf_session *session);
float *tf_session_input(tf_session *session); /* the feature row is written here */
const float *tf_session_output(const tf_session *session);
uint64_t tf_session_steps(const tf_session *session); /* finishes since reset */
/* finish: everything that needs the new input, output valid on return. prepare: everything that does not need the next
 * input, to be called once between two finishes (a finish that finds it forgotten does it first). step = finish +
 * prepare. A NaN in a row that an int8 node reads makes the output NaN until reset, as it does in float. */
void tf_session_finish(const tf_model *model, tf_session *session);
void tf_session_prepare(const tf_model *model, tf_session *session);
/* From zero state over x [steps][input] into y [steps][output], without touching any session; `scratch` as for
 * tf_session_init. */
tf_status tf_model_run_window(const tf_model *model, void *scratch, size_t bytes, const float *x, int32_t steps,
                              float *y);

/* Versioned state, bound to the model by its hash, with a checksum; the same bytes on every instruction set. */
size_t tf_session_state_bytes(const tf_model *model);
tf_status tf_session_save(const tf_model *model, const tf_session *session, void *out, size_t bytes);
tf_status tf_session_load(const tf_model *model, tf_session *session, const void *in, size_t bytes);

/* For benches: n steps over the rows of x [rows][input], in turn; nanoseconds of each finish and each prepare. With
 * `evict` not NULL, that many bytes are read through before each finish (cold caches); with idle_ns > 0 the thread
 * waits that long first (after-idle). */
tf_status tf_session_time(const tf_model *model, tf_session *session, const float *x, int32_t rows, int32_t n,
                          const void *evict, size_t evict_bytes, uint64_t idle_ns, double *finish_ns,
                          double *prepare_ns);

/* Many sessions of one model in one call: each weight is read once for several of them. The answers are those of
 * stepping each alone, bit for bit. A batch holds scratch memory for up to `capacity` sessions and belongs to one
 * thread. */
typedef struct tf_batch tf_batch;
size_t tf_batch_bytes(const tf_model *model, int32_t capacity);
tf_status tf_batch_init(const tf_model *model, int32_t capacity, void *memory, size_t bytes, tf_batch **out);
void tf_batch_finish(tf_batch *batch, tf_session *const *sessions, int32_t count);  /* distinct sessions; any count */
void tf_batch_prepare(tf_batch *batch, tf_session *const *sessions, int32_t count);

/* The answer over the last `rows` rows from zero state, at the cost of one step on the critical path: `rows` staggered
 * sessions, of which finish steps the one that is due and prepare (batched) all others. */
typedef struct tf_window tf_window;
size_t tf_window_bytes(const tf_model *model, int32_t rows);
tf_status tf_window_init(const tf_model *model, int32_t rows, void *memory, size_t bytes, tf_window **out);
void tf_window_reset(tf_window *window);
float *tf_window_input(tf_window *window);
const float *tf_window_output(const tf_window *window);
void tf_window_finish(tf_window *window);
void tf_window_prepare(tf_window *window);
size_t tf_window_state_bytes(const tf_window *window);
tf_status tf_window_save(const tf_window *window, void *out, size_t bytes);
tf_status tf_window_load(tf_window *window, const void *in, size_t bytes);

/* One large model sharded over cores: `workers` helper threads, pinned to `cpus` (NULL: not pinned), which spin for
 * `spin_ns` after the last work and then sleep. The answers are those of one thread, bit for bit. Worth it from about
 * 0.5 MB of weights, and only where each worker and the caller have a core of their own: a team that finds itself
 * waiting for a core lets its helpers sleep and the caller works alone for a while. So does a forked child, always. One
 * caller at a time. */
typedef struct tf_team tf_team;
tf_status tf_team_create(int32_t workers, const int32_t *cpus, uint64_t spin_ns, tf_team **out);
void tf_team_free(tf_team *team);
void tf_team_finish(tf_team *team, const tf_model *model, tf_session *session);
void tf_team_prepare(tf_team *team, const tf_model *model, tf_session *session);

/* Compiled models (.tgp): the plan and the packed weights, versioned, hashed and bounds-checked, for any instruction
 * set. `note` is free text that travels along (at most 64 KiB). tf_model_open borrows `data` (64-byte aligned) for the
 * model's life. tf_model_load reads a file of up to 8 MiB into memory and maps a larger one read-only: replace such a
 * file by renaming another over it, because truncating it in place ends the process (SIGBUS). */
size_t tf_model_file_bytes(const tf_model *model, size_t note_bytes);
tf_status tf_model_write(const tf_model *model, const char *note, size_t note_bytes, void *out, size_t bytes);
tf_status tf_model_open(const void *data, size_t bytes, tf_isa isa, tf_model **out, tf_fault *fault);
tf_status tf_model_load(const char *path, tf_isa isa, tf_model **out, tf_fault *fault);
const char *tf_model_note(const tf_model *model, size_t *bytes); /* "" unless it came from a file */

/* The kernels of kernels.def, for listings and tests. `isas` has bit (1 << tf_isa) set for each instruction set that
 * has a kernel of its own. tf_kernel_get returns what runs on `isa` (its own kernel or a lower one's), NULL when it
 * cannot run; cast it to the row's signature before calling. */
typedef struct tf_kernel_info {
    const char *op;
    const char *dtype;
    const char *signature;
    const char *tolerance;
    const char *reference;
    const char *cuda;
    uint32_t isas;
} tf_kernel_info;
typedef void (*tf_kernel_function)(void);
int32_t tf_kernel_count(void);
const tf_kernel_info *tf_kernel_describe(int32_t index);
tf_kernel_function tf_kernel_get(int32_t index, tf_isa isa);

/* The packed weight layouts, the same on every instruction set. Packing of one matrix w [rows][k] (row major, `stride`
 * elements from row to row); the theory stands in csrc/nn/gemv_f32.h, gemv_i8.h, lstm_f32.h and gru_f32.h. */
size_t tf_packed_floats(int32_t rows, int32_t k);   /* f32; f16 and bf16 take as many halves */
void tf_pack_f32(const float *w, int32_t rows, int32_t k, int32_t stride, float *packed);
void tf_pack_lstm_f32(const float *w, int32_t hidden, int32_t k, float *packed);
uint16_t tf_f16_from_f32(float value);
uint16_t tf_bf16_from_f32(float value);
size_t tf_packed_i8(int32_t rows, int32_t k);
void tf_pack_i8(const int8_t *w, int32_t rows, int32_t k, int32_t stride, int8_t *packed);
void tf_pack_lstm_i8(const int8_t *w, int32_t hidden, int32_t k, int8_t *packed);

#ifdef __cplusplus
}
#endif
#endif
