"""The feature table as Python sees it: rows of csrc/features/features.def, read from the compiled library."""

from libc.stdint cimport int32_t, uint64_t

from tengri_fast.features.capi cimport (
    TF_FEATURE_ENGINE_VERSION,
    TF_FEATURE_PARAMS,
    TF_PARAM_COUNT,
    TF_PARAM_DURATION,
    TF_PARAM_FLAG,
    TF_PARAM_NONE,
    TF_PARAM_NUMBER,
    TF_PARAM_WINDOW,
    tf_feature_describe,
    tf_feature_info,
    tf_feature_kinds,
    tf_feature_lookback,
    tf_feature_spec,
)
from tengri_fast.inference.capi cimport TF_OK

ENGINE_VERSION = int(TF_FEATURE_ENGINE_VERSION)
PARAMETERS = int(TF_FEATURE_PARAMS)

cdef dict PARAMETER_TYPES = {
    TF_PARAM_COUNT: "count",
    TF_PARAM_NUMBER: "number",
    TF_PARAM_WINDOW: "window",
    TF_PARAM_DURATION: "duration",
    TF_PARAM_FLAG: "flag",
}


def table():
    """Rows of the table in order: (name, unit, needs, parameters, lookback, rule, source, description).

    Each parameter is (name, type, default, low, high).
    """
    cdef const tf_feature_info *info
    cdef int32_t kind
    cdef int i
    rows = []
    for kind in range(tf_feature_kinds()):
        info = tf_feature_describe(kind)
        parameters = tuple(
            (info.param[i].name.decode(), PARAMETER_TYPES[info.param[i].type], info.param[i].initial,
             info.param[i].low, info.param[i].high)
            for i in range(TF_FEATURE_PARAMS) if info.param[i].type != TF_PARAM_NONE
        )
        rows.append((info.name.decode(), info.unit.decode(), info.needs.decode(), parameters, info.lookback.decode(),
                     info.rule.decode(), info.source.decode(), info.description.decode()))
    return tuple(rows)


def lookback(int32_t kind, tuple values):
    """(events, nanoseconds) of one spec, or None when the parameters break a rule of the table."""
    cdef tf_feature_spec spec
    cdef uint64_t events = 0, nanoseconds = 0
    cdef int i
    spec.kind = kind
    spec.reserved = 0
    spec.mean, spec.scale, spec.clip = 0.0, 1.0, 0.0
    for i in range(TF_FEATURE_PARAMS):
        spec.param[i] = values[i] if i < len(values) else 0.0
    if tf_feature_lookback(&spec, &events, &nanoseconds) != TF_OK:
        return None
    return events, nanoseconds
