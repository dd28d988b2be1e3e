"""The tables of features and stages as Python sees them, read from the compiled library."""

from libc.stdint cimport int32_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memset

from tengri_fast.features.capi cimport (
    TF_CLOCK_BARS,
    TF_CLOCK_EVENT,
    TF_CLOCK_IMBALANCE,
    TF_CLOCK_NOTIONAL,
    TF_CLOCK_TICKS,
    TF_CLOCK_TIME,
    TF_CLOCK_VOLUME,
    TF_FEATURE_ENGINE_VERSION,
    TF_FEATURE_PARAMS,
    TF_FEATURE_STAGES,
    TF_MAX_LEGS,
    TF_MAX_SOURCES,
    TF_PARAM_COUNT,
    TF_PARAM_DURATION,
    TF_PARAM_FLAG,
    TF_PARAM_LEG,
    TF_PARAM_LEGS,
    TF_PARAM_NONE,
    TF_PARAM_NUMBER,
    TF_PARAM_SOURCE,
    TF_PARAM_WINDOW,
    tf_feature_describe,
    tf_feature_info,
    tf_feature_kinds,
    tf_feature_lookback,
    tf_feature_param,
    tf_feature_register,
    tf_feature_registry,
    tf_feature_spec,
    tf_stage_describe,
    tf_stage_info,
    tf_stage_kinds,
    tf_user_feature,
)
from tengri_fast.inference.capi cimport TF_OK

ENGINE_VERSION = int(TF_FEATURE_ENGINE_VERSION)
PARAMETERS = int(TF_FEATURE_PARAMS)
STAGES = int(TF_FEATURE_STAGES)
# Each extension carries a copy of the C library; all of them use this table of user features.
REGISTRY = <uintptr_t>tf_feature_registry()
MAX_LEGS = int(TF_MAX_LEGS)
MAX_SOURCES = int(TF_MAX_SOURCES)
CLOCK_KINDS = {
    "event": int(TF_CLOCK_EVENT),
    "time": int(TF_CLOCK_TIME),
    "ticks": int(TF_CLOCK_TICKS),
    "volume": int(TF_CLOCK_VOLUME),
    "notional": int(TF_CLOCK_NOTIONAL),
    "imbalance": int(TF_CLOCK_IMBALANCE),
    "bars": int(TF_CLOCK_BARS),
}

cdef dict PARAMETER_TYPES = {
    TF_PARAM_COUNT: "count",
    TF_PARAM_NUMBER: "number",
    TF_PARAM_WINDOW: "window",
    TF_PARAM_DURATION: "duration",
    TF_PARAM_FLAG: "flag",
    TF_PARAM_LEG: "instrument",
    TF_PARAM_LEGS: "instruments",
    TF_PARAM_SOURCE: "source",
}


cdef tuple parameters_of(const tf_feature_param *param, int count):
    cdef int i
    return tuple(
        (param[i].name.decode(), PARAMETER_TYPES[param[i].type], param[i].initial, param[i].low, param[i].high)
        for i in range(count) if param[i].type != TF_PARAM_NONE
    )


def table():
    """Rows of the table in order: (name, unit, needs, parameters, lookback, rule, source, description).

    Each parameter is (name, type, default, low, high).
    """
    cdef const tf_feature_info *info
    cdef int32_t kind
    rows = []
    for kind in range(tf_feature_kinds()):
        info = tf_feature_describe(kind)
        rows.append((info.name.decode(), info.unit.decode(), info.needs.decode(),
                     parameters_of(info.param, TF_FEATURE_PARAMS), info.lookback.decode(), info.rule.decode(),
                     info.source.decode(), info.description.decode()))
    return tuple(rows)


def stages():
    """Rows of the stage table in order: (name, parameters, lookback, rule, source, description)."""
    cdef const tf_stage_info *info
    cdef int32_t kind
    rows = []
    for kind in range(tf_stage_kinds()):
        info = tf_stage_describe(kind)
        rows.append((info.name.decode(), parameters_of(info.param, 2), info.lookback.decode(), info.rule.decode(),
                     info.source.decode(), info.description.decode()))
    return tuple(rows)


def lookback(uint32_t kind, tuple values, tuple clock, tuple steps):
    """(samples, nanoseconds) of one spec, or None when it breaks a rule of the table.

    `clock` is (kind, trades, size); `steps` holds (kind, values) of each stage.
    """
    cdef tf_feature_spec spec
    cdef uint64_t samples = 0, nanoseconds = 0
    cdef int i, k
    memset(&spec, 0, sizeof(spec))
    spec.kind = kind
    spec.scale = 1.0
    for i in range(len(values)):
        spec.param[i] = values[i]
    spec.clock.kind, spec.clock.trades, spec.clock.size = clock
    spec.stages = len(steps)
    for i in range(len(steps)):
        spec.stage[i].kind = steps[i][0]
        for k in range(len(steps[i][1])):
            spec.stage[i].param[k] = steps[i][1][k]
    if tf_feature_lookback(&spec, &samples, &nanoseconds) != TF_OK:
        return None
    return samples, nanoseconds


def register(str name, uint32_t doubles, uint32_t lookback, bint on_trades, uintptr_t update, uintptr_t value):
    """The kind of a feature of the user, given by the addresses of its two functions, or -1 when it is refused.

    The caller keeps the functions and the name alive for the life of the process.
    """
    cdef tf_user_feature feature
    cdef bytes text = name.encode()
    memset(&feature, 0, sizeof(feature))
    feature.name = text
    feature.doubles, feature.lookback, feature.on_trades = doubles, lookback, on_trades
    feature.update = <void (*)(double *, const double *, const double *) noexcept nogil>update
    feature.value = <double (*)(const double *, const double *) noexcept nogil>value
    return tf_feature_register(&feature)
