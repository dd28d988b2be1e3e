from libc.stdint cimport int32_t, uint32_t, uint64_t

from tengri_fast.inference.capi cimport tf_status
from tengri_fast.market.events cimport tf_bar, tf_depth10, tf_external, tf_quote, tf_trade


cdef extern from "tengri/features.h" nogil:
    enum: TF_FEATURE_PARAMS
    enum: TF_FEATURE_STAGES
    enum: TF_FEATURE_ENGINE_VERSION
    enum: TF_FEATURE_USER
    enum: TF_MAX_LEGS
    enum: TF_MAX_SOURCES

    ctypedef struct tf_clock:
        uint32_t kind
        uint32_t trades
        double size

    ctypedef struct tf_stage:
        uint32_t kind
        uint32_t reserved
        double param[2]

    ctypedef struct tf_feature_spec:
        uint32_t kind
        uint32_t stages
        double param[4]
        tf_clock clock
        tf_stage stage[3]
        double mean
        double scale
        double clip

    ctypedef struct tf_features:
        pass

    ctypedef struct tf_feature_counters:
        uint64_t accepted
        uint64_t crossed
        uint64_t backward
        uint64_t invalid
        uint64_t overflow

    ctypedef enum tf_param_type:
        TF_PARAM_NONE
        TF_PARAM_COUNT
        TF_PARAM_NUMBER
        TF_PARAM_WINDOW
        TF_PARAM_DURATION
        TF_PARAM_FLAG
        TF_PARAM_LEG
        TF_PARAM_LEGS
        TF_PARAM_SOURCE

    ctypedef enum tf_clock_kind:
        TF_CLOCK_EVENT
        TF_CLOCK_TIME
        TF_CLOCK_TICKS
        TF_CLOCK_VOLUME
        TF_CLOCK_NOTIONAL
        TF_CLOCK_IMBALANCE
        TF_CLOCK_BARS

    ctypedef struct tf_feature_param:
        const char *name
        tf_param_type type
        double initial
        double low
        double high

    ctypedef struct tf_feature_info:
        const char *name
        const char *unit
        const char *needs
        tf_feature_param param[4]
        const char *lookback
        const char *rule
        const char *source
        const char *description

    ctypedef struct tf_stage_info:
        const char *name
        tf_feature_param param[2]
        const char *lookback
        const char *rule
        const char *source
        const char *description

    ctypedef struct tf_machine_info:
        const char *name
        tf_clock clock
        double param[4]
        size_t bytes
        int32_t columns

    ctypedef struct tf_user_feature:
        const char *name
        uint32_t doubles
        uint32_t lookback
        uint32_t on_trades
        uint32_t reserved
        void (*update)(double *state, const double *view, const double *param) noexcept nogil
        double (*value)(const double *state, const double *param) noexcept nogil

    int32_t tf_feature_kinds()
    const tf_feature_info *tf_feature_describe(int32_t kind)
    int32_t tf_stage_kinds()
    const tf_stage_info *tf_stage_describe(int32_t kind)
    int32_t tf_feature_register(const tf_user_feature *feature)
    void *tf_feature_registry()
    void tf_feature_adopt(void *registry)
    tf_status tf_feature_lookback(const tf_feature_spec *spec, uint64_t *events, uint64_t *nanoseconds)
    tf_status tf_features_size(const tf_feature_spec *specs, int32_t count, size_t *bytes)
    tf_status tf_features_init(void *memory, size_t bytes, const tf_feature_spec *specs, int32_t count,
                               tf_features **out)
    void tf_features_reset(tf_features *features)
    int32_t tf_features_width(const tf_features *features)
    int tf_features_on_quote(tf_features *features, const tf_quote *quote)
    int tf_features_on_trade(tf_features *features, const tf_trade *trade)
    int tf_features_on_bar(tf_features *features, const tf_bar *bar)
    int tf_features_on_depth(tf_features *features, const tf_depth10 *depth)
    int tf_features_on_leg(tf_features *features, uint32_t leg, const tf_quote *quote)
    int tf_features_on_external(tf_features *features, const tf_external *event)
    int tf_features_ready(const tf_features *features)
    void tf_features_row(const tf_features *features, double *out)
    int tf_features_emit(const tf_features *features, float *out)
    double tf_features_mid(const tf_features *features)
    double tf_features_spread(const tf_features *features)
    void read_counters "tf_features_counters"(const tf_features *features, tf_feature_counters *out)
    int tf_features_ready_at(const tf_features *features, int32_t index)
    int tf_features_normalise(const tf_features *features, const double *row, float *out)
    size_t tf_features_bytes(const tf_features *features)
    tf_status tf_features_check(const tf_features *like, const void *memory, size_t bytes)
    int32_t tf_features_machines(const tf_features *features)
    int tf_features_machine(const tf_features *features, int32_t index, tf_machine_info *out)
