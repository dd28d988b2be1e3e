from libc.stdint cimport int8_t, int32_t, uint16_t, uint32_t, uint64_t


cdef extern from "tengri/isa.h" nogil:
    ctypedef enum tf_status:
        TF_OK
        TF_ERR_ARGUMENT
        TF_ERR_SHAPE
        TF_ERR_MEMORY
        TF_ERR_ISA
        TF_ERR_FORMAT
        TF_ERR_NONFINITE

    ctypedef enum tf_isa:
        TF_ISA_SCALAR
        TF_ISA_AVX2
        TF_ISA_AVXVNNI
        TF_ISA_AVX512
        TF_ISA_AVX512VNNI
        TF_ISA_AVX512BF16
        TF_ISA_AVX512FP16
        TF_ISA_COUNT

    const char *tf_status_text(tf_status status)
    tf_status tf_isa_select(const char *name)
    tf_isa tf_isa_active()
    const char *tf_isa_name(tf_isa isa)
    int tf_isa_available(tf_isa isa)
    size_t tf_cpu_features(char *out, size_t size)
    uint64_t tf_timer_ticks()
    double tf_timer_ns_per_tick()


cdef extern from "tengri/nn.h" nogil:
    ctypedef enum tf_op:
        TF_OP_LSTM
        TF_OP_GRU
        TF_OP_DENSE
        TF_OP_CONV
        TF_OP_ATTENTION
        TF_OP_NORM
        TF_OP_AFFINE
        TF_OP_ACTIVATION
        TF_OP_ADD
        TF_OP_MUL
        TF_OP_CONCAT
        TF_OP_SLICE
        TF_OP_POOL
        TF_OP_POSITION

    enum:
        TF_MAX_INPUTS
        TF_MODEL_INPUT
        TF_MAX_NODES

    ctypedef struct tf_matrix:
        const void *data
        const float *scale

    ctypedef struct tf_node_desc:
        int32_t op
        int32_t format
        int32_t activation
        int32_t width
        int32_t inputs
        int32_t input[8]
        int32_t size[8]
        float value[8]
        tf_matrix w
        tf_matrix r
        tf_matrix p
        const float *bias
        const float *rbias
        const float *extra

    ctypedef struct tf_network:
        const tf_node_desc *nodes
        int32_t count
        int32_t input
        int32_t output

    ctypedef struct tf_fault:
        int32_t node
        const char *rule

    ctypedef struct tf_model:
        pass

    ctypedef struct tf_session:
        pass

    tf_status tf_model_create(const tf_network *network, tf_isa isa, tf_model **out, tf_fault *fault)
    void tf_model_free(tf_model *model)
    tf_isa tf_model_isa(const tf_model *model)
    uint64_t tf_model_hash(const tf_model *model)
    int32_t tf_model_input_size(const tf_model *model)
    int32_t tf_model_output_size(const tf_model *model)
    int32_t tf_model_period(const tf_model *model)
    int32_t tf_model_max_steps(const tf_model *model)
    size_t tf_model_bytes(const tf_model *model)
    size_t tf_model_session_bytes(const tf_model *model)
    void tf_model_traffic(const tf_model *model, int32_t node, size_t *finish_bytes, size_t *prepare_bytes)

    tf_status tf_session_init(const tf_model *model, void *memory, size_t bytes, tf_session **out)
    void tf_session_reset(tf_session *session)
    float *tf_session_input(tf_session *session)
    const float *tf_session_output(const tf_session *session)
    uint64_t tf_session_steps(const tf_session *session)
    void tf_session_finish(const tf_model *model, tf_session *session)
    void tf_session_prepare(const tf_model *model, tf_session *session)
    tf_status tf_model_run_window(const tf_model *model, void *scratch, size_t bytes, const float *x, int32_t steps,
                                  float *y)
    size_t tf_session_state_bytes(const tf_model *model)
    tf_status tf_session_save(const tf_model *model, const tf_session *session, void *out, size_t bytes)
    tf_status tf_session_load(const tf_model *model, tf_session *session, const void *in_, size_t bytes)
    tf_status tf_session_time(const tf_model *model, tf_session *session, const float *x, int32_t rows, int32_t n,
                              const void *evict, size_t evict_bytes, uint64_t idle_ns, double *finish_ns,
                              double *prepare_ns)

    ctypedef struct tf_batch:
        pass

    size_t tf_batch_bytes(const tf_model *model, int32_t capacity)
    tf_status tf_batch_init(const tf_model *model, int32_t capacity, void *memory, size_t bytes, tf_batch **out)
    void tf_batch_finish(tf_batch *batch, tf_session *const *sessions, int32_t count)
    void tf_batch_prepare(tf_batch *batch, tf_session *const *sessions, int32_t count)

    ctypedef struct tf_window:
        pass

    size_t tf_window_bytes(const tf_model *model, int32_t rows)
    tf_status tf_window_init(const tf_model *model, int32_t rows, void *memory, size_t bytes, tf_window **out)
    void tf_window_reset(tf_window *window)
    float *tf_window_input(tf_window *window)
    const float *tf_window_output(const tf_window *window)
    void tf_window_finish(tf_window *window)
    void tf_window_prepare(tf_window *window)
    size_t tf_window_state_bytes(const tf_window *window)
    tf_status tf_window_save(const tf_window *window, void *out, size_t bytes)
    tf_status tf_window_load(tf_window *window, const void *in_, size_t bytes)

    ctypedef struct tf_team:
        pass

    tf_status tf_team_create(int32_t workers, const int32_t *cpus, uint64_t spin_ns, tf_team **out)
    void tf_team_free(tf_team *team)
    void tf_team_finish(tf_team *team, const tf_model *model, tf_session *session)
    void tf_team_prepare(tf_team *team, const tf_model *model, tf_session *session)

    size_t tf_model_file_bytes(const tf_model *model, size_t note_bytes)
    tf_status tf_model_write(const tf_model *model, const char *note, size_t note_bytes, void *out, size_t bytes)
    tf_status tf_model_open(const void *data, size_t bytes, tf_isa isa, tf_model **out, tf_fault *fault)
    tf_status tf_model_load(const char *path, tf_isa isa, tf_model **out, tf_fault *fault)
    const char *tf_model_note(const tf_model *model, size_t *bytes)

    ctypedef struct tf_kernel_info:
        const char *op
        const char *dtype
        const char *signature
        const char *tolerance
        const char *reference
        const char *cuda
        uint32_t isas

    ctypedef void (*tf_kernel_function)()
    int32_t tf_kernel_count()
    const tf_kernel_info *tf_kernel_describe(int32_t index)
    tf_kernel_function tf_kernel_get(int32_t index, tf_isa isa)
    size_t tf_packed_floats(int32_t rows, int32_t k)
    void tf_pack_f32(const float *w, int32_t rows, int32_t k, int32_t stride, float *packed)
    void tf_pack_lstm_f32(const float *w, int32_t hidden, int32_t k, float *packed)
    uint16_t tf_f16_from_f32(float value)
    uint16_t tf_bf16_from_f32(float value)
    size_t tf_packed_i8(int32_t rows, int32_t k)
    void tf_pack_i8(const int8_t *w, int32_t rows, int32_t k, int32_t stride, int8_t *packed)
    void tf_pack_lstm_i8(const int8_t *w, int32_t hidden, int32_t k, int8_t *packed)
