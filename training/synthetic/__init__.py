"""Synthetic recordings: a procedural person, filmed, with the truth about every frame."""

from cag_avatar_training.synthetic.config import MOTION_STYLES, SynthesisConfig
from cag_avatar_training.synthetic.synthesize import SynthesisResult, synthesize
from cag_avatar_training.synthetic.truth import Truth, load_truth, truth_folder

__all__ = [
    "MOTION_STYLES",
    "SynthesisConfig",
    "SynthesisResult",
    "Truth",
    "load_truth",
    "synthesize",
    "truth_folder",
]
