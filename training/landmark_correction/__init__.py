"""Training of the landmark correction: rendered subjects, mirrored, and a small network."""

from cag_avatar_training.landmark_correction.config import RESERVED_SEEDS, CorrectionConfig
from cag_avatar_training.landmark_correction.data import CorrectionData
from cag_avatar_training.landmark_correction.rendering import render_subjects
from cag_avatar_training.landmark_correction.training import learn_correction

__all__ = [
    "RESERVED_SEEDS",
    "CorrectionConfig",
    "CorrectionData",
    "learn_correction",
    "render_subjects",
]
