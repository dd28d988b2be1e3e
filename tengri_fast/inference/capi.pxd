from libc.stdint cimport int32_t, uint32_t, uint64_t


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
        TF_ISA_AVX512
        TF_ISA_AVX512VNNI
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
    ctypedef enum tf_layer_kind:
        TF_LAYER_LSTM
        TF_LAYER_DENSE

    ctypedef enum tf_activation:
        TF_ACT_NONE
        TF_ACT_RELU
        TF_ACT_TANH
        TF_ACT_SIGMOID
        TF_ACT_SOFTMAX

    ctypedef struct tf_layer_desc:
        int32_t kind
        int32_t activation
        int32_t input
        int32_t output
        const float *w
        const float *r
        const float *bias

    ctypedef struct tf_model:
        pass

    ctypedef struct tf_session:
        pass

    tf_status tf_model_create(const tf_layer_desc *layers, int32_t count, tf_model **out, int32_t *bad_layer)
    tf_status tf_model_create_for(const tf_layer_desc *layers, int32_t count, tf_isa isa, tf_model **out,
                                  int32_t *bad_layer)
    tf_isa tf_model_isa(const tf_model *model)
    uint64_t tf_model_hash(const tf_model *model)
    void tf_model_free(tf_model *model)
    int32_t tf_model_input_size(const tf_model *model)
    int32_t tf_model_output_size(const tf_model *model)
    size_t tf_model_bytes(const tf_model *model)
    size_t tf_model_session_bytes(const tf_model *model)
    tf_status tf_session_init(const tf_model *model, void *memory, size_t bytes, tf_session **out)
    void tf_session_reset(tf_session *session)
    float *tf_session_input(tf_session *session)
    const float *tf_session_output(const tf_session *session)
    void tf_session_finish(const tf_model *model, tf_session *session)
    void tf_session_prepare(const tf_model *model, tf_session *session)
    tf_status tf_model_run_window(const tf_model *model, void *scratch, size_t bytes, const float *x, int32_t steps,
                                  float *y)
    size_t tf_session_state_bytes(const tf_model *model)
    tf_status tf_session_save(const tf_model *model, const tf_session *session, void *out, size_t bytes)
    tf_status tf_session_load(const tf_model *model, tf_session *session, const void *in_, size_t bytes)
    tf_status tf_session_time(const tf_model *model, tf_session *session, const float *x, int32_t rows, int32_t n,
                              double *finish_ns, double *prepare_ns)

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
