from libc.stdint cimport int32_t

from tengri_fast.features.capi cimport tf_feature_spec, tf_features


cdef class FeaturePlan:
    cdef tf_feature_spec *c_specs
    cdef int32_t c_count
    cdef readonly tuple specs
    cdef readonly tuple names
    cdef readonly tuple legs
    cdef readonly tuple sources
    cdef readonly str hash
    cdef readonly object lookback
    cdef readonly object normalisation
    cdef readonly Py_ssize_t nbytes


cdef class FeatureState:
    cdef tf_features *ptr
    cdef readonly FeaturePlan plan
