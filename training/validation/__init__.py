"""What is wrong with a dataset, in plain words."""

from cag_avatar_training.validation.config import ValidationConfig
from cag_avatar_training.validation.findings import Finding, NotChecked, Severity
from cag_avatar_training.validation.overlay import overlay_video
from cag_avatar_training.validation.page import EmbeddedVideo, write_page
from cag_avatar_training.validation.validate import ValidationResult, judge, validate

__all__ = [
    "EmbeddedVideo",
    "Finding",
    "NotChecked",
    "Severity",
    "ValidationConfig",
    "ValidationResult",
    "judge",
    "overlay_video",
    "validate",
    "write_page",
]
