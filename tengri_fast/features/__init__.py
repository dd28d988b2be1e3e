"""Features: declarative specs compiled into one C plan that serves live ticks and research arrays alike."""

from __future__ import annotations

from tengri_fast.features.plan import (
    FeatureCounters,
    FeaturePlan,
    FeatureRows,
    FeatureState,
    Normalisation,
)
from tengri_fast.features.spec import FEATURES, FeatureInfo, FeatureSpec, Lookback, ParameterInfo, parse_spec

__all__ = [
    "FEATURES",
    "FeatureCounters",
    "FeatureInfo",
    "FeaturePlan",
    "FeatureRows",
    "FeatureSpec",
    "FeatureState",
    "Lookback",
    "Normalisation",
    "ParameterInfo",
    "parse_spec",
]
