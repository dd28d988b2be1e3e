from libc.stdint cimport int32_t, uint32_t, uint64_t

from tengri_fast.inference.capi cimport tf_status
from tengri_fast.market.events cimport tf_bar, tf_depth10, tf_quote, tf_trade


cdef extern from "tengri/features.h" nogil:
    ctypedef struct tf_feature_spec:
        uint32_t kind
        uint32_t reserved
        double param[4]
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

    enum: TF_FEATURE_PARAMS
    enum: TF_FEATURE_ENGINE_VERSION

    ctypedef enum tf_param_type:
        TF_PARAM_NONE
        TF_PARAM_COUNT
        TF_PARAM_NUMBER
        TF_PARAM_WINDOW
        TF_PARAM_DURATION
        TF_PARAM_FLAG

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

    int32_t tf_feature_kinds()
    const tf_feature_info *tf_feature_describe(int32_t kind)
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
    int tf_features_ready(const tf_features *features)
    void tf_features_row(const tf_features *features, double *out)
    int tf_features_emit(const tf_features *features, float *out)
    double tf_features_mid(const tf_features *features)
    double tf_features_spread(const tf_features *features)
    void read_counters "tf_features_counters"(const tf_features *features, tf_feature_counters *out)
    int tf_features_ready_at(const tf_features *features, int32_t index)
    int tf_features_normalise(const tf_features *features, const double *row, float *out)
    size_t tf_features_bytes(const tf_features *features)
    tf_status tf_features_check(const void *memory, size_t bytes, const tf_feature_spec *specs, int32_t count)
