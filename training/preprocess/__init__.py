"""Video to dataset: landmarks, crop, fit, matte, outline, torso, reliability, write.

Every stage keeps its results in a work folder beside the dataset, so that memory does not grow with
the clip and an interrupted run goes on where it was.
"""

from __future__ import annotations

from cag_avatar_training.preprocess.config import PreprocessConfig
from cag_avatar_training.preprocess.pipeline import preprocess, work_folder

__all__ = ["PreprocessConfig", "preprocess", "work_folder"]
