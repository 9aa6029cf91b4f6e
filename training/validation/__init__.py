"""What is wrong with a dataset, in plain words."""

from cag_avatar_training.validation.config import ValidationConfig
from cag_avatar_training.validation.findings import Finding, NotChecked, Severity
from cag_avatar_training.validation.validate import ValidationResult, judge, validate

__all__ = [
    "Finding",
    "NotChecked",
    "Severity",
    "ValidationConfig",
    "ValidationResult",
    "judge",
    "validate",
]
