"""Training of the landmark correction: rendered subjects, mirrored, and a small network."""

from cag_avatar_training.landmark_correction.config import RESERVED_SEEDS, CorrectionConfig
from cag_avatar_training.landmark_correction.data import (
    CorrectionData,
    SubjectPictures,
    read_subjects,
)
from cag_avatar_training.landmark_correction.rendering import render_subjects
from cag_avatar_training.landmark_correction.training import learn_correction, with_truth
from cag_avatar_training.landmark_correction.tying import tie_to_subjects

__all__ = [
    "RESERVED_SEEDS",
    "CorrectionConfig",
    "CorrectionData",
    "SubjectPictures",
    "learn_correction",
    "read_subjects",
    "render_subjects",
    "tie_to_subjects",
    "with_truth",
]
