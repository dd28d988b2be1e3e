/* Streaming networks: an immutable model and a mutable session, one arena each. */
#ifndef TENGRI_NN_H
#define TENGRI_NN_H

#include "isa.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tf_layer_kind { TF_LAYER_LSTM = 1, TF_LAYER_DENSE = 2 } tf_layer_kind;
typedef enum tf_activation {
    TF_ACT_NONE = 0,
    TF_ACT_RELU = 1,
    TF_ACT_TANH = 2,
    TF_ACT_SIGMOID = 3,
    TF_ACT_SOFTMAX = 4
} tf_activation;

/* Weights are row major float32, borrowed during tf_model_create only.
 * LSTM: w [4H][input], r [4H][H], bias [4H] (sum of both biases), gates in the order i, f, g, o.
 * Dense: w [output][input], bias [output]. */
typedef struct tf_layer_desc {
    int32_t kind;
    int32_t activation;
    int32_t input;
    int32_t output;
    const float *w;
    const float *r;
    const float *bias;
} tf_layer_desc;

typedef struct tf_model tf_model;
typedef struct tf_session tf_session; /* position independent inside its block: memcpy to an aligned block is a copy */

/* All or nothing; `bad_layer` (may be NULL) names the layer at fault. */
tf_status tf_model_create(const tf_layer_desc *layers, int32_t count, tf_model **out, int32_t *bad_layer);
/* The same on a given instruction set; TF_ERR_ISA when this machine cannot run it. tf_model_create takes the active one.
 * A model keeps its instruction set for life, so that its answers do not change under it. */
tf_status tf_model_create_for(const tf_layer_desc *layers, int32_t count, tf_isa isa, tf_model **out,
                              int32_t *bad_layer);
tf_isa tf_model_isa(const tf_model *model);
uint64_t tf_model_hash(const tf_model *model); /* of shapes and weights, the same on every instruction set */
void tf_model_free(tf_model *model);
int32_t tf_model_input_size(const tf_model *model);
int32_t tf_model_output_size(const tf_model *model);
size_t tf_model_bytes(const tf_model *model);          /* packed weights and plan */
size_t tf_model_session_bytes(const tf_model *model);  /* exact */

/* `memory` is 64-byte aligned. The model must outlive the session. */
tf_status tf_session_init(const tf_model *model, void *memory, size_t bytes, tf_session **out);
void tf_session_reset(tf_session *session);
float *tf_session_input(tf_session *session);          /* the feature row is written here */
const float *tf_session_output(const tf_session *session);
/* finish: everything that needs the new input, output valid on return. prepare: everything that does not need the next
 * input, to be called once between two finishes. step = finish + prepare. */
void tf_session_finish(const tf_model *model, tf_session *session);
void tf_session_prepare(const tf_model *model, tf_session *session);
/* From zero state over x [steps][input] into y [steps][output], without touching any session; `scratch` as for
 * tf_session_init. */
tf_status tf_model_run_window(const tf_model *model, void *scratch, size_t bytes, const float *x, int32_t steps, float *y);

/* Versioned state, bound to the model by its shape and weights hash. */
size_t tf_session_state_bytes(const tf_model *model);
tf_status tf_session_save(const tf_model *model, const tf_session *session, void *out, size_t bytes);
tf_status tf_session_load(const tf_model *model, tf_session *session, const void *in, size_t bytes);

/* For benches: n steps over the rows of x [rows][input], in turn; nanoseconds of each finish and each prepare. */
tf_status tf_session_time(const tf_model *model, tf_session *session, const float *x, int32_t rows, int32_t n,
                          double *finish_ns, double *prepare_ns);

/* The kernels of kernels.def, for listings and tests. `isas` has bit (1 << tf_isa) set for each instruction set that has
 * a kernel of its own. tf_kernel_get returns what runs on `isa` (its own kernel or a lower one's), NULL when it cannot
 * run; cast it to the row's signature before calling. */
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

/* The packed weight layout shared by all instruction sets: `rows` rows of w [rows][k] (row major, `stride` floats from row
 * to row) into tf_packed_floats(rows, k) floats. The theory stands in csrc/nn/gemv_f32.h. */
size_t tf_packed_floats(int32_t rows, int32_t k);
void tf_pack_f32(const float *w, int32_t rows, int32_t k, int32_t stride, float *packed);
/* LSTM weights w [4H][k] (gates i, f, g, o) into the gate-interleaved, pre-scaled order of csrc/nn/lstm_f32.h:
 * 64 * ceil(H / 16) rows, packed as above. bias is the same with k = 1, given as w [4H][1]. */
void tf_pack_lstm_f32(const float *w, int32_t hidden, int32_t k, float *packed);

#ifdef __cplusplus
}
#endif
#endif
