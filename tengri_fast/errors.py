"""One hierarchy of errors, so that a caller can catch everything of ours with one name.

Messages follow one pattern: the name of the field, the rule it broke, the value that was found.
"""

from __future__ import annotations

__all__ = [
    "ConfigurationError",
    "DataConversionError",
    "FeatureExtractionError",
    "InferenceFailed",
    "MissingExtraError",
    "ModelLoadingError",
    "NeuralIntegrationError",
]


class NeuralIntegrationError(Exception):
    """Base of every error raised by tengri_fast."""


class InferenceFailed(NeuralIntegrationError):
    """A model could not give an answer, or gave one that is not finite."""


class FeatureExtractionError(NeuralIntegrationError):
    """A feature spec is wrong, or features could not be computed."""


class ModelLoadingError(NeuralIntegrationError):
    """A model file is missing, damaged, unsupported, or not what its description says."""


class ConfigurationError(NeuralIntegrationError):
    """A configuration breaks a rule; the message names file, key, rule and value."""


class DataConversionError(NeuralIntegrationError):
    """Market data could not be converted: wrong type, shape, unit or order."""


class MissingExtraError(NeuralIntegrationError, ImportError):
    """An optional dependency is not installed; the message names the extra to install."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs `{package}`, which is not installed: pip install 'tengri_fast[{extra}]'")
        self.package = package
        self.extra = extra
