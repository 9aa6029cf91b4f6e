"""Weights of the fit of a head model to a video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cag_avatar.errors import InputError

__all__ = ["Correction", "FitConfig"]

#: What of the landmarker's known errors is taken away.
Correction = Literal["auto", "rigid", "full", "none"]


@dataclass(frozen=True)
class FitConfig:
    """Weights of the fit. Deviations are priors: smaller is stiffer."""

    landmark_deviation: float = 0.012
    """Noise of a good landmark, in inter-ocular distances, added to its spread on the surface."""
    iris_deviation: float = 0.008
    """Noise of an iris's landmarks where the iris was found in the pictures, the same unit."""
    effective_landmarks: float = 300.0
    """Independent measurements that the 478 correlated landmarks count for."""
    robust_scale: float = 6.0
    """Deviations at which a landmark's weight falls to a quarter."""
    code_deviation: float = 0.25
    """Prior deviation of a coefficient from MediaPipe's score."""
    gaze_deviation: float = 0.5
    """The same of the gaze where the irises were found in the pictures."""
    smooth_code: float = 0.15
    """Prior deviation of a coefficient from the mean of its neighbours in time (eyes: 5 times)."""
    smooth_rotation: float = 0.03
    """The same of the head rotation, radians."""
    smooth_translation: float = 0.01
    """The same of the head translation, metres."""
    correction: Correction = "auto"
    """What of the landmarker's known errors is taken away, where a correction for the head model is
    at hand: ``rigid`` what is the same in most of a person's frames, and in each frame what looks
    like a moved head; ``full`` all that is predicted; ``auto`` all where the pictures of the face
    were read, else ``rigid``: without pictures, strong expressions of real faces are followed less
    well by all that is predicted."""
    predicted_deviation: float = 0.15
    """Least prior deviation of a coefficient from the predicted one: what is known of rendered
    faces holds less of real ones."""
    distance: float = 0.86
    """Distance of the head from the camera where the focal length is not known, metres; the median
    over the clip. A head alone does not tell it: focal length and distance trade off, and the
    landmarks' own vote is off by a quarter."""
    focal_length: float | None = None
    """Focal length in pixels of the picture that is fitted, where it is known."""
    silhouette_deviation: float = 0.02
    """Noise of a silhouette point along its normal, in inter-ocular distances."""
    effective_silhouette: float = 40.0
    """Independent measurements that the silhouette points of a frame count for."""
    shared_frames: int = 48
    """Frames, spread over the clip, that determine the shape."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not value > 0:
                raise InputError(f"fit: {name} = {value} must be positive")
        if self.correction not in get_args(Correction):
            raise InputError(
                f"fit: correction '{self.correction}' is unknown; choose auto, rigid, full or none"
            )

    def rigid(self, pictures: bool) -> bool:
        """Whether only part of the predicted errors is taken away.

        Args:
            pictures: the pictures of the face were read.
        """
        return self.correction == "rigid" or (self.correction == "auto" and not pictures)
