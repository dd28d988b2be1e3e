"""Features: declarative specs compiled into one C plan that serves live ticks and research arrays alike."""

from __future__ import annotations

from tengri_fast.features.clock import EVENT_CLOCK, Clock, parse_clock
from tengri_fast.features.parameters import ParameterInfo
from tengri_fast.features.plan import (
    FeatureCounters,
    FeaturePlan,
    FeatureRows,
    FeatureState,
    Normalisation,
)
from tengri_fast.features.spec import (
    FEATURES,
    STAGES,
    FeatureInfo,
    FeatureSpec,
    Lookback,
    StageInfo,
    StageSpec,
    parse_spec,
    parse_specs,
)
from tengri_fast.features.store import FeatureStore, SharedFeatures
from tengri_fast.features.user import UserFeature, register_feature, register_native_feature

__all__ = [
    "EVENT_CLOCK",
    "FEATURES",
    "STAGES",
    "Clock",
    "FeatureCounters",
    "FeatureInfo",
    "FeaturePlan",
    "FeatureRows",
    "FeatureSpec",
    "FeatureState",
    "FeatureStore",
    "Lookback",
    "Normalisation",
    "ParameterInfo",
    "SharedFeatures",
    "StageInfo",
    "StageSpec",
    "UserFeature",
    "parse_clock",
    "parse_spec",
    "parse_specs",
    "register_feature",
    "register_native_feature",
]
